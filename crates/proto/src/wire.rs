//! Tests that hold the messages against the wire contract, encoded by hand: reflection
//! would agree with a wrong number, other programs would not.

use bytes::Bytes;
use prost::Message;

use crate::{
    castore::{
        BlobChunk, DirectoryNode, FileNode, GetDirectoryRequest, Node, PutBlobResponse,
        PutDirectoryResponse, ReadBlobRequest, StatBlobRequest, StatBlobResponse, SymlinkNode,
        get_directory_request, node, stat_blob_response::ChunkMeta,
    },
    store::{
        CalculateNarResponse, GetPathInfoRequest, ListPathInfoRequest, NarInfo, PathInfo,
        StorePath, get_path_info_request,
        nar_info::{Ca, Signature, ca::Hash},
    },
};

/// A field of bytes, text or a message shorter than 128 bytes.
fn delimited(number: u8, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    let len = u8::try_from(value.len()).expect("short");
    [&[number << 3 | 2, len], value].concat()
}

/// A field of a number below 128.
fn small(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

#[track_caller]
fn is(message: &impl Message, fields: &[Vec<u8>]) {
    assert_eq!(message.encode_to_vec(), fields.concat());
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn nodes() {
    let directory = DirectoryNode { name: bytes("n"), digest: bytes("d"), size: 3 };
    let encoded = [delimited(1, "n"), delimited(2, "d"), small(3, 3)].concat();
    is(&Node { node: Some(node::Node::Directory(directory)) }, &[delimited(1, encoded)]);

    let file = FileNode { name: bytes("n"), digest: bytes("d"), size: 3, executable: true };
    let encoded = [delimited(1, "n"), delimited(2, "d"), small(3, 3), small(4, 1)].concat();
    is(&Node { node: Some(node::Node::File(file)) }, &[delimited(2, encoded)]);

    let symlink = SymlinkNode { name: bytes("n"), target: bytes("t") };
    let encoded = [delimited(1, "n"), delimited(2, "t")].concat();
    is(&Node { node: Some(node::Node::Symlink(symlink)) }, &[delimited(3, encoded)]);
}

#[test]
fn blobs() {
    let stat = StatBlobRequest { digest: bytes("d"), send_chunks: true, send_bao: true };
    is(&stat, &[delimited(1, "d"), small(2, 1), small(3, 1)]);
    let chunk = ChunkMeta { digest: bytes("d"), size: 7 };
    let known = StatBlobResponse { chunks: vec![chunk.clone(), chunk], bao: bytes("b") };
    let chunk = delimited(2, [delimited(1, "d"), small(2, 7)].concat());
    is(&known, &[chunk.clone(), chunk, delimited(3, "b")]);
    is(&ReadBlobRequest { digest: bytes("d") }, &[delimited(1, "d")]);
    is(&BlobChunk { data: bytes("d") }, &[delimited(1, "d")]);
    is(&PutBlobResponse { digest: bytes("d") }, &[delimited(1, "d")]);
}

#[test]
fn directories() {
    // Clients send both, so `recursive` is no alternative to the digest.
    let by_what = Some(get_directory_request::ByWhat::Digest(bytes("d")));
    let get = GetDirectoryRequest { by_what, recursive: true };
    is(&get, &[delimited(1, "d"), small(2, 1)]);
    is(&PutDirectoryResponse { root_digest: bytes("d") }, &[delimited(1, "d")]);
}

#[test]
fn path_infos() {
    let narinfo = NarInfo {
        nar_size: 9,
        nar_sha256: bytes("h"),
        signatures: vec![Signature { name: "k".to_owned(), data: bytes("s") }],
        reference_names: vec!["a".to_owned(), "b".to_owned()],
        deriver: Some(StorePath { name: "d".to_owned(), digest: bytes("p") }),
        ca: Some(Ca { r#type: Hash::FlatSha512.into(), digest: bytes("c") }),
    };
    let encoded = [
        small(1, 9),
        delimited(2, "h"),
        delimited(3, [delimited(1, "k"), delimited(2, "s")].concat()),
        delimited(4, "a"),
        delimited(4, "b"),
        delimited(5, [delimited(1, "d"), delimited(2, "p")].concat()),
        delimited(6, [small(1, 8), delimited(2, "c")].concat()),
    ]
    .concat();
    let symlink = SymlinkNode { name: bytes("n"), target: bytes("t") };
    let node = Node { node: Some(node::Node::Symlink(symlink)) };
    let path_info = PathInfo {
        node: Some(node.clone()),
        references: vec![bytes("r"), bytes("q")],
        narinfo: Some(narinfo),
    };
    let node = delimited(1, node.encode_to_vec());
    is(&path_info, &[node, delimited(2, "r"), delimited(2, "q"), delimited(3, encoded)]);

    let by_what = Some(get_path_info_request::ByWhat::ByOutputHash(bytes("h")));
    is(&GetPathInfoRequest { by_what }, &[delimited(1, "h")]);
    is(&ListPathInfoRequest {}, &[]);
    let nar = CalculateNarResponse { nar_size: 9, nar_sha256: bytes("h") };
    is(&nar, &[small(1, 9), delimited(2, "h")]);
}

#[test]
fn kinds_of_content_address() {
    let kinds = [
        "NAR_SHA256",
        "NAR_SHA1",
        "NAR_SHA512",
        "NAR_MD5",
        "TEXT_SHA256",
        "FLAT_SHA1",
        "FLAT_MD5",
        "FLAT_SHA256",
        "FLAT_SHA512",
    ];
    for (number, name) in (0..).zip(kinds) {
        assert_eq!(Hash::try_from(number).expect("a kind").as_str_name(), name);
    }
    assert!(Hash::try_from(9).is_err());
}

/// What a `.proto` file declares: the file without comments and empty lines.
fn declarations(file: &str) -> Vec<&str> {
    let lines = file.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.filter(|line| !line.trim().is_empty()).collect()
}

#[test]
fn the_newer_names_are_all_that_is_newer() {
    let castore = include_str!("../protos/tvix/castore/v1/castore.proto")
        .replace("package tvix.", "package snix.")
        .replace("DirectoryNode", "DirectoryEntry")
        .replace("FileNode", "FileEntry")
        .replace("SymlinkNode", "SymlinkEntry")
        .replace("message Node", "message Entry")
        .replace("oneof node", "oneof entry");
    let newer = include_str!("../protos/snix/castore/v1/castore.proto");
    assert_eq!(declarations(&castore), declarations(newer));

    let store = include_str!("../protos/tvix/store/v1/store.proto")
        .replace("tvix", "snix")
        .replace("v1.Node node", "v1.Entry entry")
        .replace("v1.Node", "v1.Entry");
    let newer = include_str!("../protos/snix/store/v1/store.proto");
    assert_eq!(declarations(&store), declarations(newer));
}

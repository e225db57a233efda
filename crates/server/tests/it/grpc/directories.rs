//! Closures of directories, put and got.

use bytes::Bytes;
use granary_castore as checked;
use granary_proto::{
    castore::{
        Directory, DirectoryNode, FileNode, GetDirectoryRequest, SymlinkNode,
        get_directory_request::ByWhat,
    },
    snix,
};
use tonic::{Code, Status};

use super::{Server, all, refused};

fn bytes(text: &[u8]) -> Bytes {
    Bytes::copy_from_slice(text)
}

fn file(name: &str) -> FileNode {
    FileNode { name: bytes(name.as_bytes()), digest: bytes(&[1; 32]), size: 5, executable: false }
}

fn symlink(name: &str) -> SymlinkNode {
    SymlinkNode { name: bytes(name.as_bytes()), target: bytes(b"target") }
}

/// A directory with one file.
fn leaf(name: &str) -> Directory {
    Directory { files: vec![file(name)], ..Default::default() }
}

/// A directory over others, with the sizes and digests that they have.
fn over(children: &[(&str, &Directory)]) -> Directory {
    let directories = children.iter().map(|(name, child)| {
        let child = checked::Directory::try_from((*child).clone()).expect("a valid child");
        let (digest, size) = (bytes(child.digest().as_bytes()), child.size());
        DirectoryNode { name: bytes(name.as_bytes()), digest, size }
    });
    Directory { directories: directories.collect(), ..Default::default() }
}

fn digest(directory: &Directory) -> Bytes {
    let directory = checked::Directory::try_from(directory.clone()).expect("valid");
    bytes(directory.digest().as_bytes())
}

fn by(digest: Bytes, recursive: bool) -> GetDirectoryRequest {
    GetDirectoryRequest { by_what: Some(ByWhat::Digest(digest)), recursive }
}

async fn put(server: &Server, upload: &[&Directory]) -> Result<Bytes, Status> {
    let upload: Vec<_> = upload.iter().map(|&directory| directory.clone()).collect();
    let put = server.directories().put(futures::stream::iter(upload)).await?;
    Ok(put.into_inner().root_digest)
}

async fn get(server: &Server, digest: Bytes, recursive: bool) -> Result<Vec<Directory>, Status> {
    all(server.directories().get(by(digest, recursive)).await?.into_inner()).await
}

/// Checks that an upload is refused in words that begin with `start`, and that nothing of
/// it can be seen.
async fn refuses(upload: &[&Directory], code: Code, start: &str) {
    let server = Server::start().await;
    refused(put(&server, upload).await, code, start);
    for directory in upload {
        if let Ok(directory) = checked::Directory::try_from((*directory).clone()) {
            let digest = bytes(directory.digest().as_bytes());
            refused(get(&server, digest, false).await, Code::NotFound, "directory b3:");
        }
    }
}

#[tokio::test]
async fn a_closure_comes_back_breadth_first() {
    let server = Server::start().await;
    let (a, b, c) = (leaf("a"), leaf("b"), leaf("c"));
    let middle = over(&[("a", &a), ("c", &c)]);
    let root = over(&[("again", &b), ("b", &b), ("middle", &middle), ("z", &a)]);
    let put = put(&server, &[&c, &a, &b, &a, &middle, &root]).await.expect("a closure");
    assert_eq!(put, digest(&root));

    let closure = get(&server, put.clone(), true).await.expect("it was put");
    assert_eq!(closure, [root.clone(), b.clone(), middle.clone(), a.clone(), c.clone()]);
    assert_eq!(get(&server, put.clone(), false).await.expect("it was put"), [root]);
    assert_eq!(get(&server, digest(&middle), false).await.expect("it was put"), [middle]);

    let mut newer = snix::castore::directory_service_client::DirectoryServiceClient::new(
        server.channel.clone(),
    );
    let same = newer.get(by(put, true)).await.expect("it was put").into_inner();
    assert_eq!(all(same).await.expect("it was put"), closure);
    let again = newer.put(futures::stream::iter([a.clone()])).await.expect("a closure");
    assert_eq!(again.into_inner().root_digest, digest(&a));
}

#[tokio::test]
async fn closures_larger_than_a_window_come_whole() {
    let server = Server::start().await;
    let leaves: Vec<_> = (0..1500).map(|n| leaf(&format!("{n:04}"))).collect();
    let names: Vec<_> = (0..1500).map(|n| format!("{n:04}")).collect();
    let children: Vec<_> = names.iter().map(String::as_str).zip(&leaves).collect();
    let root = over(&children);
    let upload: Vec<_> = leaves.iter().chain([&root]).collect();
    let put = put(&server, &upload).await.expect("a closure");
    let closure = get(&server, put, true).await.expect("it was put");
    assert_eq!(closure[0], root);
    assert!(closure[1..] == leaves);
}

#[tokio::test]
async fn a_directory_of_many_entries_goes_through() {
    let server = Server::start().await;
    let files = (0..100_000).map(|n| file(&format!("{n:0>60}"))).collect();
    let large = Directory { files, ..Default::default() };
    let root = put(&server, &[&large]).await.expect("above the usual limit of 4 MiB");
    let mut client = server.directories().max_decoding_message_size(64 << 20);
    let got = client.get(by(root, true)).await.expect("it was put").into_inner();
    assert!(all(got).await.expect("it was put") == [large]);
}

#[tokio::test]
async fn absence_is_told_as_peers_expect() {
    let server = Server::start().await;
    let absent = digest(&leaf("absent"));
    // The call itself succeeds: the headers are out before the status.
    let got = server.directories().get(by(absent.clone(), false)).await.expect("headers");
    refused(got.into_inner().message().await, Code::NotFound, "directory b3:");
    let got = server.directories().get(by(absent, true)).await.expect("headers");
    assert_eq!(got.into_inner().message().await.expect("an empty stream"), None);
}

#[tokio::test]
async fn requests_name_a_digest() {
    let server = Server::start().await;
    for recursive in [false, true] {
        let nothing = GetDirectoryRequest { by_what: None, recursive };
        let got = server.directories().get(nothing).await;
        refused(got, Code::InvalidArgument, "digest: it must be set");
        let got = server.directories().get(by(bytes(&[1; 31]), recursive)).await;
        refused(got, Code::InvalidArgument, "digest: it has 31 bytes instead of 32");
    }
}

#[tokio::test]
async fn bad_entries_are_refused_by_field() {
    let good = leaf("good");
    let files = |files: Vec<FileNode>| Directory { files, ..Default::default() };
    let cases = [
        (files(vec![file("b"), file("a")]), "files[1].name: \"a\" comes after \"b\""),
        (files(vec![file("a"), file("a")]), "files[1].name: \"a\" is also the name of files[0]"),
        (
            Directory { symlinks: vec![symlink("a")], ..leaf("a") },
            "symlinks[0].name: \"a\" is also the name of files[0]",
        ),
        (leaf(""), "files[0].name: "),
        (leaf("."), "files[0].name: "),
        (leaf(".."), "files[0].name: "),
        (leaf("a/b"), "files[0].name: "),
        (leaf("a\0"), "files[0].name: "),
        (leaf(&"x".repeat(256)), "files[0].name: "),
        (
            files(vec![FileNode { digest: bytes(&[1; 20]), ..file("a") }]),
            "files[0].digest: it has 20 bytes instead of 32",
        ),
        (
            Directory {
                directories: vec![DirectoryNode {
                    name: bytes(b"d"),
                    digest: Bytes::new(),
                    size: 0,
                }],
                ..Default::default()
            },
            "directories[0].digest: it has 0 bytes instead of 32",
        ),
    ];
    for (bad, start) in &cases {
        refuses(&[&good, bad], Code::InvalidArgument, start).await;
    }
    for target in [&b""[..], b"a\0b", &[b'x'; 4096]] {
        let link = SymlinkNode { target: bytes(target), ..symlink("l") };
        let bad = Directory { symlinks: vec![link], ..Default::default() };
        refuses(&[&good, &bad], Code::InvalidArgument, "symlinks[0].target: ").await;
    }
}

#[tokio::test]
async fn uploads_that_are_no_closure_are_refused() {
    let (a, b) = (leaf("a"), leaf("b"));
    let root = over(&[("a", &a)]);
    refuses(&[], Code::InvalidArgument, "the upload has no directory").await;
    refuses(&[&root], Code::InvalidArgument, "directories: entry \"a\"").await;
    refuses(&[&root, &a], Code::InvalidArgument, "directories: entry \"a\"").await;
    refuses(&[&b, &a, &root], Code::InvalidArgument, "directory b3:").await;
    refuses(&[&a, &b], Code::InvalidArgument, "directory b3:").await;
    refuses(&[&a, &root, &a], Code::InvalidArgument, "directory b3:").await;

    let mut lying = root.clone();
    lying.directories[0].size = 7;
    refuses(&[&a, &lying], Code::InvalidArgument, "directories: entry \"a\"").await;
    let mut overflowing = over(&[("a", &a), ("b", &b)]);
    overflowing.directories[0].size = u64::MAX;
    refuses(&[&a, &b, &overflowing], Code::InvalidArgument, "directories.size: ").await;
}

#[tokio::test]
async fn what_is_merely_stored_does_not_count() {
    let server = Server::start().await;
    let a = leaf("a");
    let root = over(&[("a", &a)]);
    put(&server, &[&a]).await.expect("a closure");
    let refusal = put(&server, &[&root]).await;
    refused(refusal, Code::InvalidArgument, "directories: entry \"a\"");
    refused(get(&server, digest(&root), false).await, Code::NotFound, "directory b3:");
}

#[tokio::test]
async fn a_message_that_is_too_large_leaves_nothing() {
    let link = SymlinkNode { target: vec![b'x'; 64 << 20].into(), ..symlink("l") };
    let large = Directory { symlinks: vec![link], ..Default::default() };
    refuses(&[&leaf("a"), &large], Code::ResourceExhausted, "Directory: ").await;
}

//! Messages that are made to cost much: a client that may write sends them to the real daemon,
//! whose memory is measured.

use std::{
    io::{Read as _, Write as _},
    marker::PhantomData,
    net::TcpStream,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures::stream;
use granary_castore::BlobDigest;
use granary_nix_formats::nixbase32;
use granary_proto::{
    MAX_DIRECTORY_BYTES, MAX_PATH_INFO_BYTES,
    castore::{ReadBlobRequest, blob_service_client::BlobServiceClient},
};
use granary_testkit::{Random, tree::Tree};
use sha2::{Digest as _, Sha256};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

use crate::support::{Daemon, Home};

/// What the daemon may hold at its peak: twice the longest message, which arrives in a buffer
/// that grows, and what an idle daemon has.
const MEMORY_LIMIT_KIB: u64 = 300 << 10;

const PUT_DIRECTORIES: &str = "/tvix.castore.v1.DirectoryService/Put";
const PUT_BLOB: &str = "/tvix.castore.v1.BlobService/Put";
const PUT_PATH_INFO: &str = "/tvix.store.v1.PathInfoService/Put";

/// A field that nobody knows, so that it is dropped.
const UNKNOWN_FIELD: u8 = 15 << 3 | 2;

/// Messages as the bytes that they are.
#[derive(Default)]
struct Raw(PhantomData<()>);

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

/// Sends `count` messages in one call, and returns the answer.
async fn send(
    daemon: &Daemon,
    path: &'static str,
    message: Bytes,
    count: usize,
) -> Result<Bytes, Status> {
    let endpoint = Channel::from_shared(daemon.url()).expect("a URI");
    let mut client = Grpc::new(endpoint.connect().await.expect("the daemon listens"));
    client.ready().await.expect("the daemon listens");
    let messages = stream::iter((0..count).map(move |_| message.clone()));
    let path = PathAndQuery::from_static(path);
    client
        .client_streaming(Request::new(messages), path, Raw::default())
        .await
        .map(tonic::Response::into_inner)
}

/// A field with these contents.
fn field(key: u8, contents: &[u8]) -> Vec<u8> {
    let mut field = vec![key];
    let mut len = contents.len();
    while len >= 0x80 {
        field.push(len.to_le_bytes()[0] | 0x80);
        len >>= 7;
    }
    field.push(len.to_le_bytes()[0]);
    field.extend_from_slice(contents);
    field
}

/// A message with `padding_bytes` of what nobody knows behind it.
fn padded(message: &[u8], padding_bytes: usize) -> Bytes {
    [message, &field(UNKNOWN_FIELD, &vec![0; padding_bytes])].concat().into()
}

fn check_memory(daemon: &Daemon, what: &str) {
    let peak = daemon.peak_kib();
    println!("{what}: {peak} KiB");
    assert!(peak < MEMORY_LIMIT_KIB, "after {what} the daemon had {peak} KiB");
}

#[tokio::test]
async fn short_fields_do_not_become_large_messages() {
    let home = Home::new();
    let daemon = home.daemon();
    // Directories, files and symlinks, each of two bytes on the wire and of 80 in memory.
    for key in [0x0a, 0x12, 0x1a] {
        let message = Bytes::from([key, 0].repeat(MAX_DIRECTORY_BYTES / 2));
        let status = send(&daemon, PUT_DIRECTORIES, message, 1).await.expect_err("too many");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("1000000 entries, the limit"), "{status}");
        check_memory(&daemon, "33 million entries");
    }
    // References, and their names inside of the narinfo.
    let references = [0x12, 0].repeat(MAX_PATH_INFO_BYTES / 2);
    let names = [0x22, 0].repeat(MAX_PATH_INFO_BYTES / 2 - 8);
    for message in [references, field(0x1a, &names)] {
        let status = send(&daemon, PUT_PATH_INFO, message.into(), 1).await.expect_err("too many");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("200000 fields, the limit"), "{status}");
        check_memory(&daemon, "two million references");
    }
    daemon.stop();
}

#[tokio::test]
async fn as_many_entries_as_there_may_be() {
    let home = Home::new();
    let daemon = home.daemon();
    // Symlinks as short as they can be for so many to have names of their own.
    let entry = |number: usize| {
        let name = format!("{number:06x}");
        field(0x1a, &[field(0x0a, name.as_bytes()), field(0x12, b"t")].concat())
    };
    let mut message: Vec<u8> =
        (0..granary_castore::MAX_DIRECTORY_ENTRIES).flat_map(entry).collect();
    send(&daemon, PUT_DIRECTORIES, message.clone().into(), 1).await.expect("at the limit");
    check_memory(&daemon, "a million entries");
    message.extend(entry(granary_castore::MAX_DIRECTORY_ENTRIES));
    let status = send(&daemon, PUT_DIRECTORIES, message.into(), 1).await.expect_err("one more");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    daemon.stop();
}

#[tokio::test]
async fn small_messages_do_not_hold_on_to_large_buffers() {
    let home = Home::new();
    let daemon = home.daemon();
    let link = field(0x1a, &[field(0x0a, b"link"), field(0x12, b"target")].concat());
    send(&daemon, PUT_DIRECTORIES, padded(&link, 2 << 20), 250).await.expect("one directory");
    check_memory(&daemon, "250 directories in messages of 2 MiB");
    let byte = field(0x0a, b"x");
    send(&daemon, PUT_BLOB, padded(&byte, 2 << 20), 250).await.expect("a blob");
    check_memory(&daemon, "250 bytes in messages of 2 MiB");
    daemon.stop();
}

/// Each byte as a zstd frame of its own, so that it is decompressed alone.
fn byte_by_byte(contents: &[u8]) -> Vec<u8> {
    contents.iter().flat_map(|&byte| [0x28, 0xb5, 0x2f, 0xfd, 0x20, 1, 9, 0, 0, byte]).collect()
}

#[test]
fn a_nar_that_comes_byte_by_byte_does_not_hold_on_to_large_buffers() {
    let home = Home::new();
    let daemon = home.daemon();
    // What follows the file lies in its frame as long as that is under 64 KiB.
    let links = (0..200).map(|number| (format!("link{number:03}"), Tree::symlink("target")));
    let nar =
        Tree::directory([("file".to_owned(), Tree::file("x"))].into_iter().chain(links)).to_nar();
    assert!(nar.len() > 32 << 10);
    let body = byte_by_byte(&nar);
    let name = nixbase32::encode(&Sha256::digest(&body));
    let mut stream = TcpStream::connect(daemon.address()).expect("it listens");
    let head = format!(
        "PUT /nar/{name}.nar.zst HTTP/1.1\r\nHost: granary\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    check_memory(&daemon, "a NAR byte by byte");
    daemon.stop();
}

/// As many calls as one connection may have.
const STREAMS: usize = 256;

/// More than is read ahead of any client.
const UNREAD_BYTES: usize = 32 << 20;

#[tokio::test]
async fn calls_whose_answers_nobody_reads() {
    let home = Home::new();
    let daemon = home.daemon();
    let contents = Random::new(5).incompressible(UNREAD_BYTES);
    home.file("large", &contents);
    home.text(["import", "large"]);
    let digest = Bytes::copy_from_slice(BlobDigest::of(&contents).as_bytes());
    let endpoint = Channel::from_shared(daemon.url()).expect("a URI");
    let channel = endpoint.connect().await.expect("the daemon listens");
    let mut unread = Vec::new();
    for _ in 1..STREAMS {
        let request = ReadBlobRequest { digest: digest.clone() };
        let answer = BlobServiceClient::new(channel.clone()).read(request).await;
        unread.push(answer.expect("it is stored"));
    }
    // What is read ahead has been read once another client has read everything.
    let other = endpoint.connect().await.expect("the daemon listens");
    let mut read = BlobServiceClient::new(other).read(ReadBlobRequest { digest }).await;
    let messages = read.as_mut().expect("it is stored").get_mut();
    let mut received = 0;
    while let Some(chunk) = messages.message().await.expect("it is stored") {
        received += chunk.data.len();
    }
    assert_eq!(received, UNREAD_BYTES);
    check_memory(&daemon, "255 answers that nobody reads");
    drop(unread);
    daemon.stop();
}

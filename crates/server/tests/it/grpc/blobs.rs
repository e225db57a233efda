//! Put, Read and Get.

use bytes::Bytes;
use granary_castore::BlobDigest;
use granary_proto::{
    castore::{BlobChunk, ReadBlobRequest, StatBlobRequest},
    snix,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::{Server, in_messages, joined, noise, refused};

fn read(digest: &Bytes) -> ReadBlobRequest {
    ReadBlobRequest { digest: digest.clone() }
}

fn stat(digest: &Bytes) -> StatBlobRequest {
    StatBlobRequest { digest: digest.clone(), ..Default::default() }
}

#[tokio::test]
async fn framing_changes_nothing() {
    let server = Server::start().await;
    for len in [0, 1, 1000, (1 << 20) - 1, 1 << 20, (3 << 20) + 17] {
        let contents = noise(len);
        let expected = Bytes::copy_from_slice(BlobDigest::of(&contents).as_bytes());
        for message_bytes in [977, 64 << 10, 1 << 20, 10 << 20] {
            assert_eq!(server.put(&contents, message_bytes).await, expected);
        }
        assert_eq!(server.read(&expected).await.expect("it was put"), contents);
        let got = server.blobs().get(read(&expected)).await.expect("it was put").into_inner();
        assert_eq!(joined(got).await.expect("it was put"), contents);
    }
}

#[tokio::test]
async fn empty_messages_count_for_nothing() {
    let server = Server::start().await;
    let chunk = |data: &'static [u8]| BlobChunk { data: Bytes::from_static(data) };
    let messages = vec![chunk(b""), chunk(b"ab"), chunk(b""), chunk(b"c"), chunk(b"")];
    let put = server.blobs().put(futures::stream::iter(messages)).await;
    assert_eq!(put.expect("valid").into_inner().digest, &BlobDigest::of(b"abc").as_bytes()[..]);
}

#[tokio::test]
async fn the_newer_names_are_the_same_services() {
    let server = Server::start().await;
    let mut newer =
        snix::castore::blob_service_client::BlobServiceClient::new(server.channel.clone());
    let contents = noise(100_000);
    let put = newer.put(in_messages(&contents, 7000)).await.expect("valid");
    let digest = put.into_inner().digest;
    assert_eq!(server.read(&digest).await.expect("it was put"), contents);
    let got = newer.read(read(&digest)).await.expect("it was put").into_inner();
    assert_eq!(joined(got).await.expect("it was put"), contents);
    newer.stat(stat(&digest)).await.expect("it was put");
}

#[tokio::test]
async fn what_is_absent_is_told_before_any_message() {
    let server = Server::start().await;
    let absent = Bytes::copy_from_slice(BlobDigest::of(b"absent").as_bytes());
    // An error of the call itself: it stood in the headers, not behind a stream.
    refused(server.blobs().read(read(&absent)).await, Code::NotFound, "blob or chunk b3:");
    refused(server.blobs().get(read(&absent)).await, Code::NotFound, "blob or chunk b3:");
    refused(server.blobs().stat(stat(&absent)).await, Code::NotFound, "blob or chunk b3:");
}

#[tokio::test]
async fn digests_have_32_bytes() {
    let server = Server::start().await;
    for len in [0, 20, 31, 33] {
        let digest = Bytes::from(vec![1; len]);
        let start = format!("digest: it has {len} bytes instead of 32");
        refused(server.blobs().read(read(&digest)).await, Code::InvalidArgument, &start);
        refused(server.blobs().get(read(&digest)).await, Code::InvalidArgument, &start);
        refused(server.blobs().stat(stat(&digest)).await, Code::InvalidArgument, &start);
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_leaves_nothing() {
    let server = Server::start().await;
    let contents = vec![0; (16 << 20) + 1];
    let small = BlobChunk { data: Bytes::from_static(b"small") };
    let large = BlobChunk { data: contents.into() };
    let put = server.blobs().put(futures::stream::iter([small, large])).await;
    refused(put, Code::ResourceExhausted, "data: ");
    let small = Bytes::copy_from_slice(BlobDigest::of(b"small").as_bytes());
    refused(server.blobs().stat(stat(&small)).await, Code::NotFound, "blob");
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let server = Server::start().await;
    let part = noise(2 << 20);
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut client = server.blobs();
    let put = tokio::spawn(async move { client.put(ReceiverStream::new(receiver)).await });
    for data in part.chunks(1 << 20) {
        let data = Bytes::copy_from_slice(data);
        sender.send(BlobChunk { data }).await.expect("the upload goes on");
    }
    put.abort();
    assert!(put.await.is_err(), "the stream was still open");
    // On the same connection, so that the daemon has heard of the end.
    server.put(b"other", 5).await;
    let digest = Bytes::copy_from_slice(BlobDigest::of(&part).as_bytes());
    refused(server.blobs().stat(stat(&digest)).await, Code::NotFound, "blob");
}

//! `granary.v1.StoreService`.

use bytes::Bytes;
use granary_castore::BlobDigest;
use granary_proto::{
    MAX_MISSING_BLOBS,
    granary::{MissingBlobsRequest, StatsRequest},
};
use granary_store::StoreStats;
use tonic::Code;

use super::{STATS, Server, refused};

#[tokio::test]
async fn stats_are_those_of_the_source() {
    let server = Server::start().await;
    let stats = server.store().stats(StatsRequest {}).await.expect("it answers").into_inner();
    assert_eq!(StoreStats::from(stats), STATS);
}

#[tokio::test]
async fn missing_blobs_come_in_the_order_asked() {
    let server = Server::start().await;
    let stored = server.put(b"stored", 6).await;
    let absent: Vec<_> =
        (0_u8..3).map(|byte| Bytes::copy_from_slice(BlobDigest::of(&[byte]).as_bytes())).collect();
    let digests = vec![absent[2].clone(), stored, absent[0].clone(), absent[1].clone()];
    let missing = server.store().missing_blobs(MissingBlobsRequest { digests }).await;
    let missing = missing.expect("valid").into_inner().missing;
    assert_eq!(missing, [absent[2].clone(), absent[0].clone(), absent[1].clone()]);
}

#[tokio::test]
async fn one_request_asks_for_so_many() {
    let server = Server::start().await;
    let ask = async |count: usize, bytes: usize| {
        let digests = vec![Bytes::from(vec![1; bytes]); count];
        server.store().missing_blobs(MissingBlobsRequest { digests }).await
    };
    let most = ask(MAX_MISSING_BLOBS, 32).await.expect("as many as are allowed").into_inner();
    assert_eq!(most.missing.len(), MAX_MISSING_BLOBS);
    refused(ask(MAX_MISSING_BLOBS + 1, 32).await, Code::ResourceExhausted, "digests: ");
    refused(ask(MAX_MISSING_BLOBS * 2, 32).await, Code::ResourceExhausted, "the request: ");
    refused(ask(1, 31).await, Code::InvalidArgument, "digests[0]: it has 31 bytes");
}

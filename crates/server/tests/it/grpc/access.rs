//! Who may write.

use std::sync::Arc;

use axum::Extension;
use granary_castore::{BlobDigest, MemoryStore};
use granary_proto::{
    castore::{BlobChunk, Directory, StatBlobRequest},
    granary::{MissingBlobsRequest, QuarantineRequest, VerifyRequest},
    snix,
    store::PathInfo,
};
use granary_server::Access;
use tonic::Code;

use super::{Server, refused, router};

#[tokio::test]
async fn without_leave_every_put_is_refused_and_reads_go_on() {
    let store = MemoryStore::default();
    let router = router(Arc::new(store.clone())).await.layer(Extension(Access { writes: false }));
    let server = Server::serving(router).await;
    let start = "this connection may only read; a daemon started with --allow-anonymous-writes";

    let chunk = || futures::stream::iter([BlobChunk { data: "x".into() }]);
    refused(server.blobs().put(chunk()).await, Code::PermissionDenied, start);
    let directory = || futures::stream::iter([Directory::default()]);
    refused(server.directories().put(directory()).await, Code::PermissionDenied, start);
    let path_info = PathInfo::default();
    refused(server.path_infos().put(path_info).await, Code::PermissionDenied, start);

    let verify = VerifyRequest::default();
    refused(server.integrity().verify(verify).await, Code::PermissionDenied, start);
    let quarantine = QuarantineRequest::default();
    refused(server.integrity().quarantine(quarantine).await, Code::PermissionDenied, start);

    let channel = || server.channel.clone();
    let mut newer = snix::castore::blob_service_client::BlobServiceClient::new(channel());
    refused(newer.put(chunk()).await, Code::PermissionDenied, start);
    let mut newer = snix::castore::directory_service_client::DirectoryServiceClient::new(channel());
    refused(newer.put(directory()).await, Code::PermissionDenied, start);
    let mut newer = snix::store::path_info_service_client::PathInfoServiceClient::new(channel());
    refused(newer.put(PathInfo::default()).await, Code::PermissionDenied, start);

    let digest = BlobDigest::of(b"x").as_bytes().to_vec();
    let stat = StatBlobRequest { digest: digest.clone().into(), ..Default::default() };
    refused(server.blobs().stat(stat).await, Code::NotFound, "blob or chunk");
    let missing = MissingBlobsRequest { digests: vec![digest.into()] };
    server.store().missing_blobs(missing).await.expect("it only reads");
}

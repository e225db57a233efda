//! The gRPC services as their clients see them, over stores in memory.

mod access;
mod bao;
mod blobs;
mod chunks;
mod deaf;
mod directories;
mod divided;
mod health;
mod integrity;
mod limits;
mod path_infos;
mod routes;
mod store;
mod tools;
mod transcript;

use std::{net::SocketAddr, sync::Arc};

use axum::Router;
use bytes::Bytes;
use granary_castore::{Castore, MemoryStore, Result};
use granary_proto::{
    castore::{
        BlobChunk, ReadBlobRequest, blob_service_client::BlobServiceClient,
        directory_service_client::DirectoryServiceClient,
    },
    granary::store_service_client::StoreServiceClient,
    store::path_info_service_client::PathInfoServiceClient,
};
use granary_server::{
    daemon::{ListenAddress, ServeOptions, bind, serve},
    grpc::{self, GrpcOptions, GrpcServices},
};
use granary_store::{StatsSource, Store, StoreOptions, StoreStats};
use integrity::FixedIntegrity;
use tokio::sync::oneshot;
use tonic::{Code, Status, Streaming, transport::Channel};

/// What the services under test say of their store.
const STATS: StoreStats = StoreStats {
    blobs: 1,
    chunks: 2,
    patched_chunks: 11,
    directories: 3,
    path_infos: 4,
    logical_bytes: 5,
    unique_bytes: 6,
    stored_bytes: 7,
    damaged_objects: 8,
    packs: 9,
    format_version: 10,
};

struct FixedStats;

impl StatsSource for FixedStats {
    fn stats(&self) -> Result<StoreStats> {
        Ok(STATS)
    }
}

/// The router of all services over `castore`, with path infos of their own.
async fn router(castore: Arc<dyn Castore>) -> Router {
    router_with(castore, GrpcOptions::default()).await
}

/// The same with other settings.
async fn router_with(castore: Arc<dyn Castore>, options: GrpcOptions) -> Router {
    let records = Arc::new(MemoryStore::default());
    let path_infos = Store::new(castore.clone(), records, StoreOptions::default());
    let services = GrpcServices {
        castore,
        path_infos: Arc::new(path_infos),
        stats: Arc::new(FixedStats),
        integrity: Some(Arc::new(FixedIntegrity)),
        retention: None,
    };
    grpc::router_with(services, options).await.fallback(grpc::fallback)
}

/// A daemon on a port of its own, and a connection to it. It ends with this value.
struct Server {
    address: SocketAddr,
    channel: Channel,
    _stop: oneshot::Sender<()>,
}

impl Server {
    /// Over an empty store in memory.
    async fn start() -> Self {
        Self::over(Arc::new(MemoryStore::default())).await
    }

    async fn over(castore: Arc<dyn Castore>) -> Self {
        Self::serving(router(castore).await).await
    }

    async fn serving(router: Router) -> Self {
        let listeners = bind(&[ListenAddress::Ip(([127, 0, 0, 1], 0).into())]).await;
        let listeners = listeners.expect("a free port");
        let ListenAddress::Ip(address) = *listeners[0].address() else {
            panic!("asked for an IP address")
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            stopped.await.ok();
        };
        tokio::spawn(serve(listeners, router, ServeOptions::default(), shutdown));
        let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URI");
        let channel = endpoint.connect().await.expect("the daemon listens");
        Self { address, channel, _stop: stop }
    }

    fn blobs(&self) -> BlobServiceClient<Channel> {
        BlobServiceClient::new(self.channel.clone())
    }

    fn directories(&self) -> DirectoryServiceClient<Channel> {
        DirectoryServiceClient::new(self.channel.clone())
    }

    fn path_infos(&self) -> PathInfoServiceClient<Channel> {
        PathInfoServiceClient::new(self.channel.clone())
    }

    fn store(&self) -> StoreServiceClient<Channel> {
        StoreServiceClient::new(self.channel.clone())
    }

    /// Puts a blob, cut into messages of `message_bytes`.
    async fn put(&self, contents: &[u8], message_bytes: usize) -> Bytes {
        let messages = in_messages(contents, message_bytes);
        self.blobs().put(messages).await.expect("a valid blob").into_inner().digest
    }

    /// Reads a blob or chunk to its end.
    async fn read(&self, digest: &Bytes) -> Result<Vec<u8>, Status> {
        let request = ReadBlobRequest { digest: digest.clone() };
        joined(self.blobs().read(request).await?.into_inner()).await
    }
}

/// `contents`, cut into messages of `message_bytes`.
fn in_messages(
    contents: &[u8],
    message_bytes: usize,
) -> impl futures::Stream<Item = BlobChunk> + Send + 'static {
    let chunks = contents.chunks(message_bytes);
    let messages: Vec<_> =
        chunks.map(|data| BlobChunk { data: Bytes::copy_from_slice(data) }).collect();
    futures::stream::iter(messages)
}

/// The data of all messages; each is checked to be of a size that may be sent.
async fn joined(mut messages: Streaming<BlobChunk>) -> Result<Vec<u8>, Status> {
    let mut contents = Vec::new();
    while let Some(BlobChunk { data }) = messages.message().await? {
        assert!((1..=1 << 20).contains(&data.len()), "a message of {} bytes", data.len());
        contents.extend_from_slice(&data);
    }
    Ok(contents)
}

/// Everything that a stream gives.
async fn all<T>(mut messages: Streaming<T>) -> Result<Vec<T>, Status> {
    let mut items = Vec::new();
    while let Some(item) = messages.message().await? {
        items.push(item);
    }
    Ok(items)
}

/// Bytes that repeat nowhere near, the same in every run.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Checks that `result` was refused with `code`, in words that begin with `start`.
#[track_caller]
fn refused<T>(result: Result<T, Status>, code: Code, start: &str) {
    let status = result.err().expect("it should be refused");
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().starts_with(start), "{:?} is not about {start}", status.message());
}

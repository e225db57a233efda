//! The binary cache over a store in memory, asked without a socket.

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use bytes::Bytes;
use granary_castore::MemoryStore;
use granary_nix_formats::{NarHash, StorePath, StorePathHash};
use granary_server::{
    Access,
    http::{HttpOptions, router},
};
use granary_store::{IngestedNar, Store, StoreOptions, ingest_nar};
use http_body_util::BodyExt as _;
use sha2::{Digest, Sha256};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

/// Threads for what blocks: looking up, cutting, encoding.
const MAX_BLOCKING_THREADS: usize = 4;

/// A binary cache.
pub(crate) struct HttpCache {
    pub(crate) store: Arc<Store>,
    router: Router,
}

/// What it answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl HttpCache {
    /// One with nothing in it.
    pub(crate) fn new() -> Self {
        let memory = Arc::new(MemoryStore::default());
        let store = Store::new(Arc::clone(&memory) as _, memory, StoreOptions::default());
        let store = Arc::new(store);
        let router = router(Arc::clone(&store), HttpOptions::default());
        Self { store, router }
    }

    /// Asks it, with the right to write, and reads the whole answer.
    pub(crate) fn exchange(&self, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(Access { writes: true });
        let router = self.router.clone();
        runtime().block_on(async {
            let answer = router.oneshot(request).await.expect("a router always answers");
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.expect("nothing in memory breaks off").to_bytes();
            Answer { status: parts.status, headers: parts.headers, body }
        })
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        let request = Request::get(format!("/{path}")).body(Body::empty());
        self.exchange(request.expect("a valid request"))
    }

    /// Takes in the contents of a NAR.
    pub(crate) fn ingest(&self, nar: &[u8]) -> IngestedNar {
        let mut batch = self.store.castore().batch().expect("memory takes writes");
        let ingested = ingest_nar(nar, &mut *batch).expect("a valid NAR");
        batch.commit().expect("memory takes writes");
        ingested
    }
}

/// A store path whose hash part follows from its name.
pub(crate) fn store_path(name: &str) -> StorePath {
    let digest = Sha256::digest(name.as_bytes());
    let hash = digest[..20].try_into().expect("20 of 32 bytes");
    StorePath::new(StorePathHash::from_bytes(hash), name).expect("a valid name")
}

pub(crate) fn sha256(bytes: &[u8]) -> NarHash {
    NarHash::from_bytes(Sha256::digest(bytes).into())
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).max_blocking_threads(MAX_BLOCKING_THREADS).enable_all();
        builder.build().expect("threads can be had")
    })
}

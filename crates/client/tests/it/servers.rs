//! Servers on ports of their own.

use std::sync::Arc;

use axum::Router;
use granary_castore::{Castore, MemoryStore};
use granary_client::Client;
use granary_server::{
    daemon::{ListenAddress, ServeOptions, bind, serve},
    grpc::{self, GrpcServices},
};
use granary_store::{StatsSource, Store, StoreOptions, StoreStats};

use crate::integrity::FixedIntegrity;
use tokio::runtime::{Builder, Runtime};

/// A server and the threads it runs on. It ends when it is dropped.
pub(crate) struct Server {
    url: String,
    /// Dropping a runtime outside of it ends its tasks.
    runtime: Runtime,
}

impl Server {
    /// Our own services over `castore`, with the path infos in memory.
    pub(crate) fn over(castore: Arc<dyn Castore>) -> Self {
        let records = Arc::new(MemoryStore::default());
        let store = Store::new(castore.clone(), records, StoreOptions::default());
        let services = GrpcServices {
            castore,
            path_infos: Arc::new(store),
            stats: Arc::new(FixedStats),
            integrity: Some(Arc::new(FixedIntegrity)),
            retention: None,
        };
        let runtime = runtime();
        let router = runtime.block_on(grpc::router(services)).fallback(grpc::fallback);
        Self::with(runtime, "127.0.0.1:0", router)
    }

    /// Whatever `router` answers.
    pub(crate) fn with(runtime: Runtime, address: &str, router: Router) -> Self {
        let address: ListenAddress = address.parse().expect("a valid address");
        let listeners = runtime.block_on(bind(&[address])).expect("a free port");
        let url = match listeners[0].address() {
            ListenAddress::Unix(path) => format!("unix:{}", path.display()),
            other => format!("http://{other}"),
        };
        let never = std::future::pending();
        runtime.spawn(serve(listeners, router, ServeOptions::default(), never));
        Self { url, runtime }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.url, self.runtime.handle().clone()).expect("the server answers")
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Numbers to recognise.
pub(crate) struct FixedStats;

impl StatsSource for FixedStats {
    fn stats(&self) -> granary_castore::Result<StoreStats> {
        Ok(StoreStats { blobs: 1, packs: 9, ..StoreStats::default() })
    }
}

//! The suites that every store must pass, on the engine.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use granary_engine::Engine;
use granary_store::{Store, StoreOptions};
use granary_testkit::{blob_service, directory_service, path_info_service, record_store};
use tempfile::TempDir;

use crate::support::open;

/// Makes stores in directories of their own.
struct Stores {
    parent: TempDir,
    made: AtomicUsize,
}

impl Stores {
    fn new() -> Self {
        Self { parent: TempDir::new().expect("a temporary directory"), made: AtomicUsize::new(0) }
    }

    fn dir(&self) -> PathBuf {
        self.parent.path().join(self.made.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn engine(&self) -> Arc<Engine> {
        Arc::new(open(&self.dir()).expect("a new store"))
    }
}

#[test]
fn blobs() {
    let stores = Stores::new();
    blob_service::run(&|| stores.engine());
}

#[test]
fn directories() {
    let stores = Stores::new();
    directory_service::run(&|| stores.engine());
}

#[test]
fn records() {
    let stores = Stores::new();
    record_store::run(&|| stores.engine());
}

#[test]
fn path_infos() {
    let stores = Stores::new();
    path_info_service::run(&|| {
        let engine = stores.engine();
        Arc::new(Store::new(engine.clone(), engine, StoreOptions { signing_key: None }))
    });
}

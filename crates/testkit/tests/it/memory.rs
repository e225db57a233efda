//! The store in memory passes the suites. The same runs show that the suites can pass.

use std::sync::Arc;

use granary_castore::MemoryStore;
use granary_store::{Store, StoreOptions};
use granary_testkit::FramedStore;

#[test]
fn blobs() {
    granary_testkit::blob_service::run(&|| Arc::new(MemoryStore::default()));
}

#[test]
fn blobs_in_extents() {
    for max_extent_bytes in [1 << 20, 100_000] {
        granary_testkit::blob_service::run(&|| Arc::new(FramedStore::new(max_extent_bytes)));
    }
}

#[test]
fn directories() {
    granary_testkit::directory_service::run(&|| Arc::new(MemoryStore::default()));
}

#[test]
fn records() {
    granary_testkit::record_store::run(&|| Arc::new(MemoryStore::default()));
}

#[test]
fn path_infos() {
    granary_testkit::path_info_service::run(&|| {
        let memory = Arc::new(MemoryStore::default());
        Arc::new(Store::new(memory.clone(), memory, StoreOptions::default()))
    });
}

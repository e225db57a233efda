//! What readers see while others write.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use granary_castore::{Castore, RecordStore, RecordWrite};
use granary_testkit::Random;
use tempfile::TempDir;

use crate::support::{KIND, open, read_blob};

const KEYS: u32 = 2000;

/// Records that are written together are seen together, and a blob not before its chunks.
#[test]
fn nothing_is_seen_half() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("a new store");
    let done = AtomicBool::new(false);
    let value = |key: u32| {
        let value = engine.record(KIND, &key.to_be_bytes()).expect("readable");
        value.map_or(0, |value| u32::from_be_bytes(value[..].try_into().expect("four bytes")))
    };
    let mut random = Random::new(1);
    let blobs: Vec<_> = (0..100).map(|_| random.compressible(25_000)).collect();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0_u64;
            while !done.load(Ordering::Relaxed) {
                let (first, last) = (value(0), value(KEYS - 1));
                assert!(first <= last, "{first} was seen, and then {last}");
                for blob in &blobs {
                    let digest = granary_castore::BlobDigest::of(blob);
                    let read = read_blob(&engine, &digest).expect("whole or absent");
                    assert!(read.is_none_or(|read| read == *blob));
                }
                reads += 1;
            }
            reads
        });
        for (number, blob) in (1_u32..).zip(&blobs) {
            let mut batch = engine.batch().expect("open");
            batch.put_blob(blob.clone().into()).expect("put");
            batch.commit().expect("committed");
            let writes = (0..KEYS).map(|key| RecordWrite {
                kind: KIND,
                key: Bytes::copy_from_slice(&key.to_be_bytes()),
                value: Some(Bytes::copy_from_slice(&number.to_be_bytes())),
            });
            engine.write_records(writes.collect()).expect("written");
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("it saw nothing half") > 0);
    });
    assert_eq!(engine.stats().expect("counted").damaged_count, 0);
}

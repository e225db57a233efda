//! Much of something, and too much of it.

use bytes::Bytes;
use granary_castore::{BlobDigest, BlobService, Castore, Error, RecordStore, RecordWrite};
use granary_testkit::Random;
use tempfile::TempDir;

use crate::support::{KIND, open, read_blob};

fn write(key: &[u8], value_len: usize) -> RecordWrite {
    RecordWrite {
        kind: KIND,
        key: Bytes::copy_from_slice(key),
        value: Some(vec![7; value_len].into()),
    }
}

/// More chunks than a blob's record lists itself, and more objects than a batch remembers.
#[test]
fn long_lists_and_many_objects() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("a new store");
    let large = Random::new(3).incompressible(100 << 20);
    let mut batch = engine.batch().expect("open");
    for piece in large.chunks(1 << 20) {
        batch.write(piece).expect("written");
    }
    let digest = batch.finish_blob().expect("finished");
    for number in 0..70_000_u32 {
        batch.put_blob(Bytes::copy_from_slice(&number.to_le_bytes())).expect("put");
    }
    batch.commit().expect("committed");
    drop(engine);

    let engine = open(dir.path()).expect("opens");
    assert!(read_blob(&engine, &digest).expect("readable").as_ref() == Some(&large));
    let chunks = engine.chunks(&digest, usize::MAX).expect("readable").expect("stored");
    assert!(chunks.len() > 1024, "{} chunks need no lists", chunks.len());
    let mut start = 0;
    for chunk in &chunks {
        let end = start + usize::try_from(chunk.size_bytes).expect("a chunk is small");
        assert_eq!(chunk.digest.as_bytes(), blake3::hash(&large[start..end]).as_bytes());
        start = end;
    }
    assert_eq!(start, large.len());
    assert!(engine.chunks(&digest, 1024).expect("readable").expect("stored").is_empty());
    let mut reader = BlobService::open(&engine, &digest).expect("readable").expect("stored");
    let mut random = Random::new(4);
    for _ in 0..50 {
        let offset = random.below(large.len());
        let piece = reader.read_at(offset as u64, 100_000).expect("readable");
        assert!(!piece.is_empty() && piece == large[offset..offset + piece.len()], "{offset}");
    }
    for number in [0, 65_535, 65_536, 69_999_u32] {
        let digest = BlobDigest::of(&number.to_le_bytes());
        assert!(read_blob(&engine, &digest).expect("readable").is_some(), "{number}");
    }
}

#[test]
fn records_have_limits() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("a new store");
    engine.write_records(vec![write(&[1; 255], 4 << 20)]).expect("just within the limits");
    let too_large = [
        vec![write(&[1; 256], 1)],
        vec![write(b"value", (4 << 20) + 1)],
        (0..5_u8).map(|key| write(&[key], 4 << 20)).collect(),
        (0..10_001_u32).map(|key| write(&key.to_le_bytes(), 0)).collect(),
    ];
    for writes in too_large {
        let count = writes.len();
        let error = engine.write_records(writes).expect_err("too large");
        assert!(matches!(error, Error::TooLarge(_)), "{count} writes: {error}");
    }
    assert_eq!(engine.scan_records(KIND, None, 10).expect("readable").len(), 1);
}

//! Checks of batches.

use std::{sync::Arc, thread};

use bytes::Bytes;
use granary_castore::{BlobDigest, Error};

use super::{Store, assert_stored, put, read};
use crate::Random;

pub(super) fn contents_come_back(store: &Store) {
    let mut random = Random::new(1);
    let mut cases = vec![Vec::new(), vec![0], vec![7; 1 << 20], vec![0; 5 << 20]];
    for len in [100, 4095, 4096, 65_536, 1 << 20, (4 << 20) + 3] {
        cases.push(random.compressible(len));
        cases.push(random.incompressible(len));
    }
    for contents in &cases {
        put(store, contents);
        assert_stored(store, contents);
    }
    // Later ones have not spoiled earlier ones.
    for contents in &cases {
        assert_stored(store, contents);
    }
    for step in [1, 3, 7] {
        assert_eq!(read(store, &BlobDigest::of(&cases[4]), step), cases[4], "{step} at a time");
    }
}

pub(super) fn visible_after_commit(store: &Store) {
    let mut random = Random::new(2);
    let contents: Vec<_> =
        [10, 1000, 300_000, 2 << 20].iter().map(|len| random.incompressible(*len)).collect();
    let mut batch = store.batch().expect("a batch");
    for blob in &contents {
        batch.write(blob).expect("a write is taken");
        assert_eq!(batch.finish_blob().expect("a blob ends"), BlobDigest::of(blob));
    }
    batch.commit().expect("a batch is committed");
    for blob in &contents {
        assert_stored(store, blob);
    }
}

pub(super) fn literals_have_no_effect(store: &Store) {
    let mut random = Random::new(9);
    let blobs: Vec<_> = (0..300).map(|number| random.compressible(number * 40)).collect();
    let mut batch = store.batch().expect("a batch");
    for (number, blob) in blobs.iter().enumerate() {
        let literals = random.incompressible(if number % 50 == 0 { 70_000 } else { number });
        batch.put_literals(&literals).expect("literals are taken");
        if number % 2 == 0 {
            batch.put_blob(blob.clone().into()).expect("a blob is taken");
        } else {
            batch.write(blob).expect("a write is taken");
            batch.finish_blob().expect("a blob ends");
        }
    }
    batch.put_literals(b"at the end").expect("literals are taken");
    batch.commit().expect("a batch is committed");
    for blob in &blobs {
        assert_stored(store, blob);
    }
}

/// Blobs that lie in pieces of an archive, with literals around them and others that do not, of which
/// some are there already.
pub(super) fn archives_have_no_effect(store: &Store) {
    let mut random = Random::new(10);
    let known = random.compressible(3_000);
    put(store, &known);
    let mut blobs = Vec::new();
    let mut batch = store.batch().expect("a batch");
    for (number, least) in [1 << 10, 2 << 20, 900_000, 300_000, 700_000].into_iter().enumerate() {
        let mut archive = Vec::new();
        let mut ranges = Vec::new();
        while archive.len() < least {
            archive.extend(random.incompressible(ranges.len() % 9));
            let start = archive.len();
            let len = [0, 5, 700, 20_000, 90_000, 400_000][random.below(6)];
            archive.extend(random.compressible(len));
            ranges.push(start..archive.len());
            if ranges.len() % 20 == 0 {
                archive.extend_from_slice(&known);
                ranges.push(archive.len() - known.len()..archive.len());
            }
        }
        archive.extend(random.incompressible(if number == 2 { 70_000 } else { 10 }));
        let archive = Bytes::from(archive);
        let mut done = 0;
        for range in ranges {
            batch.put_literals_within(&archive, done..range.start).expect("literals are taken");
            done = range.end;
            let blob = archive.slice(range.clone());
            let digest = batch.put_blob_within(&archive, range).expect("a blob is taken");
            assert_eq!(digest, BlobDigest::of(&blob));
            blobs.push(blob);
        }
        batch.put_literals_within(&archive, done..archive.len()).expect("literals are taken");
        let other = random.compressible(40_000);
        batch.put_blob(other.clone().into()).expect("a blob is taken");
        blobs.push(other.into());
    }
    batch.commit().expect("a batch is committed");
    for blob in &blobs {
        assert_stored(store, blob);
    }
}

pub(super) fn framing_has_no_effect(store: &Store) {
    let mut random = Random::new(3);
    let mut contents = random.compressible(700_000);
    contents.extend(random.incompressible(700_000));
    let digest = BlobDigest::of(&contents);
    let mut batch = store.batch().expect("a batch");
    for largest in [1 << 14, 1 << 17, 1 << 20, usize::MAX] {
        let mut rest = &contents[..];
        batch.write(&[]).expect("an empty write is taken");
        while !rest.is_empty() {
            let len = (1 + random.below(largest)).min(rest.len());
            batch.write(&rest[..len]).expect("a write is taken");
            rest = &rest[len..];
        }
        assert_eq!(batch.finish_blob().expect("a blob ends"), digest, "pieces up to {largest}");
    }
    // Byte by byte, and without any.
    for byte in b"framing" {
        batch.write(std::slice::from_ref(byte)).expect("a write is taken");
    }
    assert_eq!(batch.finish_blob().expect("a blob ends"), BlobDigest::of(b"framing"));
    assert_eq!(batch.finish_blob().expect("an empty blob ends"), BlobDigest::of(b""));
    batch.write(&[]).expect("an empty write is taken");
    assert_eq!(batch.finish_blob().expect("an empty blob ends"), BlobDigest::of(b""));
    batch.commit().expect("a batch is committed");
    assert_stored(store, &contents);
    assert_stored(store, b"framing");
    assert_stored(store, b"");
}

pub(super) fn same_blob_twice(store: &Store) {
    let contents = Random::new(4).incompressible(2 << 20);
    let mut batch = store.batch().expect("a batch");
    for _ in 0..2 {
        batch.put_blob(Bytes::copy_from_slice(&contents)).expect("a blob is taken");
        batch.write(&contents).expect("a write is taken");
        assert_eq!(batch.finish_blob().expect("a blob ends"), BlobDigest::of(&contents));
    }
    batch.commit().expect("a batch is committed");
    assert_stored(store, &contents);
    put(store, &contents);
    assert_stored(store, &contents);
}

pub(super) fn many_small_blobs(store: &Store) {
    let mut random = Random::new(5);
    let contents: Vec<_> = (0..1500_usize)
        .map(|number| {
            let mut blob = number.to_le_bytes().to_vec();
            let len = random.below(300);
            blob.extend(random.compressible(len));
            blob
        })
        .collect();
    let mut batch = store.batch().expect("a batch");
    for blob in &contents {
        let digest = batch.put_blob(Bytes::copy_from_slice(blob)).expect("a blob is taken");
        assert_eq!(digest, BlobDigest::of(blob));
    }
    batch.commit().expect("a batch is committed");
    for blob in &contents {
        assert_stored(store, blob);
    }
}

pub(super) fn several_writers(store: &Store) {
    let shared = Random::new(6).incompressible(1 << 20);
    let own = |writer: u64| Random::new(60 + writer).incompressible(600_000);
    thread::scope(|scope| {
        for writer in 0..4 {
            let (store, shared) = (Arc::clone(store), &shared);
            scope.spawn(move || {
                put(&store, &own(writer));
                put(&store, shared);
            });
        }
    });
    assert_stored(store, &shared);
    for writer in 0..4 {
        assert_stored(store, &own(writer));
    }
}

pub(super) fn empty_batch(store: &Store) {
    let batch = store.batch().expect("a batch");
    batch.commit().expect("an empty batch is committed");
}

pub(super) fn dropping_breaks_nothing(store: &Store) {
    let mut random = Random::new(7);
    let (before, dropped) = (random.incompressible(100_000), random.incompressible(2 << 20));
    put(store, &before);
    let mut batch = store.batch().expect("a batch");
    batch.put_blob(Bytes::copy_from_slice(&dropped)).expect("a blob is taken");
    batch.put_blob(Bytes::copy_from_slice(&before)).expect("a blob is taken");
    batch.write(b"begun and never ended").expect("a write is taken");
    drop(batch);
    assert_stored(store, &before);
    // Nothing is promised of what was dropped, but if it is there, it is right.
    if store.stat(&BlobDigest::of(&dropped)).expect("the store answers").is_some() {
        assert_stored(store, &dropped);
    }
    let begun = store.stat(&BlobDigest::of(b"begun and never ended"));
    assert!(begun.expect("the store answers").is_none(), "a blob that never ended is there");
    put(store, &dropped);
    assert_stored(store, &dropped);
}

pub(super) fn unfinished(store: &Store) {
    let mut batch = store.batch().expect("a batch");
    batch.put_blob(Bytes::from_static(b"whole")).expect("a blob is taken");
    batch.write(b"only a part").expect("a write is taken");
    // Whether that is an error is left to the store.
    let committed = batch.commit();
    let part = store.stat(&BlobDigest::of(b"only a part")).expect("the store answers");
    assert!(part.is_none(), "a blob that never ended is there");
    if committed.is_ok() {
        assert_stored(store, b"whole");
    }
}

pub(super) fn no_put_while_writing(store: &Store) {
    let mut batch = store.batch().expect("a batch");
    batch.write(b"begun").expect("a write is taken");
    let refused = batch.put_blob(Bytes::from_static(b"in between"));
    assert!(matches!(refused, Err(Error::Invalid(_))), "put_blob within a blob gave {refused:?}");
    let refused = batch.put_blob_within(&Bytes::from_static(b"in between"), 3..10);
    assert!(matches!(refused, Err(Error::Invalid(_))), "the same in an archive gave {refused:?}");
    let refused = batch.commit();
    assert!(matches!(refused, Err(Error::Invalid(_))), "commit within a blob gave {refused:?}");
}

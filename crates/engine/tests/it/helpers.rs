//! Batches whose work is done by those who fill them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use granary_castore::{BlobDigest, Castore};
use granary_engine::Engine;
use granary_testkit::Random;
use tempfile::TempDir;

use crate::support::{open, read_blob};

/// Blobs that fill about a frame each.
fn blobs(count: usize) -> Vec<Vec<u8>> {
    let mut random = Random::new(1);
    (0..count).map(|_| random.compressible(1 << 20)).collect()
}

fn check(engine: &Engine, blobs: &[Vec<u8>]) {
    for blob in blobs {
        let read = read_blob(engine, &BlobDigest::of(blob)).expect("readable");
        assert!(read.as_ref() == Some(blob), "a blob is another, or is not there");
    }
}

#[test]
fn helpers_do_what_the_batch_leaves() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("a new store");
    let mut batch = engine.batch().expect("open");
    let mut helpers = batch.helpers(2).expect("memory");
    assert_eq!(helpers.len(), 2);
    let blobs = blobs(2);
    for (blob, helper) in blobs.iter().zip(&mut helpers) {
        assert_eq!(helper.waiting(), 0);
        batch.put_blob(Bytes::copy_from_slice(blob)).expect("taken");
        assert_eq!(helper.waiting(), 1);
        assert!(helper.help(), "a frame waits");
        assert_eq!(helper.waiting(), 0);
        assert!(!helper.help(), "nothing waits");
    }
    batch.commit().expect("durable");
    check(&engine, &blobs);
}

#[test]
fn a_helper_helps_its_own_batch() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("a new store");
    let [mut one, mut other] = [(); 2].map(|()| engine.batch().expect("open"));
    let mut helpers: Vec<_> = [&mut one, &mut other]
        .into_iter()
        .flat_map(|batch| batch.helpers(1).expect("memory"))
        .collect();
    let blobs = blobs(1);
    one.put_blob(Bytes::copy_from_slice(&blobs[0])).expect("taken");
    assert_eq!(helpers.iter().map(|helper| helper.waiting()).collect::<Vec<_>>(), [1, 0]);
    assert!(!helpers[1].help(), "it is another's");
    assert!(helpers[0].help(), "it is its own");
    one.commit().expect("durable");
    other.commit().expect("durable");
    check(&engine, &blobs);
}

#[test]
fn a_batch_without_helpers_left_is_as_any_other() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("a new store");
    let mut batch = engine.batch().expect("open");
    let helpers = batch.helpers(2).expect("memory");
    let blobs = blobs(2);
    batch.put_blob(Bytes::copy_from_slice(&blobs[0])).expect("taken");
    drop(helpers);
    batch.put_blob(Bytes::copy_from_slice(&blobs[1])).expect("taken");
    // Both are taken by the threads: nothing is left for a helper that comes later.
    let began = Instant::now();
    while batch.helpers(1).expect("memory")[0].waiting() > 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "nobody does what was left");
        thread::yield_now();
    }
    batch.commit().expect("durable");
    check(&engine, &blobs);
}

#[test]
fn what_no_helper_does_is_done_anyway() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("a new store");
    // Far more than may wait, and less.
    let blobs = blobs(64);
    for blobs in [&blobs[..63], &blobs[63..]] {
        let mut batch = engine.batch().expect("open");
        let _helpers = batch.helpers(1).expect("memory");
        for blob in blobs {
            batch.put_blob(Bytes::copy_from_slice(blob)).expect("taken");
        }
        batch.commit().expect("durable");
        check(&engine, blobs);
    }
}

/// Sets it at the end of a scope, also when the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn helpers_and_threads_and_several_batches_work_beside_each_other() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("a new store");
    let blobs = blobs(48);
    let is_filled = AtomicBool::new(false);
    thread::scope(|scope| {
        let done = Done(&is_filled);
        let mut batch = engine.batch().expect("open");
        for mut helper in batch.helpers(2).expect("memory") {
            let is_filled = &is_filled;
            scope.spawn(move || {
                while !is_filled.load(Ordering::Relaxed) {
                    if !helper.help() {
                        thread::yield_now();
                    }
                }
            });
        }
        let (engine, blobs) = (&engine, &blobs);
        let other = scope.spawn(move || {
            let mut batch = engine.batch().expect("open");
            for blob in blobs.iter().rev() {
                batch.put_blob(Bytes::copy_from_slice(blob)).expect("taken");
            }
            batch.commit().expect("durable");
        });
        for blob in blobs {
            batch.put_blob(Bytes::copy_from_slice(blob)).expect("taken");
        }
        batch.commit().expect("durable");
        drop(done);
        other.join().expect("the other batch is stored as well");
    });
    check(&engine, &blobs);
}

//! The conformance suite of blobs: [`BlobService`](granary_castore::BlobService), and what
//! a [`WriteBatch`](granary_castore::WriteBatch) does with them.

mod reading;
mod writing;

use std::sync::Arc;

use bytes::Bytes;
use granary_castore::{BlobDigest, BlobReader, Castore};

use crate::checks::{self, checks};

/// Runs the suite, each check on a new, empty store from `make`.
///
/// # Panics
///
/// If a check fails, with the names of all that have.
pub fn run(make: &dyn Fn() -> Arc<dyn Castore>) {
    use reading::{
        absent_is_none, behind_the_end, chunks_are_the_blob, extents_are_the_blob,
        few_chunks_or_none, random_parts, readers_are_independent,
    };
    use writing::{
        archives_have_no_effect, contents_come_back, dropping_breaks_nothing, empty_batch,
        framing_has_no_effect, literals_have_no_effect, many_small_blobs, no_put_while_writing,
        same_blob_twice, several_writers, unfinished, visible_after_commit,
    };
    checks::run(
        "blob_service",
        make,
        checks![
            absent_is_none,
            contents_come_back,
            visible_after_commit,
            framing_has_no_effect,
            literals_have_no_effect,
            archives_have_no_effect,
            same_blob_twice,
            many_small_blobs,
            several_writers,
            empty_batch,
            dropping_breaks_nothing,
            unfinished,
            no_put_while_writing,
            random_parts,
            behind_the_end,
            readers_are_independent,
            chunks_are_the_blob,
            few_chunks_or_none,
            extents_are_the_blob,
        ],
    );
}

type Store = Arc<dyn Castore>;

fn put(store: &Store, contents: &[u8]) -> BlobDigest {
    let mut batch = store.batch().expect("a batch");
    let digest = batch.put_blob(Bytes::copy_from_slice(contents)).expect("a blob is taken");
    batch.commit().expect("a batch is committed");
    assert_eq!(digest, BlobDigest::of(contents), "the digest is the BLAKE3 of the contents");
    digest
}

fn open(store: &Store, digest: &BlobDigest) -> Box<dyn BlobReader> {
    store.open(digest).expect("the store answers").expect("the blob is stored")
}

/// All of a blob, at most `step` bytes at a time.
fn read(store: &Store, digest: &BlobDigest, step: usize) -> Vec<u8> {
    let mut reader = open(store, digest);
    let mut contents = Vec::new();
    loop {
        let bytes = reader.read_at(contents.len() as u64, step).expect("a blob can be read");
        if bytes.is_empty() {
            break;
        }
        assert!(bytes.len() <= step, "{} bytes for at most {step}", bytes.len());
        contents.extend_from_slice(&bytes);
    }
    assert_eq!(contents.len() as u64, reader.size_bytes(), "it ends where its size says");
    contents
}

/// Panics unless `contents` are stored, with their size, and come back.
fn assert_stored(store: &Store, contents: &[u8]) {
    let digest = BlobDigest::of(contents);
    let stat = store.stat(&digest).expect("the store answers").expect("the blob is stored");
    assert_eq!(stat.size_bytes, contents.len() as u64, "size of {digest}");
    assert!(read(store, &digest, 1 << 20) == contents, "contents of {digest}");
}

//! Contents that name store paths: only what is left without the hashes is stored anew.

use std::fs;

use bytes::Bytes;
use granary_castore::{BlobDigest, BlobService, Castore};
use granary_engine::{Engine, EngineStats, OpenOptions};
use granary_testkit::Random;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::{open, put_blob, read_blob};

fn stats(engine: &Engine) -> EngineStats {
    engine.stats().expect("counted")
}

/// What a file of a store path may look like: many references, and long stretches without.
fn rebuilt(len: usize, hash_seed: u64) -> Vec<u8> {
    let mut contents = Random::new(1).with_references(len / 2, 40, 2_000, hash_seed);
    contents.extend(Random::new(2).compressible(len - contents.len()));
    contents
}

/// The blob is there, as a whole and chunk by chunk.
fn check(engine: &Engine, contents: &[u8]) {
    let digest = BlobDigest::of(contents);
    let read = read_blob(engine, &digest).expect("readable").expect("it is there");
    assert!(read == contents, "a blob of {} bytes", contents.len());
    let stat = engine.stat(&digest).expect("readable").expect("it is there");
    assert_eq!(stat.size_bytes, contents.len() as u64);
    let chunks = engine.chunks(&digest, usize::MAX).expect("readable").expect("it is there");
    let mut rest = contents;
    for chunk in &chunks {
        let digest = BlobDigest::from_bytes(*chunk.digest.as_bytes());
        let read = read_blob(engine, &digest).expect("readable").expect("it is there");
        let (expected, behind) = rest.split_at(read.len());
        assert_eq!(read.len() as u64, chunk.size_bytes);
        assert!(read == expected, "chunks are pieces of the original bytes");
        let stat = engine.stat(&digest).expect("readable").expect("it is there");
        assert_eq!(stat.size_bytes, chunk.size_bytes);
        rest = behind;
    }
    assert!(chunks.is_empty() || rest.is_empty());
}

#[test]
fn a_rebuild_stores_patches_and_no_contents() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("opens");
    let sizes = [16_000, 60_000, 200_000, 3_000_000];
    for len in sizes {
        put_blob(&engine, &rebuilt(len, 10)).expect("stored");
    }
    let before = stats(&engine);
    assert!(before.patched_chunk_count > 20);
    for len in sizes {
        let contents = rebuilt(len, 11);
        assert_ne!(contents, rebuilt(len, 10));
        put_blob(&engine, &contents).expect("stored");
    }
    let after = stats(&engine);
    assert_eq!(after.chunk_count, before.chunk_count);
    assert_eq!(after.chunk_bytes, before.chunk_bytes);
    assert!(after.patched_chunk_count > before.patched_chunk_count);
    let added = after.stored_bytes - before.stored_bytes;
    assert!(added < 40_000, "{added} bytes for 750 references to 40 paths");
    for len in sizes {
        check(&engine, &rebuilt(len, 10));
        check(&engine, &rebuilt(len, 11));
    }
}

#[test]
fn references_come_back_without_the_index() {
    let dir = TempDir::new().expect("a temporary directory");
    let contents = [rebuilt(50_000, 1), rebuilt(50_000, 2), rebuilt(2_000_000, 3)];
    let engine = open(dir.path()).expect("opens");
    for contents in &contents {
        put_blob(&engine, contents).expect("stored");
    }
    let before = stats(&engine);
    engine.close().expect("closed");
    drop(engine);
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let engine = open(dir.path()).expect("opens");
    assert_eq!(stats(&engine), before);
    for contents in &contents {
        check(&engine, contents);
    }
    // And nothing is stored again.
    for contents in &contents {
        put_blob(&engine, contents).expect("stored");
    }
    assert_eq!(stats(&engine), before);
}

#[test]
fn the_same_in_pieces_and_as_a_whole_is_stored_once() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("opens");
    let contents = rebuilt(4_000_000, 5);
    put_blob(&engine, &contents).expect("stored");
    let before = stats(&engine);
    // Another blob, so that it is cut again, of the same chunks.
    let mut longer = contents.clone();
    longer.extend_from_slice(b"one more");
    for piece_bytes in [999, 70_000, 3_000_000] {
        let mut batch = engine.batch().expect("open");
        for piece in longer.chunks(piece_bytes) {
            batch.write(piece).expect("written");
        }
        assert_eq!(batch.finish_blob().expect("finished"), BlobDigest::of(&longer));
        batch.commit().expect("committed");
        check(&engine, &longer);
    }
    let after = stats(&engine);
    assert!(after.chunk_count <= before.chunk_count + 1, "only the last chunk is another");
    assert!(after.patched_chunk_count <= before.patched_chunk_count + 1);
}

/// What replaces a hash may also be in contents.
#[test]
fn contents_that_look_normalised_are_kept_apart() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("opens");
    let placeholder = format!("/nix/store/{}-x", "e".repeat(32)).into_bytes();
    let hash = "0123456789abcdfghijklmnpqrsvwxyz";
    let reference = format!("/nix/store/{hash}-x").into_bytes();
    for contents in [&placeholder, &reference] {
        put_blob(&engine, contents).expect("stored");
    }
    for contents in [&placeholder, &reference] {
        check(&engine, contents);
    }
    let stats = stats(&engine);
    // A chunk, a base of the same bytes, and a patch.
    assert_eq!((stats.chunk_count, stats.patched_chunk_count), (2, 1));
}

/// A chunk that ends in the middle of a hash is patched there, and what it is patched to may be
/// what is left of another without its hashes.
#[test]
fn bases_are_apart_from_chunks_of_the_same_bytes() {
    let hash = "0123456789abcdfghijklmnpqrsvwxyz";
    // The longest chunk ends behind 31 characters of the hash.
    let mut cut_in_hash = vec![0; (256 << 10) - 11 - 31];
    cut_in_hash.extend(format!("/nix/store/{hash}-").bytes());
    let placeholders = format!(" /nix/store/{}-end", "e".repeat(32));
    cut_in_hash.extend(placeholders.bytes());
    let looks_like_its_end = format!("z- /nix/store/{hash}-end").into_bytes();
    for order in [[0, 1], [1, 0]] {
        let dir = TempDir::new().expect("a temporary directory");
        let engine = open(dir.path()).expect("opens");
        let contents = [&cut_in_hash, &looks_like_its_end];
        for position in order {
            put_blob(&engine, contents[position]).expect("stored");
        }
        for contents in contents {
            check(&engine, contents);
        }
    }
}

/// As many hashes as the largest chunk has room for, all of them different.
#[test]
fn the_largest_chunks_may_be_full_of_hashes() {
    let dir = TempDir::new().expect("a temporary directory");
    let options = OpenOptions { average_chunk_bytes: 512 << 10, ..OpenOptions::default() };
    let engine = Engine::open(dir.path(), &options).expect("opens");
    let mut random = Random::new(12);
    let mut contents = Vec::new();
    for _ in 0..60_000 {
        contents.extend_from_slice(b"/nix/store/");
        contents.extend(random.hash());
        contents.push(b'-');
    }
    put_blob(&engine, &contents).expect("stored");
    check(&engine, &contents);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_input_comes_back(
        len in 0..400_000_usize,
        hashes in 1..9_usize,
        every in 1..5_000_usize,
        seeds in (any::<u64>(), any::<u64>()),
        at in any::<u64>(),
    ) {
        let dir = TempDir::new().expect("a temporary directory");
        let engine = open(dir.path()).expect("opens");
        let contents = [seeds.0, seeds.1]
            .map(|seed| Random::new(7).with_references(len, hashes, every, seed));
        for contents in &contents {
            put_blob(&engine, contents).expect("stored");
        }
        for contents in &contents {
            check(&engine, contents);
            let digest = BlobDigest::of(contents);
            let mut reader = BlobService::open(&engine, &digest).expect("opens").expect("there");
            let at = at % (len as u64 + 1);
            let start = usize::try_from(at).expect("small");
            let piece: Bytes = reader.read_at(at, 1_000).expect("readable");
            prop_assert!(contents[start..].starts_with(&piece));
            prop_assert_eq!(piece.is_empty(), start == len);
        }
    }
}

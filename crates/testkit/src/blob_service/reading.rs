//! Checks of stat, chunks and reads.

use granary_castore::{BlobDigest, ChunkDigest};

use super::{Store, open, put, read};
use crate::Random;

/// Several chunks for any store that divides blobs at all.
const LARGE: usize = 3 << 20;

fn large() -> Vec<u8> {
    let mut random = Random::new(11);
    let mut contents = random.incompressible(LARGE / 3);
    contents.extend(random.compressible(LARGE / 3));
    contents.resize(LARGE + 17, 0);
    contents
}

pub(super) fn absent_is_none(store: &Store) {
    for digest in [BlobDigest::of(b"absent"), BlobDigest::from_bytes([0; 32])] {
        assert!(store.stat(&digest).expect("the store answers").is_none(), "stat of {digest}");
        assert!(store.open(&digest).expect("the store answers").is_none(), "open of {digest}");
        let chunks = store.chunks(&digest, 100).expect("the store answers");
        assert!(chunks.is_none(), "chunks of {digest}");
    }
}

pub(super) fn random_parts(store: &Store) {
    let contents = large();
    let digest = put(store, &contents);
    let mut random = Random::new(12);
    let mut reader = open(store, &digest);
    assert_eq!(reader.size_bytes(), contents.len() as u64);
    for _ in 0..200 {
        let offset = random.below(contents.len());
        let largest = if random.one_in(4) { 1 << 20 } else { 5000 };
        let most = 1 + random.below(largest);
        let bytes = reader.read_at(offset as u64, most).expect("a blob can be read");
        assert!(
            !bytes.is_empty() && bytes.len() <= most,
            "{} bytes at {offset} for at most {most}",
            bytes.len()
        );
        assert!(
            contents[offset..].starts_with(&bytes),
            "{} bytes at {offset} are others",
            bytes.len()
        );
    }
}

pub(super) fn behind_the_end(store: &Store) {
    for contents in [&b""[..], b"short", &large()] {
        let digest = put(store, contents);
        let mut reader = open(store, &digest);
        let size = contents.len() as u64;
        for offset in [size, size + 1, size + (1 << 20), u64::MAX - 1, u64::MAX] {
            let bytes = reader.read_at(offset, 1000).expect("a read behind the end is no error");
            assert!(bytes.is_empty(), "{} bytes at {offset} of {size}", bytes.len());
        }
        // And then it can still be read before it.
        if let Some(last) = contents.last() {
            let bytes = reader.read_at(size - 1, 1000).expect("a blob can be read");
            assert_eq!(&*bytes, [*last]);
        }
    }
}

pub(super) fn readers_are_independent(store: &Store) {
    let contents = large();
    let digest = put(store, &contents);
    let (mut forward, mut backward) = (open(store, &digest), open(store, &digest));
    for step in 0..8 {
        let (low, high) = (step * 100_000, contents.len() - 1 - step * 100_000);
        let bytes = forward.read_at(low as u64, 64).expect("a blob can be read");
        assert!(!bytes.is_empty() && contents[low..].starts_with(&bytes), "at {low}");
        let bytes = backward.read_at(high as u64, 64).expect("a blob can be read");
        assert!(!bytes.is_empty() && contents[high..].starts_with(&bytes), "at {high}");
    }
}

pub(super) fn chunks_are_the_blob(store: &Store) {
    for contents in [&b""[..], b"x", &large()] {
        let digest = put(store, contents);
        let chunks = store.chunks(&digest, usize::MAX).expect("the store answers");
        let chunks = chunks.expect("the blob is stored");
        if chunks.is_empty() {
            continue;
        }
        let mut whole = Vec::new();
        for chunk in &chunks {
            let bytes = read(store, &chunk.digest.into(), 1 << 20);
            assert_eq!(bytes.len() as u64, chunk.size_bytes, "size of chunk {}", chunk.digest);
            assert_eq!(ChunkDigest::of(&bytes), chunk.digest, "digest of a chunk");
            let stat = store.stat(&chunk.digest.into()).expect("the store answers");
            let stat = stat.expect("a chunk has a stat");
            assert_eq!(stat.size_bytes, chunk.size_bytes, "stat of chunk {}", chunk.digest);
            whole.extend(bytes);
        }
        assert!(whole == contents, "the chunks of {digest} make other contents");
    }
}

pub(super) fn extents_are_the_blob(store: &Store) {
    for contents in [&b""[..], b"x", &large()] {
        let digest = put(store, contents);
        let mut reader = open(store, &digest);
        let size = contents.len() as u64;
        for offset in [size, u64::MAX] {
            let extent = reader
                .extent_at(offset, &mut std::iter::empty())
                .expect("a search behind the end is no error");
            assert!(extent.is_none(), "there is an extent at {offset} of {size}");
        }
        let (mut end, mut found) = (0, Vec::new());
        while end < size {
            let extent =
                reader.extent_at(end, &mut std::iter::empty()).expect("a blob can be read");
            let extent = extent.expect("there is one up to the end");
            assert!(extent.start <= end, "the extent at {end} begins at {}", extent.start);
            end = extent.start + extent.extent.size_bytes();
            found.push(extent);
        }
        assert_eq!(end, size, "the extents of {digest} end elsewhere");
        drop(reader);
        // In any order, and when the blob is closed.
        for found in found.iter().rev() {
            let start = usize::try_from(found.start).expect("it is in memory");
            let bytes = found.extent.read().expect("an extent can be read");
            assert_eq!(bytes.len() as u64, found.extent.size_bytes(), "the extent at {start}");
            assert!(contents[start..].starts_with(&bytes), "the extent at {start} is another");
            if let Some(now) = found.extent.read_now() {
                assert!(now == bytes, "the extent at {start} is another at once");
            }
            if let Some(frame) = found.extent.read_zstd().expect("an extent can be read") {
                let declared = zstd::zstd_safe::get_frame_content_size(&frame).ok().flatten();
                assert_eq!(declared, Some(bytes.len() as u64), "the frame of that at {start}");
                let frames = zstd::zstd_safe::find_frame_compressed_size(&frame);
                assert_eq!(frames, Ok(frame.len()), "not one frame at {start}");
                let raw = zstd::bulk::decompress(&frame, bytes.len()).expect("it is a frame");
                assert!(raw == bytes, "the frame at {start} is another");
            }
            if let Some(now) = found.extent.read_zstd_now() {
                let frame = found.extent.read_zstd().expect("an extent can be read");
                assert!(frame == Some(now), "the frame at {start} is another at once");
            }
        }
    }
}

pub(super) fn few_chunks_or_none(store: &Store) {
    let digest = put(store, &large());
    for most in [0, 1, 2, 10, 1000] {
        let chunks = store.chunks(&digest, most).expect("the store answers");
        let count = chunks.expect("the blob is stored").len();
        assert!(count <= most, "{count} chunks for at most {most}");
    }
}

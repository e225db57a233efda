//! Consecutive chunks of a blob, with references taken out.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    chunker::Chunker,
    format::{Patch, Patches},
    normalise::{FoundHash, HASH_CHARS, find_hashes, take_out},
};

/// Some consecutive chunks of a blob, normalised.
#[derive(Debug)]
pub(super) struct Cut {
    /// The normalised bytes of all chunks.
    pub(super) bytes: Bytes,
    /// Where each chunk ends in them.
    ends: Vec<usize>,
    /// The hashes that lie in the chunks, whole or in part, in order.
    hashes: Vec<PlacedHash>,
}

/// A hash that was taken out. It may reach over either end of the bytes that it is counted
/// in: chunks are cut without regard for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlacedHash {
    pub(super) offset: isize,
    pub(super) chars: [u8; HASH_CHARS],
}

impl PlacedHash {
    pub(super) fn end(&self) -> isize {
        self.offset.saturating_add_unsigned(HASH_CHARS)
    }
}

impl From<FoundHash> for PlacedHash {
    fn from(FoundHash { offset, chars }: FoundHash) -> Self {
        let offset = isize::try_from(offset).expect("no allocation is longer");
        Self { offset, chars }
    }
}

impl Cut {
    /// All chunks of a blob that is in memory as a whole. It is copied only if there are
    /// references in it.
    pub(super) fn whole(contents: Bytes, chunker: Chunker) -> Self {
        let hashes: Vec<_> = find_hashes(&contents).collect();
        let bytes = if hashes.is_empty() {
            contents
        } else {
            let mut bytes = contents.to_vec();
            for hash in &hashes {
                take_out(&mut bytes, hash);
            }
            bytes.into()
        };
        let mut ends = Vec::new();
        let mut end = 0;
        while end < bytes.len() || ends.is_empty() {
            end += chunker.first_chunk_len(&bytes[end..]);
            ends.push(end);
        }
        Self { bytes, ends, hashes: hashes.into_iter().map(PlacedHash::from).collect() }
    }

    pub(super) fn new(bytes: Bytes, ends: Vec<usize>, hashes: Vec<PlacedHash>) -> Self {
        debug_assert_eq!(ends.last().copied().unwrap_or_default(), bytes.len());
        Self { bytes, ends, hashes }
    }

    pub(super) fn chunk_count(&self) -> usize {
        self.ends.len()
    }

    /// The chunks in order.
    pub(super) fn chunks(&self) -> impl Iterator<Item = CutChunk<'_>> {
        let mut start = 0;
        let mut first_hash = 0;
        self.ends.iter().map(move |&end| {
            let range = (start, end);
            start = end;
            let (from, to) = (range.0.cast_signed(), range.1.cast_signed());
            while self.hashes.get(first_hash).is_some_and(|hash| hash.end() <= from) {
                first_hash += 1;
            }
            let hashes = &self.hashes[first_hash..];
            let count = hashes.iter().take_while(|hash| hash.offset < to).count();
            CutChunk {
                start: range.0,
                bytes: &self.bytes[range.0..range.1],
                hashes: &hashes[..count],
            }
        })
    }
}

/// A chunk of a cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct CutChunk<'a> {
    /// Where it begins in the bytes of the cut.
    pub(super) start: usize,
    /// Its normalised bytes.
    pub(super) bytes: &'a [u8],
    /// The hashes that lie in it, whole or in part.
    hashes: &'a [PlacedHash],
}

impl CutChunk<'_> {
    /// Where it ends in the bytes of the cut.
    pub(super) fn end(&self) -> usize {
        self.start + self.bytes.len()
    }

    /// Whether its bytes are not those that came.
    pub(super) fn is_normalised(&self) -> bool {
        !self.hashes.is_empty()
    }

    /// Digest of the bytes that came.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut done = 0;
        for (hash, patch) in self.patches() {
            let offset = patch.offset as usize;
            hasher.update(&self.bytes[done..offset]);
            let part = usize::from(patch.start)..usize::from(patch.start) + usize::from(patch.len);
            done = offset + part.len();
            hasher.update(&hash.chars[part]);
        }
        hasher.update(&self.bytes[done..]);
        *hasher.finalize().as_bytes()
    }

    /// What makes the bytes that came of the normalised ones, whose digest is `base`.
    pub(super) fn make_patches(&self, base: [u8; 32]) -> Patches {
        let mut hashes: Vec<[u8; HASH_CHARS]> = Vec::new();
        let mut numbers = HashMap::new();
        let places = self.patches().map(|(placed, patch)| {
            let hash = *numbers.entry(placed.chars).or_insert_with(|| {
                hashes.push(placed.chars);
                hashes.len() - 1
            });
            let hash = u16::try_from(hash).expect("a chunk has no room for so many hashes");
            Patch { hash, ..patch }
        });
        let places = places.collect();
        Patches { base, hashes, places }
    }

    /// The part of each hash that lies in the chunk, as a patch whose hash is not numbered.
    fn patches(&self) -> impl Iterator<Item = (&PlacedHash, Patch)> {
        self.hashes.iter().map(|hash| {
            let (start, end) = (self.start.cast_signed(), self.end().cast_signed());
            let (from, to) = (hash.offset.max(start), hash.end().min(end));
            let small = |value: isize| u8::try_from(value).expect("a hash has 32 characters");
            let offset = u32::try_from(from - start).expect("a chunk is far smaller than 4 GiB");
            let patch =
                Patch { offset, hash: 0, start: small(from - hash.offset), len: small(to - from) };
            (hash, patch)
        })
    }
}

//! A blob that arrives in pieces.

use bytes::Bytes;
use granary_castore::BlobDigest;

use super::cut::{Cut, PlacedHash};
use crate::{
    chunker::Chunker,
    normalise::{UNCERTAIN_BYTES, find_hashes, take_out},
};

/// Hashes a blob, takes references out of it and cuts it into chunks as it arrives.
#[derive(Debug)]
pub(super) struct OpenBlob {
    chunker: Chunker,
    /// Bytes that may wait to be cut.
    capacity: usize,
    hasher: blake3::Hasher,
    /// Normalised up to `searched`.
    buffer: Vec<u8>,
    /// No reference begins before this that was not taken out.
    searched: usize,
    /// Those that lie in the buffer, whole or in part.
    hashes: Vec<PlacedHash>,
}

impl OpenBlob {
    /// One that is cut about every `cut_bytes`, or every chunk if that is more.
    pub(super) fn new(chunker: Chunker, cut_bytes: usize) -> Self {
        let max_chunk = chunker.max_bytes();
        Self {
            chunker,
            capacity: cut_bytes.max(max_chunk) + max_chunk + UNCERTAIN_BYTES,
            hasher: blake3::Hasher::new(),
            buffer: Vec::new(),
            searched: 0,
            hashes: Vec::new(),
        }
    }

    /// Takes as much of `data` as there is room for, and says how much that was. Some is
    /// always taken after [`certain_chunks`](Self::certain_chunks).
    pub(super) fn fill(&mut self, data: &[u8]) -> usize {
        let taken = data.len().min(self.capacity - self.buffer.len());
        self.buffer.extend_from_slice(&data[..taken]);
        self.hasher.update(&data[..taken]);
        taken
    }

    /// The chunks that are certain by now: each has all the bytes behind it that could move
    /// its end or change what it has of a reference.
    pub(super) fn certain_chunks(&mut self) -> Cut {
        // Every reference that begins before this lies in the buffer as a whole.
        let certain = self.buffer.len().saturating_sub(UNCERTAIN_BYTES);
        self.take_references_out();
        self.searched = certain;
        let cut = self.cut(certain, self.chunker.max_bytes());
        self.buffer.reserve(self.capacity - self.buffer.len());
        cut
    }

    /// The digest of the blob, and its last chunks.
    pub(super) fn finish(mut self) -> (BlobDigest, Cut) {
        self.take_references_out();
        self.searched = self.buffer.len();
        let cut = self.cut(self.buffer.len(), 1);
        (BlobDigest::from(self.hasher.finalize()), cut)
    }

    fn take_references_out(&mut self) {
        let from = self.searched;
        let found: Vec<_> = find_hashes(&self.buffer[from..]).collect();
        for mut hash in found {
            hash.offset += from;
            take_out(&mut self.buffer, &hash);
            self.hashes.push(hash.into());
        }
    }

    /// Cuts off chunks while there are `at_least` bytes before `end`.
    fn cut(&mut self, end: usize, at_least: usize) -> Cut {
        let mut start = 0;
        let mut ends = Vec::new();
        while end - start >= at_least {
            start += self.chunker.first_chunk_len(&self.buffer[start..end]);
            ends.push(start);
        }
        let rest = self.buffer.split_off(start);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        self.searched -= start;
        let cut_at = start.cast_signed();
        let hashes = self.hashes.clone();
        self.hashes.retain(|hash| hash.end() > cut_at);
        for hash in &mut self.hashes {
            hash.offset -= cut_at;
        }
        Cut::new(Bytes::from(bytes), ends, hashes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{chunker::Chunker, write::cut::CutChunk};

    /// Small, so that many edges fall into references.
    fn chunker() -> Chunker {
        Chunker::new(4 << 10).expect("it is valid")
    }

    /// A chunk as it is stored: normalised bytes and what makes the original of them.
    fn stored(chunk: &CutChunk<'_>) -> (Vec<u8>, [u8; 32], Vec<u8>) {
        let mut original = chunk.bytes.to_vec();
        chunk.make_patches([0; 32]).apply(&mut original).expect("they fit");
        assert_eq!(chunk.is_normalised(), original != chunk.bytes);
        assert_eq!(chunk.digest(), *blake3::hash(&original).as_bytes());
        (chunk.bytes.to_vec(), chunk.digest(), original)
    }

    /// Text that is full of references, near references and pieces of them.
    fn contents() -> impl Strategy<Value = Vec<u8>> {
        let hash = "[0-9a-df-np-sv-z]{32}";
        let part = prop_oneof![
            4 => hash.prop_map(|hash| format!("/nix/store/{hash}-name").into_bytes()),
            1 => hash.prop_map(|hash| format!("/nix/store/{hash}").into_bytes()),
            1 => "(/nix/store|/nix/store/nix/store/|-|e{32}-|/nix/store/e{32}-)"
                .prop_map(String::into_bytes),
            2 => vec(any::<u8>(), 0..200),
        ];
        // Repeated, because what proptest makes is short, and shifted against itself.
        (vec(part, 1..40), 1..40_usize).prop_map(|(parts, times)| {
            let whole = parts.concat();
            (0..times)
                .flat_map(|time| whole[..whole.len() - time.min(whole.len())].to_vec())
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_byte_comes_back_and_pieces_change_nothing(
            contents in contents(),
            piece_bytes in 1..30_000_usize,
        ) {
            let whole = Cut::whole(contents.clone().into(), chunker());
            let expected: Vec<_> = whole.chunks().map(|chunk| stored(&chunk)).collect();
            let originals: Vec<u8> =
                expected.iter().flat_map(|(_, _, original)| original.clone()).collect();
            prop_assert!(originals == contents);

            let mut blob = OpenBlob::new(chunker(), 1);
            let mut found = Vec::new();
            for mut piece in contents.chunks(piece_bytes) {
                while !piece.is_empty() {
                    let taken = blob.fill(piece);
                    piece = &piece[taken..];
                    if !piece.is_empty() {
                        found.extend(blob.certain_chunks().chunks().map(|chunk| stored(&chunk)));
                    }
                }
            }
            let (digest, last) = blob.finish();
            found.extend(last.chunks().map(|chunk| stored(&chunk)));
            prop_assert_eq!(digest, BlobDigest::of(&contents));
            // Of nothing, the whole is one empty chunk, and a stream has none.
            if !contents.is_empty() {
                prop_assert!(found == expected);
            }
        }

        #[test]
        fn chunks_do_not_depend_on_hashes(contents in contents(), seed in any::<u8>()) {
            // Another hash in the place of each, as after a mass rebuild.
            let mut other = contents.clone();
            for hash in find_hashes(&contents) {
                for (place, byte) in other[hash.offset..hash.offset + 32].iter_mut().enumerate() {
                    let seed = seed.wrapping_add(place.to_le_bytes()[0]);
                    *byte = b"0123456789abcdfghijklmnpqrsvwxyz"[usize::from(seed % 32)];
                }
            }
            let (one, two) = (Cut::whole(contents.into(), chunker()), Cut::whole(other.into(), chunker()));
            prop_assert!(one.bytes == two.bytes);
        }
    }
}

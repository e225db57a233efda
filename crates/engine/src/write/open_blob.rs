//! A blob that arrives in pieces.

use bytes::Bytes;
use granary_castore::BlobDigest;

use crate::chunker::{MAX_CHUNK_BYTES, first_chunk_len};

/// Bytes that may wait to be cut.
const BUFFER_BYTES: usize = 1 << 20;

/// Hashes a blob and cuts it into chunks as it arrives.
#[derive(Debug, Default)]
pub(super) struct OpenBlob {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl OpenBlob {
    /// Takes as much of `data` as there is room for, and says how much that was. Some is
    /// always taken after [`certain_chunks`](Self::certain_chunks).
    pub(super) fn fill(&mut self, data: &[u8]) -> usize {
        let taken = data.len().min(BUFFER_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&data[..taken]);
        self.hasher.update(&data[..taken]);
        taken
    }

    /// The chunks that are certain by now: each has all the bytes behind it that could move
    /// its end.
    pub(super) fn certain_chunks(&mut self) -> Vec<Bytes> {
        self.chunks(MAX_CHUNK_BYTES)
    }

    /// The digest of the blob, and the last chunks.
    pub(super) fn finish(mut self) -> (BlobDigest, Vec<Bytes>) {
        let chunks = self.chunks(1);
        (BlobDigest::from(self.hasher.finalize()), chunks)
    }

    fn chunks(&mut self, at_least: usize) -> Vec<Bytes> {
        if self.buffer.len() < at_least {
            return Vec::new();
        }
        let mut start = 0;
        let mut ends = Vec::new();
        while self.buffer.len() - start >= at_least {
            start += first_chunk_len(&self.buffer[start..]);
            ends.push(start);
        }
        let rest = self.buffer.split_off(start);
        let mut whole = Bytes::from(std::mem::replace(&mut self.buffer, rest));
        let mut begun = 0;
        ends.into_iter()
            .map(|end| {
                let chunk = whole.split_to(end - begun);
                begun = end;
                chunk
            })
            .collect()
    }
}

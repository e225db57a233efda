//! Extents: what is read of a blob at once.

use std::sync::Arc;

use bytes::Bytes;
use granary_castore::{BlobDigest, BlobExtent, Error, Result};

use crate::{
    engine::Inner,
    index::{Located, Location},
};

/// Consecutive chunks of a blob that lie in one frame one behind the other, unpatched.
pub(crate) struct FrameExtent {
    engine: Arc<Inner>,
    /// The first of them.
    first: Location,
    size_bytes: u64,
    chunks: Vec<ChunkInFrame>,
}

/// A chunk of a [`FrameExtent`].
#[derive(Debug, Clone, Copy)]
struct ChunkInFrame {
    digest: [u8; 32],
    len: u32,
}

impl FrameExtent {
    pub(crate) fn new(engine: Arc<Inner>, digest: [u8; 32], location: Location) -> Self {
        let chunks = vec![ChunkInFrame { digest, len: location.len }];
        Self { engine, first: location, size_bytes: location.len.into(), chunks }
    }

    pub(crate) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// Adds the chunk behind it, which has `size_bytes`, if it lies behind it in the frame
    /// too; false if it does not.
    pub(crate) fn add(&mut self, digest: [u8; 32], size_bytes: u64, located: Located) -> bool {
        let Located::Frame(location) = located else { return false };
        let Location { pack, frame_offset, frame_len, offset, len } = location;
        let is_next = (pack, frame_offset, frame_len)
            == (self.first.pack, self.first.frame_offset, self.first.frame_len)
            && u64::from(offset) == u64::from(self.first.offset) + self.size_bytes
            && u64::from(len) == size_bytes;
        if is_next {
            self.size_bytes += u64::from(len);
            self.chunks.push(ChunkInFrame { digest, len });
        }
        is_next
    }

    /// All of its bytes out of those of its frame, each chunk checked.
    fn checked(&self, frame: &Bytes) -> Result<Bytes> {
        let start = self.first.offset as usize;
        let whole = usize::try_from(self.size_bytes)
            .ok()
            .and_then(|len| start.checked_add(len))
            .filter(|end| *end <= frame.len())
            .map(|end| frame.slice(start..end))
            .ok_or_else(|| {
                let problem = "the frame is shorter than the index says";
                self.engine.packs.damaged(&self.first, problem)
            })?;
        let mut rest = &whole[..];
        for ChunkInFrame { digest, len } in &self.chunks {
            let (chunk, behind) = rest.split_at(*len as usize);
            if blake3::hash(chunk) != *digest {
                return Err(Error::corrupt("its bytes have another digest"));
            }
            rest = behind;
        }
        Ok(whole)
    }

    fn is_whole(&self, frame_len: u64) -> bool {
        self.first.offset == 0 && self.size_bytes == frame_len
    }

    fn describe(&self, error: Error) -> Error {
        let digest = BlobDigest::from_bytes(self.chunks[0].digest);
        let error = error.while_doing(format!("reading chunk {digest} and those behind it"));
        self.engine.note_if_damage(error)
    }
}

impl BlobExtent for FrameExtent {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read(&self) -> Result<Bytes> {
        let packs = &self.engine.packs;
        // Beside what has a frame for itself lies what others want.
        let frame = if self.first.offset == 0 && self.size_bytes >= LARGE_BYTES {
            packs.whole_frame(&self.first)
        } else {
            packs.frame(&self.first)
        };
        frame.and_then(|frame| self.checked(&frame)).map_err(|error| self.describe(error))
    }

    fn read_zstd(&self) -> Result<Option<Bytes>> {
        if self.first.offset != 0 || self.size_bytes < LARGE_BYTES {
            return Ok(None);
        }
        let frame = self.engine.packs.packed_frame(&self.first).map_err(|e| self.describe(e))?;
        if !self.is_whole(frame.raw_len()) {
            return Ok(None);
        }
        // If it does not, empty objects may lie in it too, or another frame lies in its place:
        // whoever reads the bytes will tell.
        let holds_these = frame.holds(self.chunks.iter().map(|chunk| &chunk.digest));
        Ok(if holds_these { frame.zstd() } else { None })
    }
}

/// An extent of at least this length that begins a frame most likely fills it. What is
/// smaller shares frames, and to send it as it is stored would not pay.
const LARGE_BYTES: u64 = 64 << 10;

/// A chunk that is kept as another one with some bytes replaced.
pub(crate) struct PatchedExtent {
    pub(crate) engine: Arc<Inner>,
    pub(crate) digest: [u8; 32],
    pub(crate) size_bytes: u64,
}

impl BlobExtent for PatchedExtent {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read(&self) -> Result<Bytes> {
        self.engine.chunk(&self.digest)
    }
}

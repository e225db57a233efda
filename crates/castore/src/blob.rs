//! Blobs as a service sees them.

use bytes::Bytes;

use crate::{
    digest::{BlobDigest, ChunkDigest},
    error::Result,
};

/// What is known of a stored blob without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobStat {
    /// Length in bytes.
    pub size_bytes: u64,
}

/// One piece of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkMeta {
    /// Digest of the piece's bytes. [`BlobService::open`] opens it like a blob.
    pub digest: ChunkDigest,
    /// Length in bytes.
    pub size_bytes: u64,
}

/// Reads blobs, and chunks, by digest.
pub trait BlobService: Send + Sync {
    /// What is known of the blob or chunk `digest`; `None` if it is not stored.
    ///
    /// # Errors
    ///
    /// If the store cannot tell.
    fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>>;

    /// The pieces of a blob, in order, each readable by itself; `None` if the blob is not
    /// stored. The list is empty if the blob is not divided, or in more than `max_chunks`
    /// pieces, or `digest` is itself a chunk.
    ///
    /// # Errors
    ///
    /// If the store cannot tell.
    fn chunks(&self, digest: &BlobDigest, max_chunks: usize) -> Result<Option<Vec<ChunkMeta>>>;

    /// Opens the blob or chunk `digest` for reading; `None` if it is not stored.
    ///
    /// # Errors
    ///
    /// If the store cannot tell.
    fn open(&self, digest: &BlobDigest) -> Result<Option<Box<dyn BlobReader>>>;

    /// Changes whenever extents that were found before may be found elsewhere now. They can be
    /// read still, if their blobs are stored, but not for what reading costs at best.
    fn layout_generation(&self) -> u64 {
        0
    }
}

/// An open blob. Reads are positioned: any part can be read, in any order, and reading in
/// order is cheapest.
pub trait BlobReader: Send {
    /// Length of the whole blob in bytes.
    fn size_bytes(&self) -> u64;

    /// Bytes from `offset` on: at least one and at most `max_bytes` (at least 1), as many
    /// as are cheap to get at once; none at or behind the end. They are verified: they
    /// belong to a piece whose digest was checked.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) if what is stored is damaged.
    fn read_at(&mut self, offset: u64, max_bytes: usize) -> Result<Bytes>;

    /// The extent that holds the byte at `offset`; `None` at or behind the end.
    ///
    /// `behind` are the blobs that will be read behind this one, as in an archive. An extent that
    /// reaches to the end of this blob may go on with them, and what lies between, if that is
    /// kept together: it takes from `behind` what it holds, in whole or in part, and perhaps
    /// one more.
    ///
    /// A store that keeps no extents reads here and now, and gives what it read.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) if what is stored is damaged.
    fn extent_at(
        &mut self,
        offset: u64,
        _behind: &mut dyn Iterator<Item = NextBlob>,
    ) -> Result<Option<ExtentAt>> {
        let bytes = self.read_at(offset, MAX_READ_EXTENT_BYTES)?;
        Ok((!bytes.is_empty()).then(|| ExtentAt { start: offset, extent: Box::new(bytes) }))
    }
}

/// A blob that is read behind another.
#[derive(Debug, Clone)]
pub struct NextBlob {
    /// What is read between the two.
    pub literals: Bytes,
    /// Which blob it is.
    pub digest: BlobDigest,
    /// Its length in bytes, as far as the reader knows; not 0.
    pub size_bytes: u64,
}

/// Most bytes of an extent that was read when it was asked for.
const MAX_READ_EXTENT_BYTES: usize = 1 << 20;

/// An extent, and its place in its blob.
pub struct ExtentAt {
    /// Where it begins in the blob.
    pub start: u64,
    /// The extent.
    pub extent: Box<dyn BlobExtent>,
}

/// Bytes of a blob, and perhaps of those behind it, that a store keeps together, so that
/// reading all of them costs no more than reading one: at least one byte and at most a few
/// MiB. It stands for itself: it may be read on another thread, and later, than its blob.
pub trait BlobExtent: Send + Sync {
    /// Its length in bytes.
    fn size_bytes(&self) -> u64;

    /// How much memory it takes for as long as it is kept, about.
    fn memory_bytes(&self) -> usize;

    /// All of its bytes, verified.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) if what is stored is damaged.
    fn read(&self) -> Result<Bytes>;

    /// The same bytes as one zstd frame that declares its content size, if the store keeps
    /// them so. They are verified as what was stored, without being decompressed.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) if what is stored is damaged.
    fn read_zstd(&self) -> Result<Option<Bytes>> {
        Ok(None)
    }

    /// The bytes that [`read`](Self::read) gives, verified no less, if they can be had without
    /// waiting for a disk or another store: for who must not block. It may take as much work. `None`
    /// says nothing of why not; whether they are damaged, the other one tells.
    fn read_now(&self) -> Option<Bytes> {
        None
    }

    /// The frame that [`read_zstd`](Self::read_zstd) gives, verified no less, if it can be had
    /// without waiting for a disk or another store: for who must not block. `None` says nothing of
    /// why not; whether there is such a frame, and whether it is damaged, the other one tells.
    fn read_zstd_now(&self) -> Option<Bytes> {
        None
    }
}

/// Bytes that were read already.
impl BlobExtent for Bytes {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn memory_bytes(&self) -> usize {
        self.len()
    }

    fn read(&self) -> Result<Bytes> {
        Ok(self.clone())
    }

    fn read_now(&self) -> Option<Bytes> {
        Some(self.clone())
    }
}

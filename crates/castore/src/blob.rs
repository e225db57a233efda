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
}

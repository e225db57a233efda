//! A store in memory whose blobs have chunks.

use std::num::NonZeroUsize;

use bytes::Bytes;
use granary_castore::{
    BlobDigest, BlobReader, BlobService, BlobStat, Castore, ChunkDigest, ChunkMeta, Directory,
    DirectoryDigest, DirectoryService, MemoryStore, Result, WriteBatch,
};

/// Divides every blob into chunks of the same length.
pub(super) struct Divided {
    store: MemoryStore,
    chunk_bytes: NonZeroUsize,
}

impl Divided {
    pub(super) fn into(chunk_bytes: usize) -> Self {
        let chunk_bytes = NonZeroUsize::new(chunk_bytes).expect("chunks are not empty");
        Self { store: MemoryStore::default(), chunk_bytes }
    }

    /// Stores a blob and its chunks.
    pub(super) fn put(&self, contents: &[u8]) -> Bytes {
        let mut batch = self.store.batch().expect("memory");
        for chunk in contents.chunks(self.chunk_bytes.get()) {
            batch.put_blob(Bytes::copy_from_slice(chunk)).expect("memory");
        }
        let digest = batch.put_blob(Bytes::copy_from_slice(contents)).expect("memory");
        batch.commit().expect("memory");
        Bytes::copy_from_slice(digest.as_bytes())
    }
}

impl BlobService for Divided {
    fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>> {
        self.store.stat(digest)
    }

    fn chunks(&self, digest: &BlobDigest, max_chunks: usize) -> Result<Option<Vec<ChunkMeta>>> {
        let Some(mut reader) = self.store.open(digest)? else { return Ok(None) };
        let contents = reader.read_at(0, usize::MAX)?;
        let chunks = contents.chunks(self.chunk_bytes.get());
        if chunks.len() > max_chunks {
            return Ok(Some(Vec::new()));
        }
        let chunks = chunks.map(|chunk| ChunkMeta {
            digest: ChunkDigest::of(chunk),
            size_bytes: chunk.len() as u64,
        });
        Ok(Some(chunks.collect()))
    }

    fn open(&self, digest: &BlobDigest) -> Result<Option<Box<dyn BlobReader>>> {
        self.store.open(digest)
    }
}

impl DirectoryService for Divided {
    fn directory(&self, digest: &DirectoryDigest) -> Result<Option<Directory>> {
        self.store.directory(digest)
    }
}

impl Castore for Divided {
    fn batch(&self) -> Result<Box<dyn WriteBatch>> {
        self.store.batch()
    }
}

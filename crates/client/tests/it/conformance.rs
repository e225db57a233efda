//! The suites, through a client and a server.

use std::sync::Arc;

use bytes::Bytes;
use granary_castore::{
    BlobDigest, BlobReader, BlobService, BlobStat, Castore, ChunkDigest, ChunkMeta, Directory,
    DirectoryDigest, DirectoryService, MemoryStore, Result, WriteBatch,
};
use granary_store::{NarDigest, PathInfo, PathInfoService};
use granary_testkit::{blob_service, directory_service, path_info_service};

use crate::servers::Server;

/// A client that keeps its server. Everything is the client's.
struct Served {
    client: granary_client::Client,
    _server: Server,
}

impl Served {
    fn over(castore: Arc<dyn Castore>) -> Arc<Self> {
        let server = Server::over(castore);
        Arc::new(Self { client: server.connect(), _server: server })
    }
}

impl BlobService for Served {
    fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>> {
        self.client.stat(digest)
    }

    fn chunks(&self, digest: &BlobDigest, max_chunks: usize) -> Result<Option<Vec<ChunkMeta>>> {
        self.client.chunks(digest, max_chunks)
    }

    fn open(&self, digest: &BlobDigest) -> Result<Option<Box<dyn BlobReader>>> {
        self.client.open(digest)
    }
}

impl DirectoryService for Served {
    fn directory(&self, digest: &DirectoryDigest) -> Result<Option<Directory>> {
        self.client.directory(digest)
    }

    fn closure<'a>(
        &'a self,
        digest: &DirectoryDigest,
    ) -> Box<dyn Iterator<Item = Result<Directory>> + Send + 'a> {
        self.client.closure(digest)
    }
}

impl Castore for Served {
    fn batch(&self) -> Result<Box<dyn WriteBatch>> {
        self.client.batch()
    }
}

impl PathInfoService for Served {
    fn path_info(&self, hash: &granary_nix_formats::StorePathHash) -> Result<Option<PathInfo>> {
        self.client.path_info(hash)
    }

    fn put_path_info(&self, path_info: PathInfo) -> Result<PathInfo> {
        self.client.put_path_info(path_info)
    }

    fn path_infos(&self) -> Box<dyn Iterator<Item = Result<PathInfo>> + Send + '_> {
        self.client.path_infos()
    }

    fn calculate_nar(&self, node: &granary_castore::Node) -> Result<Option<NarDigest>> {
        self.client.calculate_nar(node)
    }
}

/// A store in memory that divides blobs, into pieces of [`PIECE_BYTES`].
#[derive(Clone, Default)]
struct Divided(MemoryStore);

const PIECE_BYTES: usize = 70_001;

impl BlobService for Divided {
    fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>> {
        self.0.stat(digest)
    }

    fn chunks(&self, digest: &BlobDigest, max_chunks: usize) -> Result<Option<Vec<ChunkMeta>>> {
        let Some(mut reader) = self.0.open(digest)? else { return Ok(None) };
        let mut chunks = Vec::new();
        let mut batch = self.0.batch()?;
        let mut offset = 0;
        loop {
            let piece = reader.read_at(offset, PIECE_BYTES)?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            let size_bytes = piece.len() as u64;
            let digest = ChunkDigest::from(batch.put_blob(piece)?);
            chunks.push(ChunkMeta { digest, size_bytes });
        }
        batch.commit()?;
        if chunks.len() > max_chunks {
            chunks.clear();
        }
        Ok(Some(chunks))
    }

    fn open(&self, digest: &BlobDigest) -> Result<Option<Box<dyn BlobReader>>> {
        self.0.open(digest)
    }
}

impl DirectoryService for Divided {
    fn directory(&self, digest: &DirectoryDigest) -> Result<Option<Directory>> {
        self.0.directory(digest)
    }
}

impl Castore for Divided {
    fn batch(&self) -> Result<Box<dyn WriteBatch>> {
        self.0.batch()
    }
}

#[test]
fn blobs_without_chunks() {
    blob_service::run(&|| Served::over(Arc::new(MemoryStore::default())));
}

#[test]
fn blobs_with_chunks() {
    blob_service::run(&|| Served::over(Arc::new(Divided::default())));
}

#[test]
fn chunks_are_used_where_they_are() {
    let served = Served::over(Arc::new(Divided::default()));
    let contents = granary_testkit::Random::new(1).incompressible(2 << 20);
    let mut batch = served.batch().expect("a batch");
    let digest = batch.put_blob(Bytes::from(contents)).expect("taken");
    batch.commit().expect("committed");
    let chunks = served.chunks(&digest, usize::MAX).expect("an answer").expect("it is stored");
    assert_eq!(chunks.len(), (2_usize << 20).div_ceil(PIECE_BYTES));
    let mut reader = served.open(&digest).expect("an answer").expect("it is stored");
    // A read is as long as a chunk is: the reader goes by them.
    assert_eq!(reader.read_at(PIECE_BYTES as u64, usize::MAX).expect("read").len(), PIECE_BYTES);
}

#[test]
fn directories() {
    directory_service::run(&|| Served::over(Arc::new(MemoryStore::default())));
}

#[test]
fn path_infos() {
    path_info_service::run(&|| Served::over(Arc::new(MemoryStore::default())));
}

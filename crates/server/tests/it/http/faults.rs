//! A store that fails while it is read.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use granary_castore::{
    BlobDigest, BlobReader, BlobService, BlobStat, Castore, ChunkMeta, Directory, DirectoryDigest,
    DirectoryService, Error, MemoryStore, Result, WriteBatch,
};
use granary_server::http::HttpOptions;

use super::{Cache, nar_of_tree};

/// Blobs that cannot be read from some offset on, once that is set.
struct Faulty {
    memory: Arc<MemoryStore>,
    fails_from: Arc<AtomicU64>,
    error: Error,
}

struct FaultyReader {
    inner: Box<dyn BlobReader>,
    fails_from: Arc<AtomicU64>,
    error: Error,
}

impl BlobReader for FaultyReader {
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read_at(&mut self, offset: u64, max_bytes: usize) -> Result<Bytes> {
        if offset + max_bytes as u64 > self.fails_from.load(Ordering::SeqCst) {
            return Err(self.error.clone());
        }
        self.inner.read_at(offset, max_bytes)
    }
}

impl BlobService for Faulty {
    fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>> {
        self.memory.stat(digest)
    }

    fn chunks(&self, digest: &BlobDigest, max_chunks: usize) -> Result<Option<Vec<ChunkMeta>>> {
        self.memory.chunks(digest, max_chunks)
    }

    fn open(&self, digest: &BlobDigest) -> Result<Option<Box<dyn BlobReader>>> {
        Ok(self.memory.open(digest)?.map(|inner| {
            let (fails_from, error) = (Arc::clone(&self.fails_from), self.error.clone());
            Box::new(FaultyReader { inner, fails_from, error }) as Box<dyn BlobReader>
        }))
    }
}

impl DirectoryService for Faulty {
    fn directory(&self, digest: &DirectoryDigest) -> Result<Option<Directory>> {
        self.memory.directory(digest)
    }
}

impl Castore for Faulty {
    fn batch(&self) -> Result<Box<dyn WriteBatch>> {
        self.memory.batch()
    }
}

/// A cache with one path, the URL of its NAR, and what makes its blobs fail.
fn faulty(error: Error) -> (Cache, String, Arc<AtomicU64>, usize) {
    let memory = Arc::new(MemoryStore::default());
    let fails_from = Arc::new(AtomicU64::new(u64::MAX));
    let castore =
        Faulty { memory: Arc::clone(&memory), fails_from: Arc::clone(&fails_from), error };
    let cache = Cache::start_over(Arc::new(castore), memory, HttpOptions::default());
    let nar = nar_of_tree(6_000_000, "true");
    let path = cache.add_path("tree", &nar, &[]);
    let url = cache.narinfo(&path).url;
    (cache, url, fails_from, nar.len())
}

#[test]
fn an_error_in_mid_body_breaks_the_connection() {
    let (cache, url, fails_from, len) = faulty(Error::corrupt("a pack is damaged"));
    fails_from.store(4_000_000, Ordering::SeqCst);
    for args in [&[][..], &["--header", "Accept-Encoding: zstd"], &["--http2-prior-knowledge"]] {
        let answer = cache.curl(&url, args);
        assert_eq!(answer.status, 200, "{args:?}");
        assert!(answer.curl_failed, "{args:?}: curl takes the body for whole");
        assert!(answer.body.len() < len, "{args:?}");
    }
}

#[test]
fn an_error_before_the_body_has_a_status() {
    for (error, status, text) in [
        (Error::corrupt("a pack is damaged"), 500, "a pack is damaged"),
        (Error::unavailable("the disk is gone"), 503, "the disk is gone"),
    ] {
        let (cache, url, fails_from, _) = faulty(error);
        fails_from.store(0, Ordering::SeqCst);
        cache.get(&url).assert_refused(status, text);
        cache.curl(&url, &["--header", "Accept-Encoding: zstd"]).assert_refused(status, text);
    }
}

//! A store in memory whose blobs are kept in extents, some of them as frames of zstd.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use granary_castore::{
    BlobDigest, BlobExtent, BlobReader, BlobService, BlobStat, Castore, ChunkMeta, Directory,
    DirectoryDigest, DirectoryService, Error, ExtentAt, MemoryStore, NextBlob, Result, WriteBatch,
};

use crate::Random;

/// Level of zstd for the frames: they are made anew whenever one is read.
const LEVEL: i32 = 1;

/// A [`MemoryStore`] that hands out each blob in extents of seeded lengths, every other of
/// them with a frame. It counts what is asked of it, and fails where it is told to. Clones
/// share everything.
#[derive(Debug, Clone)]
pub struct FramedStore {
    memory: MemoryStore,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max_extent_bytes: usize,
    /// Whether the last extent of a blob goes on with what is read behind it.
    joins: bool,
    /// Extents that end behind this byte of their blob are on a disk, as it were.
    on_disk_from: AtomicU64,
    fails_from: AtomicU64,
    /// How often everything was moved, and how often of those it was told.
    moves: AtomicU64,
    told_moves: AtomicU64,
    error: Mutex<Error>,
    counts: Mutex<HashMap<BlobDigest, Counts>>,
}

/// What was asked of one blob.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    /// How often it was opened.
    pub opened: usize,
    /// How often each of its extents was read, by where they begin. Reading the frame
    /// counts, where there is one.
    pub read: HashMap<u64, usize>,
    /// How many frames were read.
    pub frames: usize,
    /// How many of these were in memory, and whoever read them said that they must be.
    pub frames_now: usize,
    /// How many extents were read, as bytes, by who said that they must be in memory.
    pub now: usize,
}

impl FramedStore {
    /// An empty store, whose extents have at most that many bytes (at least 1).
    ///
    /// # Panics
    ///
    /// If extents are to have no bytes.
    pub fn new(max_extent_bytes: usize) -> Self {
        Self::with(max_extent_bytes, false)
    }

    /// The same, but that the last extent of a blob goes on with the blobs that are read
    /// behind it, the last of them perhaps in part, while it has fewer than
    /// `max_extent_bytes`.
    ///
    /// # Panics
    ///
    /// If extents are to have no bytes.
    pub fn joining(max_extent_bytes: usize) -> Self {
        Self::with(max_extent_bytes, true)
    }

    fn with(max_extent_bytes: usize, joins: bool) -> Self {
        assert!(max_extent_bytes > 0, "an extent has at least one byte");
        let shared = Shared {
            max_extent_bytes,
            joins,
            on_disk_from: AtomicU64::new(0),
            fails_from: AtomicU64::new(u64::MAX),
            moves: AtomicU64::new(0),
            told_moves: AtomicU64::new(0),
            error: Mutex::new(Error::corrupt("an extent is damaged")),
            counts: Mutex::default(),
        };
        Self { memory: MemoryStore::default(), shared: Arc::new(shared) }
    }

    /// The store below, which also keeps records.
    pub fn memory(&self) -> &MemoryStore {
        &self.memory
    }

    /// Lets every extent that ends behind `offset` of its blob fail with `error` when it is
    /// read. It can still be found.
    pub fn fail_from(&self, offset: u64, error: Error) {
        *self.shared.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        self.shared.fails_from.store(offset, Ordering::SeqCst);
    }

    /// Has extents that end at `offset` of their blob, or before, in memory, where
    /// they need not be waited for. At first none are.
    pub fn keep_in_memory(&self, offset: u64) {
        self.shared.on_disk_from.store(offset, Ordering::SeqCst);
    }

    /// Moves everything elsewhere: extents that were found before cannot be read any more. The
    /// generation of the layout changes with it only if that is to be told.
    pub fn move_all(&self, is_told: bool) {
        self.shared.moves.fetch_add(1, Ordering::SeqCst);
        self.shared.told_moves.fetch_add(u64::from(is_told), Ordering::SeqCst);
    }

    /// What was asked of each blob so far.
    pub fn counts(&self) -> HashMap<BlobDigest, Counts> {
        self.shared.counts().clone()
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, HashMap<BlobDigest, Counts>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlobService for FramedStore {
    fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>> {
        self.memory.stat(digest)
    }

    fn chunks(&self, digest: &BlobDigest, max_chunks: usize) -> Result<Option<Vec<ChunkMeta>>> {
        self.memory.chunks(digest, max_chunks)
    }

    fn open(&self, digest: &BlobDigest) -> Result<Option<Box<dyn BlobReader>>> {
        let Some(mut inner) = self.memory.open(digest)? else { return Ok(None) };
        let contents = inner.read_at(0, usize::MAX)?;
        self.shared.counts().entry(*digest).or_default().opened += 1;
        let store = self.clone();
        let reader = FramedReader { digest: *digest, contents, store };
        Ok(Some(Box::new(reader)))
    }

    fn layout_generation(&self) -> u64 {
        self.shared.told_moves.load(Ordering::SeqCst)
    }
}

impl DirectoryService for FramedStore {
    fn directory(&self, digest: &DirectoryDigest) -> Result<Option<Directory>> {
        self.memory.directory(digest)
    }
}

impl Castore for FramedStore {
    fn batch(&self) -> Result<Box<dyn WriteBatch>> {
        self.memory.batch()
    }
}

struct FramedReader {
    digest: BlobDigest,
    contents: Bytes,
    store: FramedStore,
}

impl FramedReader {
    /// The bytes of the extent at `start`, and those that are read behind it.
    fn joined(&self, bytes: &[u8], behind: &mut dyn Iterator<Item = NextBlob>) -> Result<Bytes> {
        let mut joined = bytes.to_vec();
        while joined.len() < self.store.shared.max_extent_bytes
            && let Some(next) = behind.next()
            && let Some(mut reader) = self.store.memory.open(&next.digest)?
        {
            joined.extend_from_slice(&next.literals);
            let room = self.store.shared.max_extent_bytes.saturating_sub(joined.len()).max(1);
            let part = reader.read_at(0, room)?;
            joined.extend_from_slice(&part);
            if part.len() as u64 != next.size_bytes {
                break;
            }
        }
        Ok(joined.into())
    }

    /// The extent that holds the byte at `position`. Which ones a blob has follows from its
    /// digest.
    fn extent(&self, position: usize) -> (usize, Extent) {
        let seed = self.digest.as_bytes().first_chunk().copied().unwrap_or_default();
        let mut random = Random::new(u64::from_le_bytes(seed));
        let (mut start, mut has_frame) = (0, random.one_in(2));
        loop {
            let len = 1 + random.below(self.store.shared.max_extent_bytes);
            let end = self.contents.len().min(start + len);
            if position < end {
                let bytes = self.contents.slice(start..end);
                let (digest, shared) = (self.digest, Arc::clone(&self.store.shared));
                let moves = shared.moves.load(Ordering::SeqCst);
                let extent =
                    Extent { digest, start: start as u64, bytes, has_frame, moves, shared };
                return (start, extent);
            }
            (start, has_frame) = (end, !has_frame);
        }
    }
}

impl BlobReader for FramedReader {
    fn size_bytes(&self) -> u64 {
        self.contents.len() as u64
    }

    fn read_at(&mut self, offset: u64, max_bytes: usize) -> Result<Bytes> {
        let Some(position) = usize::try_from(offset).ok().filter(|at| *at < self.contents.len())
        else {
            return Ok(Bytes::new());
        };
        let (start, extent) = self.extent(position);
        let bytes = extent.read()?.slice(position - start..);
        Ok(bytes.slice(..bytes.len().min(max_bytes)))
    }

    fn extent_at(
        &mut self,
        offset: u64,
        behind: &mut dyn Iterator<Item = NextBlob>,
    ) -> Result<Option<ExtentAt>> {
        let Some(position) = usize::try_from(offset).ok().filter(|at| *at < self.contents.len())
        else {
            return Ok(None);
        };
        let (start, mut extent) = self.extent(position);
        if self.store.shared.joins && start + extent.bytes.len() == self.contents.len() {
            extent.bytes = self.joined(&extent.bytes, behind)?;
        }
        Ok(Some(ExtentAt { start: start as u64, extent: Box::new(extent) }))
    }
}

struct Extent {
    digest: BlobDigest,
    start: u64,
    bytes: Bytes,
    has_frame: bool,
    /// How often everything had been moved when it was found.
    moves: u64,
    shared: Arc<Shared>,
}

impl Extent {
    fn is_in_memory(&self) -> bool {
        self.start + self.size_bytes() <= self.shared.on_disk_from.load(Ordering::SeqCst)
    }

    fn count(&self, is_frame: bool) -> Result<()> {
        if self.moves != self.shared.moves.load(Ordering::SeqCst) {
            return Err(Error::corrupt("an extent is not where it was"));
        }
        if self.start + self.size_bytes() > self.shared.fails_from.load(Ordering::SeqCst) {
            let error = self.shared.error.lock().unwrap_or_else(PoisonError::into_inner);
            return Err(error.clone());
        }
        let mut counts = self.shared.counts();
        let counts = counts.entry(self.digest).or_default();
        *counts.read.entry(self.start).or_default() += 1;
        counts.frames += usize::from(is_frame);
        Ok(())
    }
}

impl BlobExtent for Extent {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }

    fn read(&self) -> Result<Bytes> {
        self.count(false)?;
        Ok(self.bytes.clone())
    }

    fn read_zstd(&self) -> Result<Option<Bytes>> {
        if !self.has_frame {
            return Ok(None);
        }
        self.count(true)?;
        let frame = zstd::bulk::compress(&self.bytes, LEVEL)
            .map_err(|error| Error::unavailable("zstd has no memory").because(error))?;
        Ok(Some(frame.into()))
    }

    fn read_now(&self) -> Option<Bytes> {
        if !self.is_in_memory() {
            return None;
        }
        let bytes = self.read().ok()?;
        self.shared.counts().entry(self.digest).or_default().now += 1;
        Some(bytes)
    }

    fn read_zstd_now(&self) -> Option<Bytes> {
        if !self.is_in_memory() {
            return None;
        }
        let frame = self.read_zstd().ok()??;
        self.shared.counts().entry(self.digest).or_default().frames_now += 1;
        Some(frame)
    }
}

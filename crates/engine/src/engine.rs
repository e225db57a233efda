//! An open store.

use std::{
    any::Any,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use granary_castore::{
    BlobDigest, BlobReader, BlobService, BlobStat, Castore, Chain, ChunkDigest, ChunkMeta,
    Directory, DirectoryDigest, DirectoryService, Error, Hold, RecordKind, RecordStore,
    RecordWrite, Result, Root, Touch, WriteBatch,
};

use crate::{
    chunker::Chunker,
    compression::Compression,
    damage::KnownDamage,
    disk::{Disk, OsDisk},
    format::{ObjectKind, StoreId},
    gc::{Found, Guard, Reliance, lease::LEASE_KIND},
    index::Index,
    log::{Log, Request},
    object_key::ObjectKey,
    open::{self, FrameSizes, Lock, OpenError, OpenOptions, OpenReport},
    packs::Packs,
    read::{ChunkReader, DividedReader, blob_len, list_entries},
    stats::EngineStats,
    verify::object_name,
    write::{Compressors, EngineBatch},
};

/// Longest key of a record, in bytes.
pub const MAX_KEY_BYTES: usize = 255;

/// Longest value of a record, in bytes.
pub const MAX_VALUE_BYTES: usize = 4 << 20;

/// Most writes in one call of [`RecordStore::write_records`].
pub const MAX_RECORD_WRITES: usize = 10_000;

/// Most bytes of keys and values in one call of [`RecordStore::write_records`].
pub const MAX_RECORD_WRITES_BYTES: usize = 16 << 20;

/// An open store: the castore traits on a data directory. Clones share it; when the last
/// is dropped, or [`close`](Self::close) is called, the store is closed.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// What the parts of an open store share. Fields are dropped in this order: threads that
/// send to the log, the log, what the log writes to, the lock.
pub(crate) struct Inner {
    pub(crate) chunker: Chunker,
    pub(crate) frame_sizes: FrameSizes,
    pub(crate) compressors: Compressors,
    pub(crate) log: Arc<Log>,
    pub(crate) index: Arc<Index>,
    pub(crate) packs: Arc<Packs>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) store_id: StoreId,
    pub(crate) compression: Compression,
    pub(crate) pack_bytes: u64,
    lease: Duration,
    /// Reads of contents so far.
    pub(crate) reads: AtomicU64,
    /// How often objects were done away with, to be stored anew.
    pub(crate) forgettings: AtomicU64,
    /// Whether a collection is under way.
    pub(crate) is_collecting: AtomicBool,
    /// Generation of the newest list of dead objects.
    pub(crate) dead_generation: Mutex<u64>,
    /// Boundary and generation of a collection whose list the index has not followed.
    pub(crate) unfollowed: Mutex<Option<(u32, u64)>>,
    report: OpenReport,
    /// What was found to be damaged since the store was opened.
    pub(crate) damage: KnownDamage,
    _lock: Option<Lock>,
}

impl Engine {
    /// Opens the store in `data_dir`, making it if there is none, and brings its index up
    /// to date with its packs.
    ///
    /// # Errors
    ///
    /// If another process has it open, it has another format, or it cannot be read. Damage
    /// is no error: see [`report`](Self::report).
    pub fn open(data_dir: &Path, options: &OpenOptions<'_>) -> Result<Self, OpenError> {
        let disk = Arc::new(OsDisk::new(data_dir));
        disk.create_dir("").map_err(Error::from)?;
        let lock = Lock::take(data_dir)?;
        Self::open_parts(disk, &data_dir.join("index"), options, Some(lock))
    }

    /// Opens a store whose files are on `disk`, but for the index, which is a directory of
    /// the file system. Nothing keeps another process out.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_on(
        disk: Arc<dyn Disk>,
        index_dir: &Path,
        options: &OpenOptions<'_>,
    ) -> Result<Self, OpenError> {
        Self::open_parts(disk, index_dir, options, None)
    }

    fn open_parts(
        disk: Arc<dyn Disk>,
        index_dir: &Path,
        options: &OpenOptions<'_>,
        lock: Option<Lock>,
    ) -> Result<Self, OpenError> {
        let open::Opened { start, chunker, report } = open::open(&disk, index_dir, options)?;
        let (index, packs) = (Arc::clone(&start.index), Arc::clone(&start.packs));
        let guard = Arc::clone(&start.guard);
        let (store_id, dead_generation) = (start.state.store_id, start.dead_generation);
        let compressors = Compressors::start(start.compression)?;
        let inner = Inner {
            chunker,
            frame_sizes: options.frame_sizes,
            compressors,
            log: Arc::new(Log::start(start)?),
            index,
            packs,
            guard,
            disk,
            store_id,
            compression: options.compression,
            pack_bytes: options.pack_bytes,
            lease: options.lease,
            reads: AtomicU64::new(0),
            forgettings: AtomicU64::new(0),
            is_collecting: AtomicBool::new(false),
            dead_generation: Mutex::new(dead_generation),
            unfollowed: Mutex::new(None),
            report,
            damage: KnownDamage::default(),
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// What opening found and did.
    pub fn report(&self) -> &OpenReport {
        &self.inner.report
    }

    /// Counts and sums over the store.
    ///
    /// # Errors
    ///
    /// If the index does not answer or the packs cannot be measured.
    pub fn stats(&self) -> Result<EngineStats> {
        let totals = self.inner.index.state().map_err(Error::from)?.unwrap_or_default().totals;
        Ok(EngineStats {
            chunk_count: totals.chunks,
            chunk_bytes: totals.chunk_bytes,
            patched_chunk_count: totals.patched_chunks,
            divided_blob_count: totals.divided_blobs,
            directory_count: totals.directories,
            directory_bytes: totals.directory_bytes,
            pack_count: self.inner.packs.count() as u64,
            stored_bytes: self.inner.stored_bytes()?,
            damaged_count: self.inner.report.damage_count() as u64 + self.inner.damage.count(),
        })
    }

    /// Makes everything that was written durable and stops taking writes. Reads still work.
    ///
    /// # Errors
    ///
    /// If not everything could be made durable. Nothing that was acknowledged is lost then.
    pub fn close(&self) -> Result<()> {
        self.inner.log.close()?;
        Ok(self.inner.index.sync()?)
    }
}

impl Inner {
    /// Whether an object is in the index or certain to come into it; and if so, it stays for as
    /// long as an operation runs that began before.
    pub(crate) fn is_stored(&self, key: &ObjectKey) -> Result<bool> {
        self.rely_on(key, Reliance::Operation)
    }

    fn rely_on(&self, key: &ObjectKey, reliance: Reliance) -> Result<bool> {
        loop {
            let ended = self.guard.ended();
            let pack = if self.log.pending().contains(key) {
                None
            } else {
                match self.index.pack_of(key)? {
                    Some(pack) => Some(pack),
                    None => return Ok(false),
                }
            };
            match self.guard.touch(key, pack, ended, reliance) {
                // IMPORTANT: it may have come into a pack, and a collection begun for which that
                // is old, before it was touched. Then its pack says whether it may be relied on.
                Found::Stored if pack.is_none() && !self.log.pending().contains(key) => {}
                Found::Stored => return Ok(true),
                Found::Condemned => return Ok(false),
                Found::LookAgain => {}
            }
        }
    }

    /// Whether an object is stored, or on its way, and is not condemned.
    pub(crate) fn stays(&self, key: &ObjectKey) -> Result<bool> {
        if self.log.pending().contains(key) {
            return Ok(true);
        }
        let pack = self.index.pack_of(key)?;
        Ok(pack.is_some_and(|pack| !self.guard.lock().is_condemned(key, pack)))
    }

    /// Whether an object that was found counts as not stored.
    fn is_condemned(&self, key: &ObjectKey) -> Result<bool> {
        if !self.guard.lock().is_sweeping() {
            return Ok(false);
        }
        let pack = self.index.pack_of(key)?;
        Ok(pack.is_none_or(|pack| self.guard.lock().is_condemned(key, pack)))
    }

    /// Counts and logs `error` if it says that an object was found damaged when it was read, and
    /// gives it back.
    pub(crate) fn note_if_damage(
        &self,
        kind: ObjectKind,
        digest: &[u8; 32],
        error: Error,
    ) -> Error {
        if matches!(error, Error::Corrupt(_)) {
            self.damage.add(object_name(kind, digest));
            tracing::error!(error = %Chain(&error), "damage found; it is not served");
        }
        error
    }
}

fn chunk_key(digest: &BlobDigest) -> ObjectKey {
    ObjectKey::Object(ObjectKind::Chunk, *digest.as_bytes())
}

impl BlobService for Engine {
    fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>> {
        if self.inner.is_condemned(&ObjectKey::Blob(*digest.as_bytes()))?
            && self.inner.is_condemned(&chunk_key(digest))?
        {
            return Ok(None);
        }
        if let Some(located) = self.inner.index.located(ObjectKind::Chunk, digest.as_bytes())? {
            let size_bytes = self.inner.chunk_len(digest.as_bytes(), &located)?;
            return Ok(Some(BlobStat { size_bytes }));
        }
        let record = self.inner.index.blob(digest.as_bytes())?;
        let size_bytes = record.as_ref().map(blob_len).transpose()?;
        Ok(size_bytes.map(|size_bytes| BlobStat { size_bytes }))
    }

    fn chunks(&self, digest: &BlobDigest, max_chunks: usize) -> Result<Option<Vec<ChunkMeta>>> {
        let ended = self.inner.guard.ended();
        let Some(record) = self.inner.index.blob(digest.as_bytes())? else {
            let is_chunk = self.inner.index.contains(ObjectKind::Chunk, digest.as_bytes())?;
            return Ok(is_chunk.then(Vec::new));
        };
        let mut chunks = Vec::new();
        for entry in record.entries {
            let entries = if record.lists {
                list_entries(&self.inner, &entry.digest, ended)?
            } else {
                vec![entry]
            };
            chunks.extend(entries.into_iter().map(|entry| ChunkMeta {
                digest: ChunkDigest::from_bytes(entry.digest),
                size_bytes: entry.size_bytes,
            }));
            if chunks.len() > max_chunks {
                return Ok(Some(Vec::new()));
            }
        }
        Ok(Some(chunks))
    }

    fn open(&self, digest: &BlobDigest) -> Result<Option<Box<dyn BlobReader>>> {
        let engine = Arc::clone(&self.inner);
        let ended = engine.guard.ended();
        if let Some(located) = engine.index.located(ObjectKind::Chunk, digest.as_bytes())? {
            let reader = ChunkReader::new(engine, *digest.as_bytes(), located, ended)?;
            return Ok(Some(Box::new(reader)));
        }
        let Some(record) = engine.index.blob(digest.as_bytes())? else { return Ok(None) };
        Ok(Some(Box::new(DividedReader::new(engine, record, ended)?)))
    }

    fn layout_generation(&self) -> u64 {
        // What a collection moves goes out of packs that are removed then; what it does away with,
        // and what is forgotten, may be stored anew. All only grow, and so does their sum.
        let Inner { packs, guard, forgettings, .. } = &*self.inner;
        packs.removals() + guard.ended() + forgettings.load(Ordering::Acquire)
    }
}

impl DirectoryService for Engine {
    fn directory(&self, digest: &DirectoryDigest) -> Result<Option<Directory>> {
        let key = ObjectKey::Object(ObjectKind::Directory, *digest.as_bytes());
        if self.inner.is_condemned(&key)? {
            return Ok(None);
        }
        let Some(encoded) = self.inner.object(ObjectKind::Directory, digest.as_bytes())? else {
            return Ok(None);
        };
        Directory::decode(&encoded).map(Some).map_err(|problem| {
            Error::corrupt(format!("directory {digest} is malformed")).because(problem)
        })
    }
}

impl Castore for Engine {
    fn batch(&self) -> Result<Box<dyn WriteBatch>> {
        Ok(Box::new(EngineBatch::new(Arc::clone(&self.inner), self.inner.lease)))
    }

    fn hold(&self) -> Hold {
        Hold::new(self.inner.guard.begin())
    }

    fn touch(&self, root: &Root, touch: Touch) -> Result<bool> {
        let reliance = match touch {
            Touch::Hold => Reliance::Operation,
            Touch::Lease => Reliance::Told { hour: self.inner.guard.hour() },
        };
        match root {
            Root::Directory(digest) => {
                let key = ObjectKey::Object(ObjectKind::Directory, *digest.as_bytes());
                self.inner.rely_on(&key, reliance)
            }
            Root::Blob(digest) => {
                if self.inner.rely_on(&chunk_key(digest), reliance)? {
                    return Ok(true);
                }
                self.inner.rely_on(&ObjectKey::Blob(*digest.as_bytes()), reliance)
            }
        }
    }
}

impl RecordStore for Engine {
    fn record(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Bytes>> {
        let found = self.inner.index.value(kind.0, key)?;
        Ok(found.and_then(|(_, value)| value).map(Bytes::from))
    }

    fn write_records(&self, writes: Vec<RecordWrite>) -> Result<()> {
        check_records(&writes)?;
        self.inner.log.ask(|answer| Request::Values { writes, answer })
    }

    fn commit_with_records(
        &self,
        batch: Box<dyn WriteBatch>,
        writes: Vec<RecordWrite>,
    ) -> Result<()> {
        let ours = (&*batch as &dyn Any).downcast_ref::<EngineBatch>();
        if !ours.is_some_and(|batch| batch.is_of(&self.inner)) {
            batch.commit()?;
            return self.write_records(writes);
        }
        check_records(&writes)?;
        match (batch as Box<dyn Any>).downcast::<EngineBatch>() {
            Ok(batch) => batch.commit_with(writes),
            Err(_) => unreachable!("it was one above"),
        }
    }

    fn scan_records(
        &self,
        kind: RecordKind,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let found = self.inner.index.scan_values(kind.0, after, limit)?;
        Ok(found.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

/// Whether records can be written together.
fn check_records(writes: &[RecordWrite]) -> Result<()> {
    if writes.len() > MAX_RECORD_WRITES {
        return Err(Error::too_large(format!(
            "{} records at once: the limit is {MAX_RECORD_WRITES}",
            writes.len()
        )));
    }
    let mut sum_bytes = 0;
    for RecordWrite { kind, key, value } in writes {
        if *kind == LEASE_KIND {
            return Err(Error::invalid("records of this kind are the engine's own"));
        }
        let value_len = value.as_ref().map_or(0, Bytes::len);
        sum_bytes += key.len() + value_len;
        if key.len() > MAX_KEY_BYTES || value_len > MAX_VALUE_BYTES {
            return Err(Error::too_large(format!(
                "a record with a key of {} and a value of {value_len} bytes: \
                 the limits are {MAX_KEY_BYTES} and {MAX_VALUE_BYTES}",
                key.len()
            )));
        }
    }
    if sum_bytes > MAX_RECORD_WRITES_BYTES {
        return Err(Error::too_large(format!(
            "{sum_bytes} bytes of records at once: the limit is {MAX_RECORD_WRITES_BYTES}"
        )));
    }
    Ok(())
}

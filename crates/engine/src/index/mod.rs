//! The index: where each object lies, derived from the packs.
//!
//! One fjall keyspace holds everything, under keys that begin with a tag. It is one on
//! purpose: fjall does not sync its journal by itself, and within one keyspace what a crash
//! leaves is a prefix of what was written, so that the watermark can never be ahead of the
//! entries it vouches for.
//!
//! IMPORTANT: a segment's entries and the watermark behind it go into one batch, and only
//! after the segment itself was synced.

mod entry;
mod update;

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use granary_castore::Error;

use crate::format::{BlobRecord, Malformed, ObjectKind, Place};

pub(crate) use entry::{Located, Location, PackEntry, State, Watermark};
pub(crate) use update::{Novelty, Update};

/// Bytes that fjall's cache of blocks may hold.
const CACHE_BYTES: u64 = 24 << 20;

/// Size at which a memtable goes to disk. A few may wait for it at a time.
const MEMTABLE_BYTES: u64 = 8 << 20;

/// Size of all journals at which memtables are flushed to let journals go: the least that
/// fjall allows.
const JOURNAL_BYTES: u64 = 64 << 20;

/// Most table files open at a time.
const MAX_OPEN_TABLES: usize = 128;

/// Threads for flushing and compaction.
const WORKER_THREADS: usize = 2;

const KEYSPACE: &str = "index";

/// The index of one store.
pub(crate) struct Index {
    database: Database,
    keyspace: Keyspace,
}

/// A value, or its tombstone, and its place in the order.
pub(crate) type PlacedValue = (Place, Option<Vec<u8>>);

/// A key and its value.
pub(crate) type KeyValue = (Vec<u8>, Vec<u8>);

/// Why the index does not answer. A broken index is not lost data: it is rebuilt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("the index database failed")]
    Database(#[source] fjall::Error),
    #[error("an index entry is malformed")]
    Malformed(#[from] Malformed),
}

impl From<fjall::Error> for IndexError {
    fn from(error: fjall::Error) -> Self {
        Self::Database(error)
    }
}

impl IndexError {
    /// Whether the trouble lies with the machine or the moment, so that an index that is
    /// built anew would fare no better.
    pub(crate) fn is_passing(&self) -> bool {
        use std::io::ErrorKind;
        match self {
            Self::Malformed(_) => false,
            Self::Database(
                fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)),
            ) => !matches!(
                error.kind(),
                ErrorKind::UnexpectedEof
                    | ErrorKind::InvalidData
                    | ErrorKind::InvalidInput
                    | ErrorKind::NotFound
                    | ErrorKind::IsADirectory
                    | ErrorKind::NotADirectory
                    | ErrorKind::AlreadyExists
            ),
            Self::Database(error) => {
                matches!(error, fjall::Error::Poisoned | fjall::Error::Locked)
            }
        }
    }
}

impl From<IndexError> for Error {
    fn from(error: IndexError) -> Self {
        if error.is_passing() {
            Self::unavailable("cannot use the index").because(error)
        } else {
            Self::corrupt("the index is damaged; `granary recover` builds it anew from the packs")
                .because(error)
        }
    }
}

impl Index {
    /// Opens the index in `path`, making it if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, IndexError> {
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .max_cached_files(Some(MAX_OPEN_TABLES))
            .worker_threads(WORKER_THREADS)
            .open()?;
        let keyspace = database.keyspace(KEYSPACE, || {
            KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
        })?;
        Ok(Self { database, keyspace })
    }

    /// What it was built from, if anything.
    pub(crate) fn state(&self) -> Result<Option<State>, IndexError> {
        self.get(&entry::STATE_KEY, State::decode)
    }

    /// All packs it knows, by handle.
    pub(crate) fn packs(&self) -> Result<Vec<(u32, PackEntry)>, IndexError> {
        let mut packs = Vec::new();
        for guard in self.database.snapshot().prefix(&self.keyspace, [entry::PACK_TAG]) {
            let (key, value) = guard.into_inner()?;
            packs.push((entry::pack_handle(&key)?, PackEntry::decode(&value)?));
        }
        Ok(packs)
    }

    /// Where an object lies.
    pub(crate) fn located(
        &self,
        kind: ObjectKind,
        digest: &[u8; 32],
    ) -> Result<Option<Located>, IndexError> {
        self.get(&entry::object_key(kind, digest), Located::decode)
    }

    /// Whether it knows an object.
    pub(crate) fn contains(&self, kind: ObjectKind, digest: &[u8; 32]) -> Result<bool, IndexError> {
        self.contains_key(&entry::object_key(kind, digest))
    }

    /// The pieces of a blob of several chunks.
    pub(crate) fn blob(&self, digest: &[u8; 32]) -> Result<Option<BlobRecord>, IndexError> {
        self.get(&entry::blob_key(digest), entry::decode_blob)
    }

    /// Whether it knows a blob of several chunks.
    pub(crate) fn contains_blob(&self, digest: &[u8; 32]) -> Result<bool, IndexError> {
        self.contains_key(&entry::blob_key(digest))
    }

    /// The newest value of a key, or its tombstone, and its place in the order.
    pub(crate) fn value(&self, kind: u8, key: &[u8]) -> Result<Option<PlacedValue>, IndexError> {
        self.get(&entry::value_key(kind, key), entry::decode_value)
    }

    /// Up to `limit` values of a kind, tombstones left out, behind the key `after`.
    pub(crate) fn scan_values(
        &self,
        kind: u8,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, IndexError> {
        let mut start = entry::value_key(kind, after.unwrap_or_default());
        if after.is_some() {
            // The first key behind it.
            start.push(0);
        }
        let prefix = entry::value_key(kind, &[]);
        let mut found = Vec::new();
        for guard in self.database.snapshot().range(&self.keyspace, start..) {
            let (key, value) = guard.into_inner()?;
            let Some(key) = key.strip_prefix(prefix.as_slice()) else { break };
            if found.len() == limit {
                break;
            }
            if let (_, Some(value)) = entry::decode_value(&value)? {
                found.push((key.to_vec(), value));
            }
        }
        Ok(found)
    }

    /// Writes an update as one batch: all of it is there after a crash, or nothing.
    pub(crate) fn apply(&self, update: Update) -> Result<(), IndexError> {
        let mut batch = self.database.batch();
        for (key, value) in update.into_entries() {
            batch.insert(&self.keyspace, key, value);
        }
        Ok(batch.commit()?)
    }

    /// Makes it durable: before a pack is unlinked, and when the store closes, so that the
    /// next start has nothing to replay.
    pub(crate) fn sync(&self) -> Result<(), IndexError> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    // IMPORTANT: every read is of a snapshot. Reads of the keyspace itself see a batch while
    // it is being applied.

    fn contains_key(&self, key: &[u8]) -> Result<bool, IndexError> {
        Ok(self.database.snapshot().contains_key(&self.keyspace, key)?)
    }

    fn get<T>(
        &self,
        key: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<T>, IndexError> {
        let value = self.database.snapshot().get(&self.keyspace, key)?;
        Ok(value.map(|value| decode(&value)).transpose()?)
    }
}

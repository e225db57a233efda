//! Entries on disk.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use granary_castore::Chain;
use granary_tables::{KeyValue, Turn};

use super::{error::IndexError, memory::Memtable};
use crate::format::Malformed;

/// The file that is left where damage was found, so that the next start builds the index anew.
const DAMAGED_FILE: &str = "damaged";

/// All tables of the index.
pub(super) struct Tables {
    dir: PathBuf,
    /// Whether damage was found since they were opened.
    is_damaged: AtomicBool,
    inner: granary_tables::Tables,
}

impl Tables {
    /// Opens the tables in `dir`, or makes a place for them if there is nothing.
    pub(super) fn open(dir: &Path) -> Result<Self, IndexError> {
        if dir.join(DAMAGED_FILE).exists() {
            return Err(Malformed("damage was found in it when it was last used").into());
        }
        let inner = granary_tables::Tables::open(dir)?;
        Ok(Self { dir: dir.to_owned(), is_damaged: AtomicBool::default(), inner })
    }

    /// What `decode` makes of the value of a key.
    pub(super) fn get<T>(
        &self,
        key: &[u8],
        decode: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, IndexError> {
        self.noted(self.inner.get(key, decode))
    }

    /// Entries from `start` on whose keys begin with `prefix`, in their order.
    pub(super) fn range(
        &self,
        start: &[u8],
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<KeyValue, IndexError>> + use<'_> {
        self.inner.range(start, prefix).map(|entry| self.noted(entry))
    }

    /// The result, and a note for the next start if it is damage. Blocks are checked when they
    /// are read, so it may show at any time.
    fn noted<T>(&self, result: Result<T, granary_tables::Error>) -> Result<T, IndexError> {
        let result = result.map_err(IndexError::from);
        if let Err(error) = &result
            && !error.is_passing()
            && !self.is_damaged.swap(true, Ordering::Relaxed)
        {
            tracing::error!(
                error = %Chain(error),
                "the index is damaged; the next start builds it anew from the packs"
            );
            if let Err(error) = fs::write(self.dir.join(DAMAGED_FILE), []) {
                tracing::warn!(%error, "cannot note that the index is damaged");
            }
        }
        result
    }

    /// Writes all of a memtable to a table, durably.
    pub(super) fn add(&self, memtable: &Memtable) -> Result<(), IndexError> {
        Ok(self.inner.add(memtable.sorted().into_iter())?)
    }

    /// Bytes of all of them.
    pub(super) fn len_bytes(&self) -> u64 {
        self.inner.len_bytes()
    }

    /// Whether damage was found since they were opened.
    pub(super) fn are_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    /// Whether some must be merged before another one is added.
    pub(super) fn is_crowded(&self) -> bool {
        self.inner.is_crowded()
    }

    /// Merges some tables, if there are too many, but none of more than `max_bytes` together,
    /// and asks meanwhile whether to go on. False if there is nothing to do, or it was stopped.
    pub(super) fn merge_some(
        &self,
        max_bytes: u64,
        turn: impl FnMut() -> Turn,
    ) -> Result<bool, IndexError> {
        self.noted(self.inner.merge_some(max_bytes, turn))
    }

    /// Merges all tables.
    pub(super) fn merge_all(&self) -> Result<(), IndexError> {
        self.noted(self.inner.merge_all())
    }
}

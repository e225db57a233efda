//! Entries on disk: sorted tables, by the crate `lsm_tree`.
//!
//! Its own memtables are not used. They would have to be read at a sequence number that the
//! crate moves by itself whenever a table is added, and so in the middle of an update.

use std::{
    collections::HashSet,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use granary_castore::Chain;
use lsm_tree::{
    AbstractTree, AnyTree, Cache, Config, DescriptorTable, Guard, InternalValue, SeqNo,
    SequenceNumberCounter, Slice, Table, TableId, ValueType, compaction::Leveled,
    config::PinningPolicy,
};

use super::{
    error::IndexError,
    memory::Memtable,
    tree_files::{self, TABLES_DIR, TREE_FILE},
};
use crate::format::Malformed;

/// Bytes that the cache of blocks may hold: the index of a small store, and of a larger one what
/// is asked for again and again. Other blocks are in the page cache, a microsecond further away.
const CACHE_BYTES: u64 = 8 << 20;

/// Most table files open at a time.
const MAX_OPEN_TABLES: usize = 128;

/// Length of a table that comes of a merger.
const TABLE_BYTES: u64 = 16 << 20;

/// The file that is left where damage was found, so that the next start builds the index anew.
const DAMAGED_FILE: &str = "damaged";

/// Reads see what is newest.
const NOW: SeqNo = SeqNo::MAX;

/// All tables of the index.
pub(super) struct Tables {
    /// Where the tree lies.
    dir: PathBuf,
    /// Whether damage was found since they were opened.
    is_damaged: AtomicBool,
    /// Held, shared, by whoever makes tables.
    making: RwLock<()>,
    tree: AnyTree,
    sequence: SequenceNumberCounter,
    strategy: Arc<Leveled>,
}

impl Tables {
    /// Opens the tables in `dir`, or makes a place for them if there is nothing.
    pub(super) fn open(dir: &Path) -> Result<Self, IndexError> {
        if !dir.join(TREE_FILE).exists() && dir.exists() {
            return Err(Malformed("the index has another layout").into());
        }
        if dir.join(DAMAGED_FILE).exists() {
            return Err(Malformed("damage was found in it when it was last used").into());
        }
        // The crate would panic.
        if holds_directories(&dir.join(TABLES_DIR)) {
            return Err(Malformed("a directory lies among the tables of the index").into());
        }
        if dir.exists() {
            tree_files::check(dir)?;
        }
        let sequence = SequenceNumberCounter::default();
        // Whole, and kept in memory: about two bytes for an object. So no look-up reads more
        // than one block, and one for what is not there reads none.
        let (pinned, cut) = (PinningPolicy::all(true), PinningPolicy::all(false));
        let config = Config::new(dir, sequence.clone(), SequenceNumberCounter::default())
            .use_cache(Arc::new(Cache::with_capacity_bytes(CACHE_BYTES)))
            .use_descriptor_table(Some(Arc::new(DescriptorTable::new(MAX_OPEN_TABLES))))
            .filter_block_pinning_policy(pinned.clone())
            .filter_block_partitioning_policy(cut.clone())
            .index_block_pinning_policy(pinned)
            .index_block_partitioning_policy(cut);
        let tree = open_tree(config)?;
        // All of it is read, at some gigabytes a second.
        for table in tree.current_version().iter_tables() {
            tree_files::check_table(dir, table.id(), table.checksum().into_u128())?;
        }
        // IMPORTANT: mergers go by sequence numbers to tell what is newest.
        sequence.set(tree.get_highest_persisted_seqno().map_or(0, |last| last + 1));
        let strategy = Arc::new(Leveled::default().with_table_target_size(TABLE_BYTES));
        let (dir, is_damaged, making) = (dir.to_owned(), AtomicBool::default(), RwLock::default());
        Ok(Self { dir, is_damaged, making, tree, sequence, strategy })
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Slice>, IndexError> {
        self.noted(self.tree.get(key, NOW))
    }

    pub(super) fn contains(&self, key: &[u8]) -> Result<bool, IndexError> {
        self.noted(self.tree.contains_key(key, NOW))
    }

    /// Entries from `start` on whose keys begin with `prefix`, in their order.
    pub(super) fn range(
        &self,
        start: &[u8],
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Slice, Slice), IndexError>> {
        let entries = self.tree.range(start.., NOW, None);
        entries.map(|entry| self.noted(entry.into_inner())).take_while(move |entry| {
            entry.as_ref().map_or(true, |(key, _): &(Slice, Slice)| key.starts_with(prefix))
        })
    }

    /// The result, and a note for the next start if it is damage. Blocks are checked when they
    /// are read, so it may show at any time.
    fn noted<T>(&self, result: lsm_tree::Result<T>) -> Result<T, IndexError> {
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

    /// Writes all of a memtable to a table, durably: it is synced before the list of tables
    /// names it.
    pub(super) fn add(&self, memtable: &Memtable) -> Result<(), IndexError> {
        Ok(self.or_remove_leftovers(|| self.write(memtable))?)
    }

    fn write(&self, memtable: &Memtable) -> lsm_tree::Result<()> {
        let sequence = self.sequence.next();
        let entries = memtable.sorted();
        let entries = entries.into_iter().map(|(key, value)| {
            let kind = if value.is_some() { ValueType::Value } else { ValueType::Tombstone };
            let value = value.unwrap_or_default();
            Ok(InternalValue::from_components(key, value, sequence, kind))
        });
        if let Some((tables, _)) = self.tree.flush_to_tables(entries)? {
            self.tree.register_tables(&tables, None, None, &[], NOW)?;
        }
        Ok(())
    }

    /// Merges some tables, if there are too many. False if there is nothing to do.
    pub(super) fn merge_some(&self) -> Result<bool, IndexError> {
        let before = self.tree.current_version().id();
        let strategy = Arc::clone(&self.strategy) as _;
        self.noted(self.or_remove_leftovers(|| self.tree.compact(strategy, NOW)))?;
        Ok(self.tree.current_version().id() != before)
    }

    /// Merges all tables.
    pub(super) fn merge_all(&self) -> Result<(), IndexError> {
        self.noted(self.or_remove_leftovers(|| self.tree.major_compact(TABLE_BYTES, NOW)))
    }

    /// Does what makes tables. The crate leaves those that it could not finish, until the index
    /// is opened anew: on a full disk, each attempt would take what somebody has made free.
    fn or_remove_leftovers(
        &self,
        make: impl FnOnce() -> lsm_tree::Result<()>,
    ) -> lsm_tree::Result<()> {
        let making = self.making.read().unwrap_or_else(PoisonError::into_inner);
        let first_new = self.tree.next_table_id();
        let made = make();
        drop(making);
        if made.is_err() {
            // IMPORTANT: nobody else may be making any now, for they are in no list yet.
            let _alone = self.making.write().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = self.remove_leftovers(first_new) {
                tracing::warn!(%error, "unfinished tables of the index are left behind");
            }
        }
        made
    }

    /// Removes the tables from `first_new` on that are not in use. Older ones may be read still.
    fn remove_leftovers(&self, first_new: TableId) -> io::Result<()> {
        let version = self.tree.current_version();
        let used: HashSet<_> = version.iter_tables().map(Table::id).collect();
        for entry in fs::read_dir(self.dir.join(TABLES_DIR))? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if id.is_some_and(|id| id >= first_new && !used.contains(&id)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// The crate panics over some damaged files where it could fail. Nothing else knows of the tree
/// yet, so nothing is left half done.
fn open_tree(config: Config) -> Result<AnyTree, IndexError> {
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(opened) => Ok(opened?),
        Err(_panic) => Err(Malformed("the tables of the index cannot be understood").into()),
    }
}

fn holds_directories(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| {
        entries
            .any(|entry| entry.and_then(|entry| entry.file_type()).is_ok_and(|kind| kind.is_dir()))
    })
}

//! The index: where each object lies, derived from the packs.
//!
//! New entries are kept in memory (`memory`). A memtable that is full goes to a sorted table
//! on disk (`tables`) on a thread of the index's own (`flusher`). There is no journal: what a
//! crash takes out of memory is in the packs, and is replayed.
//!
//! IMPORTANT: a segment's entries and the watermark behind it are applied together, and only
//! after the segment itself was synced. What is applied together goes into one memtable, and
//! memtables are written whole and in their order, so that the watermark on disk is never
//! ahead of the entries that it vouches for.

mod entry;
mod error;
mod integer;
mod update;

mod flusher;
mod memory;
mod merged;
mod scan;
mod tables;

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use granary_castore::Chain;
use granary_tables::KeyValue;

use crate::{
    format::{BlobRecord, Malformed, ObjectKind, Place},
    object_key::ObjectKey,
};
use entry::DigestKey;
use flusher::Flusher;
use memory::{Memory, Part};
use merged::Merged;
use tables::Tables;

pub(crate) use entry::{Located, Location, PackEntry, State, Totals, Watermark};
pub(crate) use error::IndexError;
pub(crate) use scan::IndexedObject;
pub(crate) use update::{Novelty, Update};

/// How many packs are looked at together.
const PACKS_PAGE: usize = 1_024;

/// A value, or its tombstone, and its place in the order.
pub(crate) type PlacedValue = (Place, Option<Vec<u8>>);

/// The index of one store. Dropping it writes what is in memory.
pub(crate) struct Index {
    memory: Arc<RwLock<Memory>>,
    tables: Arc<Tables>,
    flusher: Flusher,
}

impl Index {
    /// Opens the index in `path`, making it if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, IndexError> {
        let (memory, tables) = (Arc::default(), Arc::new(Tables::open(path)?));
        let flusher = Flusher::start(Arc::clone(&memory), Arc::clone(&tables))?;
        // If runs so far were too short for it, there are tables to merge.
        flusher.wake();
        Ok(Self { memory, tables, flusher })
    }

    /// What it was built from, if anything.
    pub(crate) fn state(&self) -> Result<Option<State>, IndexError> {
        self.get(&entry::STATE_KEY, State::decode)
    }

    /// What it knows of a pack, if anything.
    pub(crate) fn pack(&self, handle: u32) -> Result<Option<PackEntry>, IndexError> {
        self.get(&entry::pack_key(handle), PackEntry::decode)
    }

    /// All packs it knows, by handle.
    pub(crate) fn packs(&self) -> Result<Vec<(u32, PackEntry)>, IndexError> {
        let mut packs = Vec::new();
        let mut start = Some(vec![entry::PACK_TAG]);
        while let Some(from) = start {
            let (page, next) = self.page(&from, &[entry::PACK_TAG], PACKS_PAGE)?;
            for (key, value) in page {
                packs.push((entry::pack_handle(&key)?, PackEntry::decode(&value)?));
            }
            start = next;
        }
        Ok(packs)
    }

    /// Where an object lies.
    pub(crate) fn located(
        &self,
        kind: ObjectKind,
        digest: &[u8; 32],
    ) -> Result<Option<Located>, IndexError> {
        self.get_by_digest(&entry::object_key(kind, digest), Located::decode)
    }

    /// Whether it knows an object.
    pub(crate) fn contains(&self, kind: ObjectKind, digest: &[u8; 32]) -> Result<bool, IndexError> {
        self.contains_key(&entry::object_key(kind, digest))
    }

    /// The pieces of a blob of several chunks.
    pub(crate) fn blob(&self, digest: &[u8; 32]) -> Result<Option<BlobRecord>, IndexError> {
        let decode = |value: &[u8]| entry::decode_blob(digest, value).map(|(_, blob)| blob);
        self.get_by_digest(&entry::blob_key(digest), decode)
    }

    /// Handle of the pack that an object lies in, or its patch, or a blob's record.
    pub(crate) fn pack_of(&self, key: &ObjectKey) -> Result<Option<u32>, IndexError> {
        self.get_by_digest(&entry::digest_key(key), entry::decode_pack)
    }

    /// What an object counts for in the sums; `None` if it is not known.
    pub(crate) fn totals_of(&self, key: &ObjectKey) -> Result<Option<Totals>, IndexError> {
        let mut totals = Totals::default();
        match key {
            ObjectKey::Object(kind, digest) => match self.located(*kind, digest)? {
                Some(Located::Frame(location)) => totals.add(*kind, location.len),
                Some(Located::Patched(location)) => totals.add(ObjectKind::Patch, location.len),
                None => return Ok(None),
            },
            ObjectKey::Blob(digest) => {
                if !self.contains_key(&entry::blob_key(digest))? {
                    return Ok(None);
                }
                totals.divided_blobs = 1;
            }
        }
        Ok(Some(totals))
    }

    /// All objects that were in tables when this was called, and the packs that they lie in. Of
    /// objects of two kinds those come first that refer to the others. What was
    /// [synced](Self::sync) is in tables.
    pub(crate) fn written_objects(
        &self,
    ) -> impl Iterator<Item = Result<(ObjectKey, u32), IndexError>> {
        entry::DIGEST_TAGS.iter().flat_map(|tag| self.tables.range(tag, tag)).map(|entry| {
            let (key, value) = entry?;
            let key = entry::key_of_digest(&key)
                .ok_or(Malformed("the key of an object has the wrong length"))?;
            Ok((key, entry::decode_pack(&value)?))
        })
    }

    /// The newest value of a key, or its tombstone, and its place in the order.
    pub(crate) fn value(&self, kind: u8, key: &[u8]) -> Result<Option<PlacedValue>, IndexError> {
        self.get(&entry::value_key(kind, key), entry::decode_value)
    }

    /// Up to `limit` values of a kind, tombstones left out, behind the key `after`. If the kind
    /// has no more than that, they are of one moment.
    pub(crate) fn scan_values(
        &self,
        kind: u8,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, IndexError> {
        let prefix = entry::value_key(kind, &[]);
        let mut start = entry::value_key(kind, after.unwrap_or_default());
        if after.is_some() {
            // The first key behind it.
            start.push(0);
        }
        let mut found = Vec::new();
        while found.len() < limit {
            let (page, next) = self.page(&start, &prefix, limit - found.len())?;
            for (key, value) in page {
                if let (_, Some(value)) = entry::decode_value(&value)? {
                    found.push((key[prefix.len()..].to_vec(), value));
                }
            }
            match next {
                Some(next) => start = next,
                None => break,
            }
        }
        Ok(found)
    }

    /// Waits while too much has to be written. If that cannot be, it fails, and so would
    /// [`apply`](Self::apply); else the next update is sure to be taken, if there is one writer.
    pub(crate) fn make_room(&self) -> Result<(), IndexError> {
        while !self.read_memory().takes_update() {
            self.flusher.make_room()?;
        }
        Ok(())
    }

    /// Applies an update: whoever reads, and whatever a crash leaves, has all of it or nothing.
    /// Waits while too much has to be written.
    pub(crate) fn apply(&self, update: Update) -> Result<(), IndexError> {
        let mut memory = self.write_memory();
        while !memory.takes_update() {
            drop(memory);
            self.make_room()?;
            memory = self.write_memory();
        }
        let was_full = memory.is_full();
        if was_full {
            memory.close_memtable();
        }
        memory.insert(update.into_entries());
        drop(memory);
        if was_full {
            self.flusher.wake();
        }
        Ok(())
    }

    /// Makes it durable: before a pack is unlinked, and when the store closes, so that the
    /// next start has nothing to replay.
    pub(crate) fn sync(&self) -> Result<(), IndexError> {
        self.write_memory().close_memtable();
        self.flusher.flush()
    }

    /// Merges all tables into one, so that what was removed takes no space; if there is room for
    /// that.
    pub(crate) fn compact(&self) -> Result<(), IndexError> {
        self.sync()?;
        match self.tables.merge_all() {
            Err(error) if error.is_passing() => {
                tracing::warn!(
                    error = %Chain(&error),
                    "the index cannot be made smaller now; it works as it is"
                );
                Ok(())
            }
            merged => merged,
        }
    }

    // IMPORTANT: every read looks in memory before it looks in the tables. An entry goes from
    // there to here, and is there until it is here.

    fn contains_key(&self, key: &DigestKey) -> Result<bool, IndexError> {
        if let Some(value) = self.read_memory().by_digest(key) {
            return Ok(value.is_some());
        }
        Ok(self.tables.get(key, |_| ())?.is_some())
    }

    fn get_by_digest<T>(
        &self,
        key: &DigestKey,
        decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<T>, IndexError> {
        if let Some(value) = self.read_memory().by_digest(key) {
            return Ok(value.as_deref().map(decode).transpose()?);
        }
        Ok(self.tables.get(key, decode)?.transpose()?)
    }

    fn get<T>(
        &self,
        key: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<T>, IndexError> {
        if let Some(value) = self.read_memory().other(key) {
            return Ok(value.as_deref().map(decode).transpose()?);
        }
        Ok(self.tables.get(key, decode)?.transpose()?)
    }

    /// Of up to `max` keys (at least 1) from `start` on that begin with `prefix`, in their order,
    /// those that were not removed; and where the next page begins, if there may be one.
    fn page(
        &self,
        start: &[u8],
        prefix: &[u8],
        max: usize,
    ) -> Result<(Vec<KeyValue>, Option<Vec<u8>>), IndexError> {
        // Locked until there is an iterator over the tables as well: the two must be of the
        // same moment, or half of an update could be seen.
        let memory = self.read_memory();
        let (Part { entries, end }, older) =
            (memory.range(start, prefix, max), self.tables.range(start, prefix));
        drop(memory);
        let newer = entries.into_iter().peekable();
        let (mut page, mut last) = (Vec::new(), None);
        let mut looked_at = 0;
        for entry in (Merged { memory: newer, tables: older.peekable() }).take(max) {
            let (key, value) = entry?;
            if end.as_ref().is_some_and(|end| *key > **end) {
                break;
            }
            looked_at += 1;
            if looked_at == max {
                last = Some(key.clone());
            }
            page.extend(value.map(|value| (key, value)));
        }
        // The first key behind the last one that was looked at.
        let last = last.or(end.map(<[u8]>::into_vec));
        Ok((page, last.map(|last| [&last[..], &[0]].concat())))
    }

    fn read_memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_memory(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        if let Err(error) = self.sync() {
            tracing::warn!(
                error = %Chain(&error),
                "the index is not up to date; the next start reads more of the packs"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        format::{FrameObjects, Object, Record, StoreId},
        index::entry::Totals,
    };

    /// Objects of one update: enough for a few of them to fill a memtable.
    const OBJECTS: u32 = 10_000;

    fn digest(update: u32, object: u32) -> [u8; 32] {
        *blake3::hash(&[update.to_le_bytes(), object.to_le_bytes()].concat()).as_bytes()
    }

    /// Objects, and a watermark behind them that tells which update they belong to.
    fn update(index: &Index, number: u32) -> Update {
        let objects = (0..OBJECTS).map(|object| Object {
            kind: ObjectKind::Chunk,
            digest: digest(number, object),
            len: 1,
            literals_len: 0,
        });
        let frame = FrameObjects { offset: 0, frame_len: 24, objects: objects.collect() };
        let records = [Record::Frame(frame)];
        let (mut update, mut totals) = (Update::default(), Totals::default());
        update
            .add_segment(index, Novelty::New, 0, u64::from(number), &records, &mut totals)
            .expect("it asks nothing of the index");
        let watermark = Watermark { offset: number.into(), ..Watermark::default() };
        update.set_pack(number, PackEntry { id: [1; 16], sealed: true });
        let store_id = StoreId([2; 16]);
        update.set_state(&State { store_id, watermark, totals, dead_generation: 0 });
        update
    }

    /// How many updates it has, which must all be whole and the first ones.
    fn count(index: &Index, applied: u32) -> u32 {
        let state = index.state().expect("readable").unwrap_or_default();
        let there = u32::try_from(state.watermark.offset).expect("a number of an update");
        for number in 1..=applied {
            let found = [0, OBJECTS / 2, OBJECTS - 1]
                .map(|object| index.contains(ObjectKind::Chunk, &digest(number, object)));
            for found in found {
                assert_eq!(found.expect("readable"), number <= there, "{number} of {there}");
            }
        }
        let packs = index.packs().expect("readable");
        assert!(packs.iter().map(|(handle, _)| *handle).eq(1..=there));
        there
    }

    #[test]
    fn a_crash_leaves_the_first_updates_whole() {
        // Too few for tables to be merged, which the forgotten index might do meanwhile.
        const UPDATES: u32 = 20;
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        let path = dir.path().join("index");
        let index = Index::open(&path).expect("a new index");
        for number in 1..=UPDATES {
            index.apply(update(&index, number)).expect("applied");
            assert_eq!(count(&index, number), number, "in memory or in a table");
        }
        index.flusher.flush().expect("written");
        // As if the process were killed now: what is in the open memtable is lost.
        std::mem::forget(index);
        let index = Index::open(&path).expect("opens");
        let left = count(&index, UPDATES);
        assert!((1..UPDATES).contains(&left), "{left}");
        for number in left + 1..=UPDATES {
            index.apply(update(&index, number)).expect("applied");
        }
        drop(index);
        let index = Index::open(&path).expect("opens");
        assert_eq!(count(&index, UPDATES), UPDATES, "dropping it wrote everything");
    }

    #[test]
    fn what_cannot_be_written_stays_in_memory() {
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        let path = dir.path().join("index");
        let elsewhere = dir.path().join("elsewhere");
        let index = Index::open(&path).expect("a new index");
        fs::rename(&path, &elsewhere).expect("moved");
        let mut applied = 0;
        let error = loop {
            match index.apply(update(&index, applied + 1)) {
                Ok(()) => applied += 1,
                Err(error) => break error,
            }
            assert!(applied < 100, "memory is bounded");
        };
        assert!(matches!(error, IndexError::Tables(_)), "{error}");
        assert_eq!(count(&index, applied), applied);
        index.sync().expect_err("there is still no place");
        fs::rename(&elsewhere, &path).expect("moved back");
        index.apply(update(&index, applied + 1)).expect("there is room again");
        drop(index);
        let index = Index::open(&path).expect("opens");
        assert_eq!(count(&index, applied + 1), applied + 1);
    }

    #[test]
    fn what_another_program_left_is_no_index() {
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        let path = dir.path().join("index");
        fs::create_dir(&path).expect("made");
        fs::write(path.join("current"), b"of another layout").expect("written");
        let error = Index::open(&path).map(drop).expect_err("it is not ours");
        assert!(!error.is_passing(), "{error}");
    }
}

//! All tables of one directory.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::fs::statvfs;

use crate::{
    cursor::Cursor,
    error::{Error, failed, unreadable},
    filter::KeyHash,
    list::{self, Listed},
    merge::Merge,
    table::Table,
    writer::{TableWriter, remove},
};

/// So few tables are not merged, whatever their sizes.
const FEW_TABLES: usize = 4;

/// A table is merged with all that are newer once they have this part of its length: a lower one
/// has everything written more often, a higher one leaves more tables to ask.
const MERGED_PART: u64 = 3;

/// So many tables are too many to add another one to while some are merged: nothing else bounds
/// them if entries come faster than they are merged.
const MANY_TABLES: usize = 64;

/// Bytes that are merged between two looks at what else is to be done.
const TURN_BYTES: usize = 1 << 20;

/// What part of the free space of its disk a merger may take.
const FREE_PART: u64 = 2;

/// The end of names of tables.
const EXTENSION: &str = "table";

/// What whoever merges tables is to do, when it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Go on.
    GoOn,
    /// Leave everything as it was.
    Stop,
}

/// All tables of one directory.
#[derive(Debug)]
pub struct Tables {
    dir: PathBuf,
    /// The newest first.
    newest: RwLock<Newest>,
    next_id: AtomicU64,
    /// Held by whoever adds a table.
    adding: Mutex<()>,
    /// Held by whoever replaces the list. Tables that may or may not be on the list that is found
    /// after a crash, since it could not be synced.
    listing: Mutex<Vec<PathBuf>>,
    /// Held by whoever merges. Nobody else takes tables off the list.
    merging: Mutex<()>,
}

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// Tables of one moment, the newest first.
type Newest = Arc<[Arc<Table>]>;

impl Tables {
    /// Opens the tables in `dir`, making it if it is not there. Files that a process has left
    /// that ended meanwhile are removed.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if there is no list though there is a directory, or something is not
    /// what was written: all of it is read.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let listed = if dir.exists() { list::read(dir)? } else { None };
        let listed = match listed {
            Some(listed) => listed,
            None if is_missing_or_empty(dir)? => {
                make(dir)?;
                Vec::new()
            }
            None => {
                let problem = "there is no list of its tables";
                return Err(Error::Damaged { name: dir.display().to_string(), problem });
            }
        };
        let tables =
            listed.iter().map(|listed| Ok(Arc::new(Table::open(path(dir, listed.id), *listed)?)));
        let tables = tables.collect::<Result<Newest, Error>>()?;
        // IMPORTANT: the list may be one that was not synced. What an older one has stays until
        // this one is.
        list::sync(dir)?;
        let next_id = remove_others(dir, &listed)?;
        Ok(Self {
            dir: dir.to_owned(),
            newest: RwLock::new(tables),
            next_id: AtomicU64::new(next_id),
            adding: Mutex::default(),
            listing: Mutex::default(),
            merging: Mutex::default(),
        })
    }

    /// What `read` makes of the value of a key; `None` if the key is not there.
    ///
    /// # Errors
    ///
    /// If a block cannot be read or is damaged.
    pub fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, Error> {
        let hash = KeyHash::of(key);
        let mut read = Some(read);
        for table in &*self.newest() {
            let found = table.find(key, hash, |value| {
                value.and_then(|value| read.take().map(|read| read(value)))
            })?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Entries from `start` on whose keys begin with `prefix`, in their order, as they are now.
    pub fn range(&self, start: &[u8], prefix: &[u8]) -> Range {
        Range {
            tables: Some(self.newest()),
            // No key before the prefix begins with it.
            start: start.max(prefix).to_vec(),
            prefix: prefix.to_vec(),
            merge: Merge::new(Vec::new()),
        }
    }

    /// Adds a table of entries, whose keys ascend and which are newer than all others: values,
    /// or `None` for what is removed. Once it returns they are durable.
    ///
    /// # Errors
    ///
    /// If the table or the list cannot be written. Nothing of it is seen then, but if it was the last
    /// sync that failed, it may be there when the tables are opened again.
    pub fn add<'a>(
        &self,
        entries: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), Error> {
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing older is there that could be removed.
        let is_first = self.newest().is_empty();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut writer = TableWriter::create(path(&self.dir, id), entries.len() as u64)?;
        for (key, value) in entries {
            if value.is_some() || !is_first {
                writer.push(key, value)?;
            }
        }
        self.install(&HashSet::new(), id, writer)
    }

    /// Whether there are so many tables that some must be merged before another one is added.
    pub fn is_crowded(&self) -> bool {
        self.newest().len() >= MANY_TABLES
    }

    /// Bytes of all tables.
    pub fn len_bytes(&self) -> u64 {
        self.newest().iter().map(|table| table.listed().len).sum()
    }

    /// Merges some tables, if there are too many for their sizes, but none of more than
    /// `max_bytes` together, nor of more than half of the free space. Meanwhile it asks now and then
    /// whether to go on. False if there is nothing to do, somebody else merges, or it was stopped.
    ///
    /// # Errors
    ///
    /// If tables cannot be read, or the new one cannot be written. They stay as they were.
    pub fn merge_some(&self, max_bytes: u64, turn: impl FnMut() -> Turn) -> Result<bool, Error> {
        let _merging = match self.merging.try_lock() {
            Ok(merging) => merging,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(false),
        };
        let newest = self.newest();
        let lengths: Vec<_> = newest.iter().map(|table| table.listed().len).collect();
        // What others have to write meanwhile must fit, too.
        let max_bytes = max_bytes.min(self.free_bytes()? / FREE_PART);
        match to_merge(&lengths, max_bytes) {
            0 => Ok(false),
            count => self.merge(&newest[..count], count == newest.len(), turn),
        }
    }

    /// Merges all tables into one, so that what was removed takes no space.
    ///
    /// # Errors
    ///
    /// As [`merge_some`](Self::merge_some).
    pub fn merge_all(&self) -> Result<(), Error> {
        let _merging = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.newest();
        // One alone says nothing of what was removed.
        if newest.len() > 1 {
            self.merge(&newest, true, || Turn::GoOn)?;
        }
        Ok(())
    }

    /// Merges tables that follow each other, the oldest of all among them or not.
    fn merge(
        &self,
        inputs: &[Arc<Table>],
        has_oldest: bool,
        mut turn: impl FnMut() -> Turn,
    ) -> Result<bool, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        // No file has more entries than bytes.
        let entries = inputs.iter().map(|table| table.entries()).sum();
        let mut writer = TableWriter::create(path(&self.dir, id), entries)?;
        let mut merge = Merge::new(cursors(inputs, &[])?);
        let mut bytes = 0;
        while let Some(entry) = merge.next()? {
            let Some(key) = entry.key() else { break };
            // Nothing older is there that could be removed.
            if !(has_oldest && entry.value().is_none()) {
                writer.push(key, entry.value())?;
            }
            bytes += key.len() + entry.value().map_or(0, <[u8]>::len);
            if bytes >= TURN_BYTES {
                bytes = 0;
                if turn() == Turn::Stop {
                    return Ok(false);
                }
            }
        }
        self.install(&inputs.iter().map(|table| table.listed().id).collect(), id, writer)?;
        for table in inputs {
            // Who reads it has it open.
            remove(table.path());
        }
        Ok(true)
    }

    /// Finishes a table, and puts it on the list: in the place of `replaced`, or before all.
    fn install(&self, replaced: &HashSet<u64>, id: u64, writer: TableWriter) -> Result<(), Error> {
        let Some((len, checksum)) = writer.finish()? else {
            return self.replace(replaced, None);
        };
        let new = path(&self.dir, id);
        // What was just written need not be looked at.
        let table = Table::open_unchecked(new.clone(), Listed { id, len, checksum });
        match table {
            Ok(table) => self.replace(replaced, Some(&Arc::new(table))),
            Err(error) => {
                remove(&new);
                Err(error)
            }
        }
    }

    fn replace(&self, replaced: &HashSet<u64>, new: Option<&Arc<Table>>) -> Result<(), Error> {
        let mut unsure = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.newest();
        let is_replaced = |table: &Arc<Table>| replaced.contains(&table.listed().id);
        let place = old.iter().position(is_replaced).unwrap_or_default();
        let (newer, older) = old.split_at(place);
        let older = older.iter().filter(|table| !is_replaced(table));
        let tables: Newest = newer.iter().chain(new).chain(older).cloned().collect();
        let listed: Vec<_> = tables.iter().map(|table| *table.listed()).collect();
        if let Err(error) = list::replace(&self.dir, &listed) {
            if let Some(new) = new {
                remove(new.path());
            }
            return Err(error);
        }
        // IMPORTANT: if this fails, either list may be found after a crash, so that all tables of
        // both must stay.
        if let Err(error) = list::sync(&self.dir) {
            unsure.extend(new.map(|new| new.path().to_owned()));
            return Err(error);
        }
        unsure.drain(..).for_each(|path| remove(&path));
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = tables;
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64, Error> {
        let disk = statvfs(&self.dir).map_err(failed("measure the disk of", &self.dir))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn newest(&self) -> Newest {
        Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How many tables to merge, of those of these lengths, the newest first.
fn to_merge(lengths: &[u64], max_bytes: u64) -> usize {
    if lengths.len() <= FEW_TABLES {
        return 0;
    }
    let (mut newer, mut count) = (0_u64, 0);
    for (number, len) in lengths.iter().enumerate() {
        let together = newer.saturating_add(*len);
        if together > max_bytes {
            break;
        }
        if number > 0 && newer.saturating_mul(MERGED_PART) >= *len {
            count = number + 1;
        }
        newer = together;
    }
    count
}

fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:08}.{EXTENSION}"))
}

fn cursors(tables: &[Arc<Table>], start: &[u8]) -> Result<Vec<Cursor>, Error> {
    tables.iter().map(|table| Cursor::seek(Arc::clone(table), start)).collect()
}

/// Makes a place for tables, of which there are none.
fn make(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(failed("make the directory", dir))?;
    list::replace(dir, &[])?;
    list::sync(dir)?;
    dir.parent().map_or(Ok(()), list::sync)
}

fn is_missing_or_empty(dir: &Path) -> Result<bool, Error> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(unreadable("list the directory", dir)(error)),
    }
}

/// Removes tables that are not listed. An id that no table there has.
fn remove_others(dir: &Path, listed: &[Listed]) -> Result<u64, Error> {
    let used: HashSet<_> = listed.iter().map(|listed| path(dir, listed.id)).collect();
    let mut next_id = 0;
    for entry in fs::read_dir(dir).map_err(failed("list the directory", dir))? {
        let path = entry.map_err(failed("list the directory", dir))?.path();
        if path.extension().is_none_or(|end| end != EXTENSION) {
            continue;
        }
        let id = path.file_stem().and_then(|id| id.to_str()?.parse::<u64>().ok());
        next_id = next_id.max(id.map_or(0, |id| id.saturating_add(1)));
        if !used.contains(&path) {
            remove(&path);
        }
    }
    Ok(next_id)
}

/// Entries of several tables, by [`Tables::range`].
#[derive(Debug)]
pub struct Range {
    /// Until the first entry is asked for.
    tables: Option<Newest>,
    start: Vec<u8>,
    prefix: Vec<u8>,
    merge: Merge,
}

impl Range {
    fn next_entry(&mut self) -> Result<Option<KeyValue>, Error> {
        if let Some(tables) = self.tables.take() {
            self.merge = Merge::new(cursors(&tables, &self.start)?);
        }
        while let Some(entry) = self.merge.next()? {
            match entry.key().filter(|key| key.starts_with(&self.prefix)) {
                Some(key) => {
                    if let Some(value) = entry.value() {
                        return Ok(Some((key.to_vec(), value.to_vec())));
                    }
                }
                None => self.merge = Merge::new(Vec::new()),
            }
        }
        Ok(None)
    }
}

impl Iterator for Range {
    type Item = Result<KeyValue, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.next_entry();
        if entry.is_err() {
            self.merge = Merge::new(Vec::new());
        }
        entry.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_merged_with_those_that_are_not_much_larger() {
        let any = |lengths: &[u64]| to_merge(lengths, u64::MAX);
        assert_eq!(any(&[]), 0);
        assert_eq!(any(&[1, 1, 1, 1]), 0, "so few are left alone");
        assert_eq!(any(&[1, 1, 1, 1, 1]), 5);
        assert_eq!(any(&[1, 4, 16, 64, 256]), 0, "each is much larger than all before");
        assert_eq!(any(&[1, 1, 16, 64, 256]), 2);
        assert_eq!(any(&[1, 1, 3, 10, 30]), 5);
        assert_eq!(any(&[10, 10, 10, 10, 1_000]), 4);
        assert_eq!(to_merge(&[10, 10, 10, 10, 100], 139), 4, "not more than that");
        assert_eq!(to_merge(&[10, 10, 10, 10, 100], 140), 5);
        assert_eq!(to_merge(&[10, 10, 10, 10, 100], 5), 0);
        assert_eq!(any(&[u64::MAX; 5]), 5);
    }

    #[test]
    fn keys_that_do_not_ascend_are_damage() {
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        for (number, keys) in [["b", "a"], ["a", "a"]].into_iter().enumerate() {
            let path = dir.path().join(number.to_string());
            let mut writer = TableWriter::create(path.clone(), 2).expect("created");
            for key in keys {
                writer.push(key.as_bytes(), Some(b"value")).expect("written");
            }
            let (len, checksum) = writer.finish().expect("written").expect("entries");
            let table = Table::open(path, Listed { id: 0, len, checksum }).expect("whole");
            let mut merge = Merge::new(cursors(&[Arc::new(table)], &[]).expect("the first"));
            assert!(merge.next().expect("the first").is_some());
            assert!(matches!(merge.next(), Err(Error::Damaged { .. })), "{keys:?}");
        }
    }
}

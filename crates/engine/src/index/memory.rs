//! Entries that are in no table yet.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use super::entry::{DigestKey, Entry, Key};

/// Size at which a memtable is closed and goes to disk.
const MEMTABLE_BYTES: usize = 8 << 20;

/// Closed memtables that may wait to be written. When there are as many, and the open one is
/// full too, whoever writes waits.
const MAX_WAITING_MEMTABLES: usize = 2;

/// What an entry takes beside its value, about: a key with a digest, its place in the map, and
/// what the allocator adds.
const ENTRY_BYTES: usize = 128;

/// The entries of a part of the keys.
pub(super) struct Part {
    pub(super) entries: Sorted,
    /// The last key of the part, if there may be entries behind it.
    pub(super) end: Option<Box<[u8]>>,
}

/// Entries in the order of their keys.
pub(super) type Sorted = BTreeMap<Box<[u8]>, Slot>;

/// What memory has for a key: its value, or that it was removed, whatever the tables say.
pub(super) type Slot = Option<Box<[u8]>>;

/// Entries in memory.
#[derive(Debug, Default)]
pub(super) struct Memtable {
    /// Almost all of them, and almost all look-ups find nothing: a map without an order takes
    /// one step for that.
    by_digest: HashMap<DigestKey, Slot>,
    /// Those that are gone through in their order, too.
    others: Sorted,
    bytes: usize,
}

impl Memtable {
    fn insert(&mut self, key: Key, value: Slot) {
        self.bytes += ENTRY_BYTES + value.as_ref().map_or(0, |value| value.len());
        match key {
            Key::Digest(key) => self.by_digest.insert(key, value),
            Key::Other(key) => {
                self.bytes += key.len();
                self.others.insert(key, value)
            }
        };
    }

    fn is_empty(&self) -> bool {
        self.by_digest.is_empty() && self.others.is_empty()
    }

    /// All entries in the order of their keys, without a value if they were removed.
    pub(super) fn sorted(&self) -> Vec<(&[u8], Option<&[u8]>)> {
        let by_digest = self.by_digest.iter().map(|(key, value)| (key.as_slice(), value));
        let others = self.others.iter().map(|(key, value)| (&**key, value));
        let entries = by_digest.chain(others);
        let mut entries: Vec<_> = entries.map(|(key, value)| (key, value.as_deref())).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries
    }
}

/// The memtable that is open, and those that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Memory {
    open: Memtable,
    /// The oldest first.
    waiting: VecDeque<Arc<Memtable>>,
}

impl Memory {
    /// Adds entries that belong together: they go into one memtable.
    pub(super) fn insert(&mut self, entries: Vec<Entry>) {
        for (key, value) in entries {
            self.open.insert(key, value);
        }
    }

    /// Whether the open memtable must be closed before more is inserted.
    pub(super) fn is_full(&self) -> bool {
        self.open.bytes >= MEMTABLE_BYTES
    }

    /// Whether another memtable may be closed.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING_MEMTABLES
    }

    /// Whether entries can be inserted, once the open memtable is closed if it must be.
    pub(super) fn takes_update(&self) -> bool {
        !self.is_full() || self.has_room()
    }

    /// Closes the open memtable, and begins another.
    pub(super) fn close_memtable(&mut self) {
        if !self.open.is_empty() {
            self.waiting.push_back(Arc::new(std::mem::take(&mut self.open)));
        }
    }

    /// The memtable that is to be written next.
    pub(super) fn oldest_waiting(&self) -> Option<Arc<Memtable>> {
        self.waiting.front().map(Arc::clone)
    }

    /// Forgets the oldest memtable that waits, once its entries are in a table.
    pub(super) fn forget_oldest(&mut self) {
        self.waiting.pop_front();
    }

    /// What is here for a key, if anything.
    pub(super) fn by_digest(&self, key: &DigestKey) -> Option<&Slot> {
        self.newest_first().find_map(|memtable| memtable.by_digest.get(key))
    }

    /// As [`by_digest`](Self::by_digest), for other keys.
    pub(super) fn other(&self, key: &[u8]) -> Option<&Slot> {
        self.newest_first().find_map(|memtable| memtable.others.get(key))
    }

    /// Entries from `start` on whose keys begin with `prefix`, at most `max` (at least 1) of
    /// each memtable, those that were removed among them. Those with a digest in their key are
    /// not.
    pub(super) fn range(&self, start: &[u8], prefix: &[u8], max: usize) -> Part {
        let (mut found, mut end) = (Sorted::new(), None::<Box<[u8]>>);
        let oldest_first = self.waiting.iter().map(|memtable| &**memtable).chain([&self.open]);
        for memtable in oldest_first {
            let bounds = (Bound::Included(start), Bound::Unbounded);
            let entries = memtable.others.range::<[u8], _>(bounds);
            let mut entries = entries.take_while(|(key, _)| key.starts_with(prefix));
            let mut last = None;
            for (key, value) in entries.by_ref().take(max) {
                found.insert(key.clone(), value.clone());
                last = Some(key);
            }
            if entries.next().is_some()
                && let Some(last) = last
                && end.as_ref().is_none_or(|end| last < end)
            {
                end = Some(last.clone());
            }
        }
        if let Some(end) = &end {
            found.retain(|key, _| key <= end);
        }
        Part { entries: found, end }
    }

    fn newest_first(&self) -> impl Iterator<Item = &Memtable> {
        let waiting = self.waiting.iter().rev().map(|memtable| &**memtable);
        std::iter::once(&self.open).chain(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(key: &[u8], value: &[u8]) -> Entry {
        (Key::Other(key.into()), Some(value.into()))
    }

    #[test]
    fn the_newest_wins_wherever_it_is() {
        let mut memory = Memory::default();
        let digest = [7; 33];
        for round in 0..3 {
            memory.insert(vec![other(b"k", &[round]), (Key::Digest(digest), Some([round].into()))]);
            assert_eq!(memory.other(b"k"), Some(&Some([round].into())));
            assert_eq!(memory.by_digest(&digest), Some(&Some([round].into())));
            assert_eq!(memory.range(b"", b"", 9).entries[&b"k"[..]], Some([round].into()));
            memory.close_memtable();
        }
        assert!(!memory.has_room());
        memory.forget_oldest();
        assert_eq!(memory.other(b"k"), Some(&Some([2].into())));
        memory.insert(vec![(Key::Digest(digest), None)]);
        assert_eq!(memory.by_digest(&digest), Some(&None), "removed, whatever was before");
        assert_eq!(memory.by_digest(&[8; 33]), None, "nothing is known of it");
    }

    #[test]
    fn what_goes_to_a_table_is_sorted() {
        let mut memory = Memory::default();
        memory.insert(vec![
            (Key::Digest([b'c'; 33]), Some([1].into())),
            other(b"z", &[2]),
            other(b"a", &[3]),
            (Key::Digest([b'b'; 33]), Some([4].into())),
        ]);
        memory.close_memtable();
        let memtable = memory.oldest_waiting().expect("it was closed");
        let sorted = memtable.sorted();
        let values: Vec<_> = sorted.iter().map(|(_, value)| value.map(|value| value[0])).collect();
        assert_eq!(values, [3, 4, 1, 2].map(Some));
    }

    #[test]
    fn a_range_ends_with_its_prefix() {
        let mut memory = Memory::default();
        memory.insert(vec![other(b"a1", &[]), other(b"a2", &[]), other(b"b1", &[])]);
        let part = memory.range(b"a2", b"a", 9);
        assert_eq!((part.entries.len(), part.end), (1, None));
    }

    #[test]
    fn a_part_has_all_entries_up_to_its_end() {
        let mut memory = Memory::default();
        memory.insert(vec![other(b"1", b"old"), other(b"4", &[]), other(b"6", &[])]);
        memory.close_memtable();
        memory.insert(vec![other(b"1", b"new"), other(b"2", &[]), other(b"3", &[])]);
        let keys = |max| {
            let part = memory.range(b"", b"", max);
            let keys: Vec<_> = part.entries.keys().map(|key| key[0]).collect();
            (String::from_utf8(keys).expect("digits"), part.end.map(|end| end[0]))
        };
        assert_eq!(keys(1), ("1".to_owned(), Some(b'1')));
        assert_eq!(keys(2), ("12".to_owned(), Some(b'2')));
        assert_eq!(keys(3), ("12346".to_owned(), None));
        assert_eq!(memory.range(b"", b"", 1).entries[&b"1"[..]], Some(b"new".as_slice().into()));
    }
}

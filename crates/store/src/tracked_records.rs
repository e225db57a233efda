//! Records that tell whether they were written since, so that what is made of them can be
//! kept for as long as it would be made the same.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use granary_castore::{RecordKind, RecordStore, RecordWrite, Result, WriteBatch};

/// How many generations there are, 16 bytes each. Records share them by the hash of their key:
/// a write makes what was made of another record with the same generation look changed, too,
/// which costs time and nothing else.
const GENERATIONS: usize = 16 << 10;

/// Records, with generations that every write changes.
///
/// IMPORTANT: all writes go through here. This has the only handle to the records that a
/// [`Store`](crate::Store) has, so that none of it can forget to.
pub(crate) struct TrackedRecords {
    records: Arc<dyn RecordStore>,
    generations: Box<[Generation]>,
    hasher: RandomState,
}

/// How often the records that share this were written.
#[derive(Default)]
struct Generation {
    /// Writes that have begun. Never below `ended`.
    begun: AtomicU64,
    /// Writes that have ended, well or not.
    ended: AtomicU64,
}

impl Generation {
    /// The writes so far; `None` while one is under way.
    fn settled(&self) -> Option<u64> {
        // In this order: if no more have begun than had ended before, none was under way.
        let ended = self.ended.load(Ordering::Acquire);
        (self.begun.load(Ordering::Acquire) == ended).then_some(ended)
    }
}

/// What an answer of a [`Store`](crate::Store) was made of: the records that were looked up
/// for it, found or not, as they were then. [`Store::is_current`](crate::Store::is_current)
/// tells whether they still are, and with them the answer.
///
/// It says nothing of blobs and directories: what is damaged or lost there, behind the
/// records, shows when it is read.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// The generations of the records, with their numbers.
    generations: Vec<(usize, u64)>,
    /// False if a record was being written while it was looked up.
    is_settled: bool,
}

impl Provenance {
    pub(crate) const fn new() -> Self {
        Self { generations: Vec::new(), is_settled: true }
    }

    /// About what it takes in memory, in bytes.
    pub const fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.generations.capacity() * size_of::<(usize, u64)>()
    }
}

impl TrackedRecords {
    pub(crate) fn new(records: Arc<dyn RecordStore>) -> Self {
        let generations = std::iter::repeat_with(Generation::default).take(GENERATIONS).collect();
        Self { records, generations, hasher: RandomState::new() }
    }

    /// Looks a record up, and notes it in `provenance`.
    pub(crate) fn noted_record(
        &self,
        kind: RecordKind,
        key: &[u8],
        provenance: &mut Provenance,
    ) -> Result<Option<Bytes>> {
        let number = self.number(kind, key);
        // IMPORTANT: before the record is read. A write that comes between must be one that
        // the answer does not know of.
        match self.generations[number].settled() {
            Some(generation) => provenance.generations.push((number, generation)),
            None => provenance.is_settled = false,
        }
        self.records.record(kind, key)
    }

    /// Whether no write to the records of `provenance` has begun since they were looked up.
    pub(crate) fn is_current(&self, provenance: &Provenance) -> bool {
        let is_same = |&(number, generation): &(usize, u64)| {
            self.generations[number].begun.load(Ordering::Acquire) == generation
        };
        provenance.is_settled && provenance.generations.iter().all(is_same)
    }

    /// Writes by `write`, and changes the generations of what is written.
    fn tracked(
        &self,
        writes: Vec<RecordWrite>,
        write: impl FnOnce(Vec<RecordWrite>) -> Result<()>,
    ) -> Result<()> {
        let numbers: Vec<_> =
            writes.iter().map(|write| self.number(write.kind, &write.key)).collect();
        // IMPORTANT: before and after. What was made before is not current once somebody may
        // have seen the new records; what is made meanwhile, of old records perhaps, never is.
        // A write that panics does not end, and so nothing that shares its generation is
        // current any more: slower, but right.
        for number in &numbers {
            self.generations[*number].begun.fetch_add(1, Ordering::AcqRel);
        }
        let written = write(writes);
        for number in &numbers {
            self.generations[*number].ended.fetch_add(1, Ordering::AcqRel);
        }
        written
    }

    fn number(&self, kind: RecordKind, key: &[u8]) -> usize {
        let hash = self.hasher.hash_one((kind, key));
        usize::try_from(hash % GENERATIONS as u64).expect("below the number of generations")
    }
}

impl RecordStore for TrackedRecords {
    fn record(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Bytes>> {
        self.records.record(kind, key)
    }

    fn write_records(&self, writes: Vec<RecordWrite>) -> Result<()> {
        self.tracked(writes, |writes| self.records.write_records(writes))
    }

    fn commit_with_records(
        &self,
        batch: Box<dyn WriteBatch>,
        writes: Vec<RecordWrite>,
    ) -> Result<()> {
        self.tracked(writes, |writes| self.records.commit_with_records(batch, writes))
    }

    fn scan_records(
        &self,
        kind: RecordKind,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        self.records.scan_records(kind, after, limit)
    }
}

#[cfg(test)]
mod tests {
    use granary_castore::{Castore as _, MemoryStore};

    use super::*;
    use crate::kinds;

    #[test]
    fn what_was_made_of_a_record_is_not_current_once_it_is_written() {
        let memory = MemoryStore::default();
        let records = TrackedRecords::new(Arc::new(memory.clone()));
        let write = || RecordWrite { kind: kinds::PATH_INFO, key: "key".into(), value: None };
        let ways: [&dyn Fn() -> Result<()>; 2] =
            [&|| records.write_records(vec![write()]), &|| {
                records.commit_with_records(memory.batch()?, vec![write()])
            }];
        for write in ways {
            let mut provenance = Provenance::new();
            records.noted_record(kinds::PATH_INFO, b"key", &mut provenance).expect("memory");
            assert!(records.is_current(&provenance));
            write().expect("memory");
            assert!(!records.is_current(&provenance));
        }
    }
}

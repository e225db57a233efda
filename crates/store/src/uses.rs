//! When paths were used last, and which are being removed.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use granary_castore::{RecordStore, RecordWrite, Result};
use granary_nix_formats::StorePathHash;
use serde::{Deserialize, Serialize};

use crate::{kinds, record_value};

/// How old the last use on record may be before it is written anew, in seconds: a path that is
/// used all the time costs a record an hour.
const RESOLUTION_S: u64 = 60 * 60;

/// Most uses that wait to be written. When there are more, new ones are not noted: of last uses
/// alone some may be lost.
const MAX_WAITING_USES: usize = 65_536;

/// Uses that are written together.
const WRITTEN_TOGETHER: usize = 5_000;

/// Uses that were not written yet, and what garbage collection needs to know of them.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// In seconds since 1970.
    waiting: HashMap<StorePathHash, u64>,
    /// What was used since somebody began to decide what goes; `None` if nobody does.
    watched: Option<HashSet<StorePathHash>>,
    /// What is being removed.
    going: HashSet<StorePathHash>,
}

#[derive(Serialize, Deserialize)]
struct UseRecord {
    used_unix_s: u64,
}

impl Uses {
    /// Notes that a path is used now. False if it is being removed: then it counts as not stored.
    pub(crate) fn note(&self, hash: &StorePathHash) -> bool {
        let mut state = self.lock();
        if state.going.contains(hash) {
            return false;
        }
        if let Some(watched) = &mut state.watched {
            watched.insert(*hash);
        }
        if state.waiting.len() < MAX_WAITING_USES || state.waiting.contains_key(hash) {
            state.waiting.insert(*hash, unix_now_s());
        }
        true
    }

    /// Forgets a use of what turned out not to be stored: else those who ask for what is not here
    /// would leave no room for real uses.
    ///
    /// IMPORTANT: who watches goes on knowing of it. The path may have come since it was looked
    /// up, and whoever brought it relies on having been seen.
    pub(crate) fn forget(&self, hash: &StorePathHash) {
        self.lock().waiting.remove(hash);
    }

    /// Writes what was noted, as far as the uses on record are much older.
    pub(crate) fn flush(&self, records: &dyn RecordStore) -> Result<()> {
        let waiting = std::mem::take(&mut self.lock().waiting);
        let mut writes = Vec::new();
        for (hash, used_unix_s) in waiting {
            let last = last_use(records, &hash)?;
            // What was removed meanwhile must not leave a record behind.
            if last.is_some_and(|last| last.saturating_add(RESOLUTION_S) <= used_unix_s) {
                writes.push(write(&hash, used_unix_s));
            }
            if writes.len() == WRITTEN_TOGETHER {
                records.write_records(std::mem::take(&mut writes))?;
            }
        }
        if writes.is_empty() { Ok(()) } else { records.write_records(writes) }
    }

    /// From now on, and until [`unwatch`](Self::unwatch), it is known what was used.
    pub(crate) fn watch(&self) {
        self.lock().watched = Some(HashSet::new());
    }

    /// Ends [`watch`](Self::watch).
    pub(crate) fn unwatch(&self) {
        self.lock().watched = None;
    }

    /// Announces that paths are removed, but for those that were used since
    /// [`watch`](Self::watch), which are returned.
    pub(crate) fn begin_removal(&self, hashes: &[StorePathHash]) -> HashSet<StorePathHash> {
        let mut state = self.lock();
        let State { watched, going, .. } = &mut *state;
        let is_used =
            |hash: &&StorePathHash| watched.as_ref().is_some_and(|watched| watched.contains(hash));
        let used: HashSet<_> = hashes.iter().filter(is_used).copied().collect();
        going.extend(hashes.iter().filter(|hash| !used.contains(hash)));
        used
    }

    /// They are gone, or it failed. One removal follows the other, see
    /// [`Store::removing`](crate::Store::removing).
    pub(crate) fn end_removal(&self) {
        let mut state = self.lock();
        let going = std::mem::take(&mut state.going);
        state.waiting.retain(|hash, _| !going.contains(hash));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The write that notes a use.
pub(crate) fn write(hash: &StorePathHash, used_unix_s: u64) -> RecordWrite {
    RecordWrite {
        kind: kinds::LAST_USE,
        key: Bytes::copy_from_slice(hash.as_bytes()),
        value: Some(record_value::encode(&UseRecord { used_unix_s })),
    }
}

/// When a path was used last, as far as that is on record.
pub(crate) fn last_use(records: &dyn RecordStore, hash: &StorePathHash) -> Result<Option<u64>> {
    let value = records.record(kinds::LAST_USE, hash.as_bytes())?;
    value.map(|value| decode(&value)).transpose()
}

/// What a record says.
pub(crate) fn decode(value: &[u8]) -> Result<u64> {
    let record: UseRecord = record_value::decode(|| "the record of a last use".into(), value)?;
    Ok(record.used_unix_s)
}

pub(crate) fn unix_now_s() -> u64 {
    // A clock before 1970 is as good as 1970: the times are only compared with each other.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use granary_castore::MemoryStore;

    use super::*;

    fn hash(byte: u8) -> StorePathHash {
        StorePathHash::from_bytes([byte; 20])
    }

    #[test]
    fn a_use_is_written_if_the_last_is_an_hour_old() {
        let (memory, uses) = (MemoryStore::default(), Uses::default());
        let now = unix_now_s();
        for (byte, last) in [(1, now - RESOLUTION_S - 9), (2, now - RESOLUTION_S / 2)] {
            memory.write_records(vec![write(&hash(byte), last)]).expect("memory");
        }
        for byte in 1..4 {
            assert!(uses.note(&hash(byte)));
        }
        uses.flush(&memory).expect("memory");
        assert!(last_use(&memory, &hash(1)).expect("memory").is_some_and(|last| last >= now));
        assert_eq!(last_use(&memory, &hash(2)).expect("memory"), Some(now - RESOLUTION_S / 2));
        assert_eq!(last_use(&memory, &hash(3)).expect("memory"), None, "it is not stored");
    }

    #[test]
    fn what_is_used_does_not_go_and_what_goes_is_not_used() {
        let uses = Uses::default();
        uses.note(&hash(1));
        uses.watch();
        uses.note(&hash(2));
        let used = uses.begin_removal(&[hash(1), hash(2), hash(3)]);
        assert_eq!(used, HashSet::from([hash(2)]), "since it was watched");
        assert!(uses.note(&hash(2)) && !uses.note(&hash(1)) && !uses.note(&hash(3)));
        uses.end_removal();
        assert!(uses.note(&hash(3)), "it may come again");
        uses.unwatch();
        assert!(uses.begin_removal(&[hash(2)]).is_empty(), "nobody watches");
    }

    #[test]
    fn what_is_not_stored_is_forgotten() {
        let uses = Uses::default();
        uses.watch();
        assert!(uses.note(&hash(1)));
        uses.forget(&hash(1));
        assert!(uses.lock().waiting.is_empty());
        // It was put between the look-up of somebody else and this.
        assert_eq!(uses.begin_removal(&[hash(1)]), HashSet::from([hash(1)]));
    }

    #[test]
    fn the_uses_that_wait_are_bounded() {
        let uses = Uses::default();
        for number in 0..=MAX_WAITING_USES as u64 {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            uses.note(&StorePathHash::from_bytes(bytes));
        }
        assert_eq!(uses.lock().waiting.len(), MAX_WAITING_USES);
    }

    #[test]
    fn golden_value() {
        let value = write(&hash(1), 7).value.expect("a value");
        assert_eq!(&value[..], br#"{"v":1,"used_unix_s":7}"#);
    }
}

//! What writers and the collector agree on: which objects may be relied on, and which may go.
//!
//! This is a state machine without any input or output. [`guard`](super::guard) puts a lock
//! around it, the log and the batches tell it what they find, the collector what it marks. The
//! tests at the end drive it, and a store in memory, through random interleavings.
//!
//! # The protocol
//!
//! Whoever writes is an *operation*, from before its first look-up until what it wrote is reached
//! from a record. An operation *touches* each object that it writes or finds to be stored. The
//! collector takes objects of *old* packs only: those that were closed when it began. It
//!
//! 1. begins to mark: from now on a touched object is marked at once, and is *grey* until what it
//!    refers to is marked too;
//! 2. marks whatever roots lead to, and whatever was touched before by an operation that was
//!    running when marking began;
//! 3. condemns: once nothing is grey, in one step, all objects of old packs that are not marked
//!    count as not stored. An operation that looks for one is told that it is not there, and
//!    writes it anew, to a pack that is not old;
//! 4. sweeps: condemned objects leave the index, what is left of old packs moves on, and old
//!    packs go.
//!
//! # Invariants
//!
//! - What an operation was told to be stored, or wrote, stays at least until it ends.
//! - Once objects are condemned, whatever a marked object refers to is marked, as far as it is
//!   stored; and nothing that is not marked is marked any more.

use std::collections::{BTreeSet, HashSet};

use twox_hash::XxHash3_64;

use crate::{format::ObjectKind, object_key::ObjectKey};

/// Slots of the table of touched objects, 4 bytes each. Objects share them by their hash: one
/// that was not touched may then look as if it was, and stays longer.
const TOUCH_SLOTS: usize = 1 << 20;

/// Slots of the table of objects that clients were told of, 1 byte each, shared likewise.
const TOLD_SLOTS: usize = 1 << 22;

/// Hours that a slot can tell apart; 0 is for never.
const TOLD_HOURS: u64 = 255;

/// How long a client may rely on having been told that an object is stored, in hours. One is
/// added, since hours are told apart and minutes are not.
const TOLD_LEASE_HOURS: u64 = 24 + 1;

/// Names an operation. Later ones have greater numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Operation(u32);

/// For how long an object that was found is relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reliance {
    /// Until the operation ends.
    Operation,
    /// For the time of a lease that begins in this hour, counted from wherever.
    Told { hour: u64 },
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Protocol {
    /// Of the hashes of keys, so that nobody can choose objects that share a slot.
    seed: u64,
    /// Number of the operation that begins next; 0 is for none.
    next: u32,
    running: BTreeSet<u32>,
    /// By slot, the newest operation there was when an object of it was touched last. Empty
    /// before the first.
    touched: Vec<u32>,
    /// By slot, the hour in which a client was told of an object of it last, from 1 on. Empty
    /// before the first.
    told: Vec<u8>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Marking {
        collected: Collected,
        /// The oldest operation that ran when marking began.
        since: u32,
        /// Marked, and what they refer to is not.
        grey: Vec<ObjectKey>,
    },
    Sweeping(Collected),
}

/// What a collection is about.
#[derive(Debug)]
struct Collected {
    /// Packs with smaller handles are old.
    boundary: u32,
    marks: HashSet<Mark, BuildNoHasher>,
}

/// Stands for an object that is marked: half of its digest, and what class of objects it is one
/// of. Were two objects to share one, what the second refers to would not be marked, so it is too
/// long for that to happen.
type Mark = u128;

/// The collector asks for something out of turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a collection is under way")]
pub(crate) struct UnderWay;

/// Marks are as good as hashes already.
type BuildNoHasher = std::hash::BuildHasherDefault<NoHasher>;

#[derive(Debug, Default)]
pub(crate) struct NoHasher(u64);

impl std::hash::Hasher for NoHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
    fn write_u128(&mut self, mark: u128) {
        self.0 = (mark >> 64) as u64 ^ mark as u64;
    }
}

impl Protocol {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            next: 1,
            running: BTreeSet::new(),
            touched: Vec::new(),
            told: Vec::new(),
            phase: Phase::Idle,
        }
    }

    /// An operation begins.
    pub(crate) fn begin(&mut self) -> Operation {
        if self.next == u32::MAX {
            // Once in four thousand million operations. Those that still run keep their places.
            self.renumber();
        }
        let operation = Operation(self.next);
        self.next += 1;
        self.running.insert(operation.0);
        operation
    }

    /// An operation has ended, well or not.
    pub(crate) fn end(&mut self, operation: Operation) {
        self.running.remove(&operation.0);
    }

    /// Begins anew with the numbers: whatever was touched counts as touched by everybody who runs.
    fn renumber(&mut self) {
        self.touched.fill(1);
        self.running = self.running.iter().map(|_| 1).collect();
        if let Phase::Marking { since, .. } = &mut self.phase {
            *since = 1;
        }
        self.next = 2;
    }

    /// An object was written, or was found in the pack with this handle; `None` if it is on its
    /// way to one. False if it may not be relied on: then it counts as not stored.
    pub(crate) fn touch(&mut self, key: &ObjectKey, pack: Option<u32>, reliance: Reliance) -> bool {
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Marking { collected, grey, .. } => {
                let is_old = pack.is_none_or(|pack| pack < collected.boundary);
                // What a new object refers to was touched by whoever wrote it.
                if is_old && collected.marks.insert(mark(key)) {
                    grey.push(*key);
                }
            }
            Phase::Sweeping(collected) => {
                if collected.is_condemned(key, pack) {
                    return false;
                }
            }
        }
        let hash = self.hash(key);
        match reliance {
            Reliance::Operation => {
                if self.touched.is_empty() {
                    self.touched = vec![0; TOUCH_SLOTS];
                }
                self.touched[slot(hash, TOUCH_SLOTS)] = self.next - 1;
            }
            Reliance::Told { hour } => {
                if self.told.is_empty() {
                    self.told = vec![0; TOLD_SLOTS];
                }
                self.told[slot(hash, TOLD_SLOTS)] = told_hour(hour);
            }
        }
        true
    }

    /// Whether an object that lies in a pack counts as not stored.
    pub(crate) fn is_condemned(&self, key: &ObjectKey, pack: u32) -> bool {
        match &self.phase {
            Phase::Idle | Phase::Marking { .. } => false,
            Phase::Sweeping(collected) => collected.is_condemned(key, Some(pack)),
        }
    }

    /// Whether objects are condemned, so that it must be asked about each.
    pub(crate) fn is_sweeping(&self) -> bool {
        matches!(self.phase, Phase::Sweeping(_))
    }

    /// A collection begins to mark. Packs with handles below `boundary` are old.
    pub(crate) fn start_marking(&mut self, boundary: u32) -> Result<(), UnderWay> {
        if !matches!(self.phase, Phase::Idle) {
            return Err(UnderWay);
        }
        let since = self.running.first().copied().unwrap_or(self.next);
        let collected = Collected { boundary, marks: HashSet::default() };
        self.phase = Phase::Marking { collected, since, grey: Vec::new() };
        Ok(())
    }

    /// Marks an object; false if it was marked. What it refers to is the caller's business.
    pub(crate) fn mark(&mut self, key: &ObjectKey) -> bool {
        match &mut self.phase {
            Phase::Marking { collected, .. } => collected.marks.insert(mark(key)),
            Phase::Idle | Phase::Sweeping(_) => false,
        }
    }

    /// Whether an object is marked.
    pub(crate) fn is_marked(&self, key: &ObjectKey) -> bool {
        match &self.phase {
            Phase::Idle => false,
            Phase::Marking { collected, .. } | Phase::Sweeping(collected) => {
                collected.marks.contains(&mark(key))
            }
        }
    }

    /// Whether an object was touched by an operation that ran when marking began, or may have
    /// been, or a client was told of it: then it must be marked. `hour` is the one that it is.
    pub(crate) fn is_relied_on(&self, key: &ObjectKey, hour: u64) -> bool {
        let Phase::Marking { since, .. } = &self.phase else { return false };
        let hash = self.hash(key);
        let touched = self.touched.get(slot(hash, TOUCH_SLOTS));
        let told = self.told.get(slot(hash, TOLD_SLOTS)).copied().unwrap_or(0);
        let age_hours = (TOLD_HOURS + u64::from(told_hour(hour)) - u64::from(told)) % TOLD_HOURS;
        touched.is_some_and(|touched| touched >= since) || told != 0 && age_hours < TOLD_LEASE_HOURS
    }

    /// Whether there may be anything that is relied on.
    pub(crate) fn is_anything_relied_on(&self) -> bool {
        match &self.phase {
            Phase::Marking { since, .. } => *since < self.next || !self.told.is_empty(),
            Phase::Idle | Phase::Sweeping(_) => false,
        }
    }

    /// What was touched while marking, and refers to things that may not be marked.
    pub(crate) fn take_grey(&mut self) -> Vec<ObjectKey> {
        match &mut self.phase {
            Phase::Marking { grey, .. } => std::mem::take(grey),
            Phase::Idle | Phase::Sweeping(_) => Vec::new(),
        }
    }

    /// Condemns whatever is not marked, if nothing is grey. False if something is.
    pub(crate) fn condemn(&mut self) -> bool {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Marking { collected, grey, .. } if grey.is_empty() => {
                self.phase = Phase::Sweeping(collected);
                true
            }
            Phase::Sweeping(collected) => {
                self.phase = Phase::Sweeping(collected);
                true
            }
            phase => {
                self.phase = phase;
                false
            }
        }
    }

    /// The collection has ended: nothing that was condemned is in the index any more, or nothing
    /// was condemned.
    pub(crate) fn finish(&mut self) {
        self.phase = Phase::Idle;
    }

    fn hash(&self, key: &ObjectKey) -> u64 {
        XxHash3_64::oneshot_with_seed(self.seed ^ class(key), key.digest())
    }
}

/// Tells objects apart that may have the same digest, but for a blob and the chunk of the same
/// bytes: who wants one wants the other.
fn class(key: &ObjectKey) -> u64 {
    match key {
        ObjectKey::Blob(_) | ObjectKey::Object(ObjectKind::Chunk, _) => 0,
        ObjectKey::Object(ObjectKind::Directory, _) => 1,
        ObjectKey::Object(ObjectKind::ChunkList, _) => 2,
        ObjectKey::Object(_, _) => 3,
    }
}

fn mark(key: &ObjectKey) -> Mark {
    let half = key.digest().first_chunk().expect("a digest has 32 bytes");
    u128::from_le_bytes(*half) ^ u128::from(class(key))
}

impl Collected {
    fn is_condemned(&self, key: &ObjectKey, pack: Option<u32>) -> bool {
        pack.is_some_and(|pack| pack < self.boundary) && !self.marks.contains(&mark(key))
    }
}

fn slot(hash: u64, slots: usize) -> usize {
    usize::try_from(hash % slots as u64).expect("below the number of slots")
}

/// An hour as a slot has it.
fn told_hour(hour: u64) -> u8 {
    u8::try_from(hour % TOLD_HOURS).map_or(0, |hour| hour) + 1
}

//! Garbage collection: what nobody wants any more goes.
//!
//! Who decides what is wanted is not who knows how it is stored. The former begins a
//! [`Collection`], names every [`Root`] that is wanted, and has the latter do away with the
//! rest. Reading and writing go on meanwhile.

use std::{any::Any, fmt};

use crate::{error::Result, root::Root};

/// Keeps what an operation relies on from being collected: what it wrote, was told to be stored
/// already, or [touched](crate::Castore::touch), from the moment the hold was taken until it is
/// dropped.
///
/// To be taken before the first look at what is stored, and dropped when a record leads to it.
#[must_use = "dropped at once it keeps nothing"]
pub struct Hold(Option<Box<dyn Any + Send + Sync>>);

impl Hold {
    /// One of a store that never collects, or elsewhere.
    pub const fn none() -> Self {
        Self(None)
    }

    /// One that lasts until `guard` is dropped.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Self(Some(Box::new(guard)))
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(&self.0.is_some()).finish()
    }
}

/// A store that can do away with what is not wanted.
pub trait Collector: Send + Sync {
    /// Begins a collection. From now on, whatever is written, touched or found by a writer
    /// counts as wanted, until the collection has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`](crate::Error::Unavailable) if one is under way.
    fn begin_collection(&self, kind: CollectionKind) -> Result<Box<dyn Collection>>;
}

/// What a collection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollectionKind {
    /// To say what would go. It must not [condemn](Collection::condemn) anything.
    Survey,
    /// To do away with what is not wanted.
    Sweep,
}

/// A collection under way. Dropping it ends it: nothing more goes.
pub trait Collection: Send {
    /// Says that `root` is wanted, and returns how many bytes on disk are wanted for that, which
    /// were not before. Whatever of it is not stored counts for nothing.
    ///
    /// # Errors
    ///
    /// If something of it is damaged, so that nobody knows what lies below.
    fn keep(&mut self, root: &Root) -> Result<u64>;

    /// How many bytes on disk `root` has that are neither wanted nor were weighed before, in this
    /// collection. What is damaged counts for nothing.
    ///
    /// # Errors
    ///
    /// If the store cannot tell.
    fn weigh(&mut self, root: &Root) -> Result<u64>;

    /// Forgets what was weighed, so that it counts again.
    fn weigh_anew(&mut self);

    /// Ends the naming of roots: whatever is not wanted now counts as not stored.
    ///
    /// # Errors
    ///
    /// If what writers have found meanwhile cannot be read; nothing goes then.
    /// [`Error::Invalid`](crate::Error::Invalid) if it is a [survey](CollectionKind::Survey).
    fn condemn(&mut self) -> Result<()>;

    /// Whether `root` is stored and stays: it is wanted, or was written since the rest was
    /// [condemned](Self::condemn). Only then.
    ///
    /// # Errors
    ///
    /// If the store cannot tell.
    fn is_kept(&self, root: &Root) -> Result<bool>;

    /// How much of the store is not wanted, without doing anything about it.
    ///
    /// # Errors
    ///
    /// If the store cannot tell.
    fn survey(&mut self) -> Result<Survey>;

    /// Does away with what was [condemned](Self::condemn), which it does first if it was not
    /// done, and returns once the space is free.
    ///
    /// # Errors
    ///
    /// If that fails. What is wanted is there all the same, and the next collection goes on.
    fn sweep(&mut self, options: &SweepOptions<'_>) -> Result<Swept>;
}

/// How much of a store is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Survey {
    /// Bytes on disk.
    pub stored_bytes: u64,
    /// Of them, bytes that are not wanted.
    pub unused_bytes: u64,
    /// Blobs, directories and parts of them that are not wanted.
    pub unused_objects: u64,
}

/// How space is made.
#[derive(Clone, Copy)]
pub struct SweepOptions<'a> {
    /// What may stay unused, in thousandths of the whole: making less of it costs copying more.
    pub max_unused_permille: u32,
    /// Bytes read and written per second, at most; as fast as it goes if none.
    pub bytes_per_s: Option<u64>,
    /// Is told how far it has come.
    pub observer: &'a dyn CollectionObserver,
}

/// Is told how far a collection has come.
pub trait CollectionObserver: Send + Sync {
    /// Of `total` packs, or whatever a store keeps its contents in, `done` were looked at.
    fn surveyed(&self, _done: u64, _total: u64) {}

    /// Of `total` bytes that are to be copied to make space, `done` were.
    fn copied(&self, _done_bytes: u64, _total_bytes: u64) {}
}

/// Tells nobody.
impl CollectionObserver for () {}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Bytes on disk before.
    pub stored_bytes_before: u64,
    /// Bytes on disk after.
    pub stored_bytes_after: u64,
    /// Bytes that are unused and were left, see [`SweepOptions::max_unused_permille`].
    pub unused_bytes_after: u64,
    /// Blobs, directories and parts of them that went.
    pub removed_objects: u64,
    /// Bytes that were copied to make space.
    pub copied_bytes: u64,
    /// Packs that were removed.
    pub removed_packs: u64,
    /// Packs that were left alone because they are damaged.
    pub damaged_packs: u64,
}

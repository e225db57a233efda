//! The thread that writes memtables to tables, and merges tables.
//!
//! Memtables are written in the order in which they were closed, each whole or not at all, so
//! that the tables always hold what was applied up to some update, with the watermark of that
//! update.
//!
//! A run may be too short for a large merger. So at its begin and its end only such tables are merged
//! as are small together; else many short runs would leave many tables, or begin the same merger again
//! and again.
//!
//! A memtable that cannot be written stays, and is tried again when the next is closed or
//! somebody waits. Only when no more may wait does an update fail.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock},
    thread::JoinHandle,
};

use granary_castore::Chain;
use granary_tables::Turn;

use super::{error::IndexError, memory::Memory, tables::Tables};

/// Tables of so many bytes together, or of a part of the whole index if that is more, are merged even
/// if a run is short, which would else leave one more each time. 128 MiB take a second.
const SHORT_MERGER_BYTES: u64 = 128 << 20;
const SHORT_MERGER_PART: u64 = 8;

/// Ends the thread when it is dropped, after what it is doing.
pub(super) struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    memory: Arc<RwLock<Memory>>,
    tables: Arc<Tables>,
    progress: Mutex<Progress>,
    /// Whenever `progress` changes, or a memtable was written.
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// How often it was asked for to write what waits.
    requested: u64,
    /// The last request whose sender waits until it was followed.
    awaited: u64,
    /// The last request that was followed.
    followed: u64,
    /// Why that failed, if it did.
    failure: Option<IndexError>,
    is_stopping: bool,
    has_ended: bool,
}

impl Flusher {
    pub(super) fn start(
        memory: Arc<RwLock<Memory>>,
        tables: Arc<Tables>,
    ) -> Result<Self, IndexError> {
        let (progress, changed) = Default::default();
        let shared = Arc::new(Shared { memory, tables, progress, changed });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("granary-index".to_owned())
            .spawn(move || of_thread.run())
            .map_err(|cause| IndexError::Thread(Arc::new(cause)))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Asks for what waits to be written, soon.
    pub(super) fn wake(&self) {
        self.shared.request();
    }

    /// Waits until all that waits now is written.
    pub(super) fn flush(&self) -> Result<(), IndexError> {
        let request = self.shared.request();
        self.shared.progress().awaited = request;
        self.shared.wait(request, || false)
    }

    /// Waits until another memtable may be closed.
    pub(super) fn make_room(&self) -> Result<(), IndexError> {
        let request = self.shared.request();
        self.shared.wait(request, || self.shared.has_room())
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.progress().is_stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the index panicked");
        }
    }
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self) -> bool {
        self.memory.read().unwrap_or_else(PoisonError::into_inner).has_room()
    }

    fn request(&self) -> u64 {
        let mut progress = self.progress();
        progress.requested += 1;
        self.changed.notify_all();
        progress.requested
    }

    /// Waits until a request was followed, or `is_enough`.
    fn wait(&self, request: u64, is_enough: impl Fn() -> bool) -> Result<(), IndexError> {
        let mut progress = self.progress();
        loop {
            if is_enough() {
                return Ok(());
            }
            if progress.followed >= request {
                return progress.failure.clone().map_or(Ok(()), Err);
            }
            if progress.has_ended {
                return Err(IndexError::Ended);
            }
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run(&self) {
        let _end = End(self);
        let mut max_merger = u64::MAX;
        while let Some(request) = self.next_request() {
            if self.tables.is_crowded() {
                self.merge(&mut max_merger);
            }
            let tables = self.tables.len_bytes();
            if self.follow(request).is_ok() {
                if self.tables.len_bytes() == tables {
                    // The run may be a short one, and end before a large merger does.
                    self.merge(&mut self.short_merger().min(max_merger));
                } else {
                    self.merge(&mut max_merger);
                }
            }
        }
        // Larger mergers are left to runs that are long enough.
        self.merge(&mut self.short_merger().min(max_merger));
    }

    /// Bytes of the tables that may be merged in a short run.
    fn short_merger(&self) -> u64 {
        SHORT_MERGER_BYTES.max(self.tables.len_bytes() / SHORT_MERGER_PART)
    }

    /// Follows a request.
    fn follow(&self, request: u64) -> Result<(), IndexError> {
        let result = self.write_waiting();
        if let Err(error) = &result {
            tracing::error!(
                error = %Chain(error),
                "the index cannot be written; it stays in memory and is tried again"
            );
        }
        let mut progress = self.progress();
        progress.followed = request;
        progress.failure = result.clone().err();
        self.changed.notify_all();
        result
    }

    /// The newest request, once there is one that was not followed; `None` at the end.
    fn next_request(&self) -> Option<u64> {
        let mut progress = self.progress();
        loop {
            if progress.is_stopping {
                return None;
            }
            if progress.requested > progress.followed {
                return Some(progress.requested);
            }
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write_waiting(&self) -> Result<(), IndexError> {
        loop {
            let oldest =
                self.memory.read().unwrap_or_else(PoisonError::into_inner).oldest_waiting();
            let Some(oldest) = oldest else { return Ok(()) };
            self.tables.add(&oldest)?;
            // IMPORTANT: only now. Who looks does so in memory first.
            self.memory.write().unwrap_or_else(PoisonError::into_inner).forget_oldest();
            // Taken, so that nobody misses this between looking and waiting.
            let progress = self.progress();
            self.changed.notify_all();
            drop(progress);
        }
    }

    /// Merges tables until there are few enough, up to `max_bytes` at a time. What is to be
    /// written meanwhile is written: a merger may take long. A large one is given up when the
    /// thread is to end.
    fn merge(&self, max_bytes: &mut u64) {
        // Opening builds all of them anew, and would not get that far for the next merger.
        while !self.tables.are_damaged() {
            match self.tables.merge_some(*max_bytes, || self.turn(*max_bytes)) {
                Ok(true) => *max_bytes = max_bytes.saturating_mul(2),
                Ok(false) => return,
                Err(error) => {
                    // The disk may have no room for so large a one: the next is smaller.
                    *max_bytes = (*max_bytes).min(self.tables.len_bytes()) / 2;
                    tracing::warn!(
                        error = %Chain(&error),
                        "tables of the index cannot be merged; it works, if more slowly"
                    );
                    return;
                }
            }
        }
    }

    /// Writes what waits, and says whether a merger of up to `max_bytes` goes on.
    fn turn(&self, max_bytes: u64) -> Turn {
        let progress = self.progress();
        if progress.is_stopping {
            return if max_bytes > self.short_merger() { Turn::Stop } else { Turn::GoOn };
        }
        let Progress { requested, awaited, followed, .. } = *progress;
        drop(progress);
        // If nobody waits, another table would be one more without end.
        let is_wanted = awaited > followed || (requested > followed && !self.tables.is_crowded());
        if is_wanted && self.follow(requested).is_err() {
            // It may be the merger that takes the room.
            return Turn::Stop;
        }
        Turn::GoOn
    }
}

/// Nobody may wait for a thread that has ended, also if it panicked.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.progress().has_ended = true;
        self.0.changed.notify_all();
    }
}

//! The thread that writes memtables to tables, and merges tables.
//!
//! Memtables are written in the order in which they were closed, each whole or not at all, so
//! that the tables always hold what was applied up to some update, with the watermark of that
//! update.
//!
//! A run may be too short for a large merger. So at its end some tables are merged that are small
//! together, or many short runs would leave many tables.
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

/// Tables that are merged at the end of a run, which would else leave one more each time: they
/// take half a second.
const LAST_MERGER_BYTES: u64 = 64 << 20;

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
        while let Some(request) = self.next_request() {
            if self.follow(request) {
                self.merge(u64::MAX);
            }
        }
        // Large mergers are left to runs that are long enough.
        self.merge(LAST_MERGER_BYTES);
    }

    /// Follows a request. Whether it could.
    fn follow(&self, request: u64) -> bool {
        let result = self.write_waiting();
        let is_written = result.is_ok();
        if let Err(error) = &result {
            tracing::error!(
                error = %Chain(error),
                "the index cannot be written; it stays in memory and is tried again"
            );
        }
        let mut progress = self.progress();
        progress.followed = request;
        progress.failure = result.err();
        self.changed.notify_all();
        is_written
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
    fn merge(&self, max_bytes: u64) {
        let mut turn = || {
            let progress = self.progress();
            if progress.is_stopping {
                return if max_bytes > LAST_MERGER_BYTES { Turn::Stop } else { Turn::GoOn };
            }
            let request = progress.requested;
            let is_new = request > progress.followed;
            drop(progress);
            // Else there could be more tables without end.
            if is_new && !self.tables.is_crowded() {
                self.follow(request);
            }
            Turn::GoOn
        };
        loop {
            match self.tables.merge_some(max_bytes, &mut turn) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(
                        error = %Chain(&error),
                        "tables of the index cannot be merged; it works, if more slowly"
                    );
                    return;
                }
            }
        }
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

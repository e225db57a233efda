//! Letting readers go first.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::engine::Inner;

/// How many times as long as it has worked a collection rests when somebody reads meanwhile.
const REST_FACTOR: u32 = 6;

/// Longest rest at a time.
const MAX_REST: Duration = Duration::from_millis(250);

/// Rests between steps of work while somebody reads. A lower priority would not do: cores share
/// caches, and often more, and whoever has a lock must not be kept waiting for a core.
pub(super) struct Courtesy<'a> {
    engine: &'a Inner,
    /// The count of reads when it looked last.
    reads: u64,
    working_since: Instant,
}

impl<'a> Courtesy<'a> {
    pub(super) fn new(engine: &'a Inner) -> Self {
        let reads = engine.reads.load(Ordering::Relaxed);
        Self { engine, reads, working_since: Instant::now() }
    }

    /// A step is done.
    pub(super) fn rest(&mut self) {
        let reads = self.engine.reads.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.reads, reads) != reads {
            let rest = self.working_since.elapsed() * REST_FACTOR;
            std::thread::sleep(rest.min(MAX_REST));
        }
        self.working_since = Instant::now();
    }
}

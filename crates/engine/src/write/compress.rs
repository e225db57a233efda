//! The compression of frames, and the threads for it.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle, ThreadId},
};

use granary_castore::{BatchHelper, Error, Result};

use super::raw_frame::RawFrame;
use crate::{
    compression::{Compression, Compressor},
    format::{Object, StoredFrame},
    log::{Log, Part, Request},
};

/// Frames that may wait, for each thread.
const QUEUED_FRAMES_PER_THREAD: usize = 2;

/// Most frames that may wait, however many threads there are. Each has about a MiB, and keeps the
/// buffers that it came in as a whole.
const MAX_QUEUED_FRAMES: usize = 16;

/// A frame to be compressed and sent to the log.
pub(super) struct Job {
    pub(super) raw: RawFrame,
    pub(super) objects: Vec<Object>,
    pub(super) log: Arc<Log>,
    pub(super) losses: u64,
    pub(super) in_flight: Arc<InFlight>,
}

/// Compresses frames and sends them on.
pub(crate) struct Compressors {
    compression: Compression,
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

/// Frames that wait to be compressed.
struct Queue {
    waiting: Mutex<Waiting>,
    /// How many may wait.
    limit: usize,
    /// There is something to do for the threads.
    arrived: Condvar,
    /// There is room for more.
    left: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// Each with the thread that it came from.
    jobs: VecDeque<(ThreadId, Job)>,
    /// No more come.
    is_closed: bool,
}

impl Compressors {
    /// Starts a thread for each core.
    pub(crate) fn start(compression: Compression) -> Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let queue = Arc::new(Queue {
            waiting: Mutex::default(),
            limit: (count * QUEUED_FRAMES_PER_THREAD).min(MAX_QUEUED_FRAMES),
            arrived: Condvar::new(),
            left: Condvar::new(),
        });
        let mut compressors = Self { compression, queue, threads: Vec::new() };
        for _ in 0..count {
            let worker = compressors.worker()?;
            let thread = thread::Builder::new()
                .name("granary-zstd".to_owned())
                .spawn(move || worker.run())
                .map_err(|cause| Error::unavailable("cannot start a thread").because(cause))?;
            compressors.threads.push(thread);
        }
        Ok(compressors)
    }

    /// Has a frame compressed and sent to the log. Waits while the queue is full.
    pub(super) fn submit(&self, job: Job) {
        job.in_flight.begin();
        let Queue { limit, arrived, left, .. } = &*self.queue;
        let mut waiting = self.queue.lock();
        while waiting.jobs.len() >= *limit {
            // All of them may be left to helpers, one of which may be this thread's.
            arrived.notify_one();
            waiting = left.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        // With the lock: should the last helper be dropped now, the threads look again behind this.
        if !job.in_flight.is_left_to_helpers() {
            arrived.notify_one();
        }
        waiting.jobs.push_back((thread::current().id(), job));
    }

    /// Waits until the log has all frames of a batch, whoever was to compress them.
    pub(super) fn finish(&self, in_flight: &InFlight) -> Result<()> {
        in_flight.lock().is_waited_for = true;
        self.queue.wake_threads();
        in_flight.wait()
    }

    /// Has frames of a batch left to helpers, and makes one.
    pub(super) fn helper(&self, in_flight: &Arc<InFlight>) -> Result<Helper> {
        let (worker, in_flight) = (self.worker()?, Arc::clone(in_flight));
        in_flight.lock().helpers += 1;
        Ok(Helper { worker, in_flight })
    }

    fn worker(&self) -> Result<Worker> {
        let (queue, compressor) = (Arc::clone(&self.queue), Compressor::new(self.compression)?);
        Ok(Worker { queue, compressor, buffer: Vec::new() })
    }
}

impl Drop for Compressors {
    fn drop(&mut self) {
        self.queue.lock().is_closed = true;
        self.queue.wake_threads();
        for thread in self.threads.drain(..) {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the threads look again.
    fn wake_threads(&self) {
        // With the lock, so that none that has just looked misses it.
        let _waiting = self.lock();
        self.arrived.notify_all();
    }

    /// Takes the oldest job of a batch that is left to its helpers, of those from this thread if there are any.
    fn take_left(&self, in_flight: &Arc<InFlight>) -> Option<Job> {
        let current = thread::current().id();
        let mut waiting = self.lock();
        let is_of_batch = |job: &Job| Arc::ptr_eq(&job.in_flight, in_flight);
        let jobs = waiting.jobs.iter().map(|(from, job)| (is_of_batch(job), *from == current));
        let place = preferred(jobs)?;
        self.remove(&mut waiting, place)
    }

    /// Waits for a job that is not left to helpers, or for any when there are too many. `None` if no more come.
    fn wait(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            let is_full = waiting.jobs.len() >= self.limit || waiting.is_closed;
            let place = waiting
                .jobs
                .iter()
                .position(|(_, job)| is_full || !job.in_flight.is_left_to_helpers());
            if let Some(place) = place {
                return self.remove(&mut waiting, place);
            }
            if waiting.is_closed {
                return None;
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn remove(&self, waiting: &mut Waiting, place: usize) -> Option<Job> {
        let (_, job) = waiting.jobs.remove(place)?;
        self.left.notify_one();
        Some(job)
    }
}

/// Which of some jobs to take, of each of which it is known whether it may be taken, and whether it came from the same
/// thread.
fn preferred(jobs: impl Iterator<Item = (bool, bool)>) -> Option<usize> {
    let mut first = None;
    for (place, (may_be_taken, is_own)) in jobs.enumerate() {
        if may_be_taken && is_own {
            return Some(place);
        }
        if may_be_taken {
            first = first.or(Some(place));
        }
    }
    first
}

/// Compresses frames on one thread.
struct Worker {
    queue: Arc<Queue>,
    compressor: Compressor,
    /// Kept between frames.
    buffer: Vec<u8>,
}

impl Worker {
    fn run(mut self) {
        while let Some(job) = self.queue.wait() {
            self.compress(job);
        }
    }

    fn compress(&mut self, job: Job) {
        // A panic ends one frame and its batch, but not the thread, which others wait for.
        let _ = catch_unwind(AssertUnwindSafe(|| self.try_to_compress(job)));
    }

    fn try_to_compress(&mut self, Job { raw, objects, log, losses, in_flight }: Job) {
        let mut job = Begun { in_flight, result: None };
        let raw_bytes = raw.contiguous(&mut self.buffer);
        let frame = StoredFrame::compress(raw_bytes, &objects, &mut self.compressor);
        drop(raw);
        job.result =
            Some(log.send(Request::Append { losses, part: Part::Frame { frame, objects } }));
    }
}

/// See [`BatchHelper`].
pub(super) struct Helper {
    worker: Worker,
    in_flight: Arc<InFlight>,
}

impl BatchHelper for Helper {
    fn waiting(&self) -> usize {
        let waiting = self.worker.queue.lock();
        let is_of_batch = |(_, job): &&(_, Job)| Arc::ptr_eq(&job.in_flight, &self.in_flight);
        waiting.jobs.iter().filter(is_of_batch).count()
    }

    fn help(&mut self) -> bool {
        let Some(job) = self.worker.queue.take_left(&self.in_flight) else { return false };
        self.worker.compress(job);
        true
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.in_flight.lock().helpers -= 1;
        self.worker.queue.wake_threads();
    }
}

/// A frame that was begun. Ends it when dropped, so that not even a panic lets its batch
/// wait for ever.
struct Begun {
    in_flight: Arc<InFlight>,
    result: Option<Result<()>>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        let lost = || Err(Error::unavailable("a thread panicked while it compressed"));
        self.in_flight.end(self.result.take().unwrap_or_else(lost));
    }
}

/// The frames of one batch that are on their way to the log.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    state: Mutex<InFlightState>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct InFlightState {
    count: usize,
    /// Those who are to compress the frames.
    helpers: usize,
    /// The batch waits for its frames.
    is_waited_for: bool,
    failure: Option<Error>,
}

impl InFlight {
    fn begin(&self) {
        self.lock().count += 1;
    }

    fn end(&self, result: Result<()>) {
        let mut state = self.lock();
        state.count -= 1;
        if let Err(error) = result {
            state.failure.get_or_insert(error);
        }
        if state.count == 0 {
            self.idle.notify_all();
        }
    }

    /// Whether helpers are to do what was begun.
    fn is_left_to_helpers(&self) -> bool {
        let state = self.lock();
        state.helpers > 0 && !state.is_waited_for
    }

    /// Waits until the log has all that was begun.
    fn wait(&self) -> Result<()> {
        let mut state = self.lock();
        while state.count > 0 {
            state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_waited_for = false;
        state.failure.clone().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, InFlightState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_jobs_come_first_and_then_the_oldest() {
        for (jobs, expected) in [
            (&[][..], None),
            (&[(false, true), (false, false)], None),
            (&[(false, false), (true, false), (true, false)], Some(1)),
            (&[(true, false), (false, true), (true, true), (true, true)], Some(2)),
        ] {
            assert_eq!(preferred(jobs.iter().copied()), expected, "{jobs:?}");
        }
    }
}

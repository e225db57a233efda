//! The threads that compress frames.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use granary_castore::{Error, Result};

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
struct Job {
    raw: RawFrame,
    objects: Vec<Object>,
    log: Arc<Log>,
    losses: u64,
    in_flight: Arc<InFlight>,
}

/// Threads that compress frames and send them on.
pub(crate) struct Compressors {
    /// `None` only while dropping.
    sender: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Compressors {
    /// Starts a thread for each core.
    pub(crate) fn start(compression: Compression) -> Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let queued = (count * QUEUED_FRAMES_PER_THREAD).min(MAX_QUEUED_FRAMES);
        let (sender, receiver) = sync_channel(queued);
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = (0..count)
            .map(|_| {
                let compressor = Compressor::new(compression)?;
                let receiver = Arc::clone(&receiver);
                std::thread::Builder::new()
                    .name("granary-zstd".to_owned())
                    .spawn(move || run(&receiver, compressor))
                    .map_err(|cause| Error::unavailable("cannot start a thread").because(cause))
            })
            .collect::<Result<_>>()?;
        Ok(Self { sender: Some(sender), threads })
    }

    /// Has a frame compressed and sent to `log`. Waits while the queue is full.
    pub(super) fn submit(
        &self,
        raw: RawFrame,
        objects: Vec<Object>,
        log: &Arc<Log>,
        losses: u64,
        in_flight: &Arc<InFlight>,
    ) -> Result<()> {
        in_flight.begin();
        let (log, in_flight) = (Arc::clone(log), Arc::clone(in_flight));
        let job = Job { raw, objects, log, losses, in_flight };
        let sender = self.sender.as_ref().expect("it is there until the threads are dropped");
        sender.send(job).map_err(|refused| {
            let error = Error::unavailable("the compression threads are gone");
            refused.0.in_flight.end(Err(error.clone()));
            error
        })
    }
}

impl Drop for Compressors {
    fn drop(&mut self) {
        self.sender = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a compression thread panicked");
            }
        }
    }
}

fn run(jobs: &Mutex<Receiver<Job>>, mut compressor: Compressor) {
    // Kept between frames.
    let mut buffer = Vec::new();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { raw, objects, log, losses, in_flight }) = job else { return };
        let mut job = Begun { in_flight, result: None };
        let frame = StoredFrame::compress(raw.contiguous(&mut buffer), &objects, &mut compressor);
        drop(raw);
        job.result =
            Some(log.send(Request::Append { losses, part: Part::Frame { frame, objects } }));
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
        let lost = || Err(Error::unavailable("a compression thread panicked"));
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

    /// Waits until the log has all that was begun.
    pub(crate) fn wait(&self) -> Result<()> {
        let mut state = self.lock();
        while state.count > 0 {
            state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.clone().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, InFlightState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

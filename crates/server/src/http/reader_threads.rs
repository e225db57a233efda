//! Threads that read pieces of bodies, in the order in which they were asked for.
//!
//! tokio's own start as many threads as there is work. With more than there are cores, the piece
//! that a client waits for takes turns with those behind it, and threads sleep and wake so
//! often that Linux leaves cores idle: to send NARs as they are over one connection took 8 % longer.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use granary_castore::{Error, Result};
use tokio::sync::oneshot;

use super::pieces::Buffers;

/// Threads that are started when there is work for them, and end when this is dropped and what was
/// asked for is done.
pub(super) struct ReaderThreads {
    shared: Arc<Shared>,
    /// No more are started.
    most: usize,
}

struct Shared {
    state: Mutex<State>,
    /// Something is to be read, or nothing will be any more.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    /// Threads that wait for work, those among them that were woken and have not taken it yet.
    idle: usize,
    is_closed: bool,
}

struct Job {
    read: Box<dyn FnOnce() -> Result<Buffers> + Send>,
    answer: oneshot::Sender<Result<Buffers>>,
}

impl ReaderThreads {
    pub(super) fn new(most: usize) -> Self {
        let shared = Shared { state: Mutex::default(), changed: Condvar::new() };
        Self { shared: Arc::new(shared), most }
    }

    /// Has `read` done, and gives its result. It is given up when nobody waits for that any more, if it
    /// has not begun; there is no result if it panics.
    pub(super) fn read(
        &self,
        read: impl FnOnce() -> Result<Buffers> + Send + 'static,
    ) -> oneshot::Receiver<Result<Buffers>> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.shared.lock();
        state.queue.push_back(Job { read: Box::new(read), answer });
        if state.queue.len() > state.idle && state.threads < self.most {
            self.start_thread(&mut state);
        }
        drop(state);
        self.shared.changed.notify_one();
        answered
    }

    fn start_thread(&self, state: &mut State) {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("granary-read".to_owned());
        match thread.spawn(move || shared.work()) {
            Ok(_) => state.threads += 1,
            // Those that are there get to it.
            Err(_) if state.threads > 0 => {}
            Err(cause) => {
                let error = Error::unavailable("cannot start a thread").because(cause);
                for job in state.queue.drain(..) {
                    // Whoever asked may have gone away.
                    drop(job.answer.send(Err(error.clone())));
                }
            }
        }
    }
}

impl Drop for ReaderThreads {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                job.run();
                state = self.lock();
            } else if state.is_closed {
                return;
            } else {
                state.idle += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    fn run(self) {
        let Self { read, answer } = self;
        if answer.is_closed() {
            return;
        }
        // Without an answer, whoever waits learns that there will be none.
        if let Ok(result) = catch_unwind(AssertUnwindSafe(read)) {
            drop(answer.send(result));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{sync::mpsc, time::Duration};

    use bytes::Bytes;

    use super::*;

    /// What keeps all threads busy until it is dropped.
    pub(in crate::http) struct Occupied {
        _until: mpsc::Sender<()>,
        _answers: Vec<oneshot::Receiver<Result<Buffers>>>,
    }

    impl ReaderThreads {
        pub(in crate::http) fn occupy(&self) -> Occupied {
            let (until, dropped) = mpsc::channel();
            let dropped = Arc::new(Mutex::new(dropped));
            let wait = || {
                let dropped = Arc::clone(&dropped);
                self.read(move || {
                    dropped.lock().expect("nobody panics").recv().ok();
                    Ok(Vec::new())
                })
            };
            Occupied { _answers: (0..self.most).map(|_| wait()).collect(), _until: until }
        }

        pub(in crate::http) fn are_idle(&self) -> bool {
            let state = self.shared.lock();
            state.queue.is_empty() && state.idle == state.threads
        }
    }

    fn number(number: usize) -> Buffers {
        vec![Bytes::from(number.to_string())]
    }

    #[test]
    fn all_is_read_in_order_by_no_more_threads_than_there_may_be() {
        let threads = ReaderThreads::new(2);
        let begun = Arc::new(Mutex::new(Vec::new()));
        let occupied = threads.occupy();
        let answers: Vec<_> = (0..50)
            .map(|piece| {
                let begun = Arc::clone(&begun);
                threads.read(move || {
                    begun.lock().expect("nobody panics").push(piece);
                    Ok(number(piece))
                })
            })
            .collect();
        assert!(begun.lock().expect("nobody panics").is_empty());
        drop(occupied);
        for (piece, answer) in answers.into_iter().enumerate() {
            let read = answer.blocking_recv().expect("it is read").expect("it does not fail");
            assert_eq!(read, number(piece));
        }
        let begun = begun.lock().expect("nobody panics");
        // Two may note that they began in another order than they did.
        for (place, piece) in begun.iter().enumerate() {
            assert!(place.abs_diff(*piece) <= 1, "{begun:?}");
        }
        assert_eq!(threads.shared.lock().threads, 2);
    }

    #[test]
    fn what_panics_has_no_answer_and_ends_no_thread() {
        let threads = ReaderThreads::new(1);
        assert!(threads.read(|| panic!("on purpose")).blocking_recv().is_err());
        let answer = threads.read(|| Ok(number(1))).blocking_recv();
        assert_eq!(answer.expect("the thread is there").expect("it does not fail"), number(1));
        let error = threads.read(|| Err(Error::corrupt("damaged"))).blocking_recv();
        assert!(matches!(error, Ok(Err(Error::Corrupt(_)))));
        assert_eq!(threads.shared.lock().threads, 1);
    }

    #[test]
    fn threads_end_when_nobody_needs_them() {
        let threads = ReaderThreads::new(3);
        let occupied = threads.occupy();
        let shared = Arc::downgrade(&threads.shared);
        let last = threads.read(|| Ok(number(1)));
        drop(threads);
        drop(occupied);
        assert!(last.blocking_recv().expect("it was asked for before").is_ok());
        while shared.strong_count() > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

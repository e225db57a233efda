//! Threads that read pieces of bodies, in the order in which they were asked for.
//!
//! tokio's own start as many threads as there is work. With many for a client, the piece
//! that it waits for takes turns with those behind it, and threads sleep and wake so
//! often that cores are left idle: to send NARs as they are over one connection took 4 to 8 % longer.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use granary_castore::{Error, Result};
use tokio::sync::oneshot;

use super::pieces::Buffers;

/// Pieces that wait, from which on those that nobody waits for any more are looked for and dropped:
/// they hold a plan each. Threads come upon them too, but not while they wait for a disk.
const MANY_WAITING: usize = 1_024;

/// Threads that are started when there is work for them. They stay until this is dropped and what was
/// asked for is done; nobody waits for that.
pub(super) struct ReaderThreads {
    shared: Arc<Shared>,
    /// No more are started.
    most: usize,
}

/// When a piece is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It is waited for, and comes before all that is read ahead.
    Now,
    /// It is read ahead.
    Later,
}

struct Shared {
    state: Mutex<State>,
    /// Something is to be read, or nothing will be any more.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    now: VecDeque<Job>,
    later: VecDeque<Job>,
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
    /// has not begun.
    pub(super) fn read(
        &self,
        wanted: Wanted,
        read: impl FnOnce() -> Result<Buffers> + Send + 'static,
    ) -> oneshot::Receiver<Result<Buffers>> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.shared.lock();
        if state.waiting() >= MANY_WAITING {
            state.forget_unwanted();
        }
        let queue = match wanted {
            Wanted::Now => &mut state.now,
            Wanted::Later => &mut state.later,
        };
        queue.push_back(Job { read: Box::new(read), answer });
        if state.waiting() > state.idle && state.threads < self.most {
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
                while let Some(job) = state.take() {
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
            if let Some(job) = state.take() {
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

impl State {
    fn waiting(&self) -> usize {
        self.now.len() + self.later.len()
    }

    fn take(&mut self) -> Option<Job> {
        self.now.pop_front().or_else(|| self.later.pop_front())
    }

    fn forget_unwanted(&mut self) {
        for queue in [&mut self.now, &mut self.later] {
            queue.retain(|job| !job.answer.is_closed());
        }
    }
}

impl Job {
    fn run(self) {
        let Self { read, answer } = self;
        if answer.is_closed() {
            return;
        }
        let panicked = |_| Err(Error::unavailable("reading it panicked"));
        drop(answer.send(catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(panicked)));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

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
                self.read(Wanted::Now, move || {
                    dropped.lock().expect("nobody panics").recv().ok();
                    Ok(Vec::new())
                })
            };
            Occupied { _answers: (0..self.most).map(|_| wait()).collect(), _until: until }
        }

        pub(in crate::http) fn are_idle(&self) -> bool {
            let state = self.shared.lock();
            state.waiting() == 0 && state.idle == state.threads
        }
    }

    fn number(number: usize) -> Buffers {
        vec![Bytes::from(number.to_string())]
    }

    #[test]
    fn what_is_waited_for_comes_first_and_else_it_goes_in_order() {
        let threads = ReaderThreads::new(1);
        let begun = Arc::new(Mutex::new(Vec::new()));
        let occupied = threads.occupy();
        let answers: Vec<_> = (0..50)
            .map(|piece| {
                let begun = Arc::clone(&begun);
                let wanted = if piece % 5 == 0 { Wanted::Now } else { Wanted::Later };
                threads.read(wanted, move || {
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
        let (now, later): (Vec<_>, Vec<_>) = (0..50).partition(|piece| piece % 5 == 0);
        assert_eq!(*begun.lock().expect("nobody panics"), [now, later].concat());
    }

    #[test]
    fn there_are_no_more_threads_than_there_may_be_and_all_of_them_work() {
        let threads = ReaderThreads::new(3);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let answers: Vec<_> = (0..30)
            .map(|_| {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                threads.read(Wanted::Later, move || {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    // The first ones wait for each other.
                    while most.load(Ordering::SeqCst) < 3 {
                        thread::yield_now();
                    }
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok(Vec::new())
                })
            })
            .collect();
        for answer in answers {
            assert!(answer.blocking_recv().expect("it is read").is_ok());
        }
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert_eq!(threads.shared.lock().threads, 3);
    }

    #[test]
    fn what_nobody_waits_for_is_dropped_when_much_waits() {
        let threads = ReaderThreads::new(1);
        let _occupied = threads.occupy();
        let held = Arc::new(());
        let hold = || {
            let held = Arc::clone(&held);
            threads.read(Wanted::Later, move || {
                drop(held);
                Ok(Vec::new())
            })
        };
        let _wanted = hold();
        for _ in 0..3 * MANY_WAITING {
            drop(hold());
        }
        assert!((2..MANY_WAITING + 3).contains(&Arc::strong_count(&held)));
        assert!(threads.shared.lock().waiting() <= MANY_WAITING + 1);
    }

    #[test]
    fn what_panics_is_an_error_and_ends_no_thread() {
        let threads = ReaderThreads::new(1);
        let panicked = threads.read(Wanted::Now, || panic!("on purpose")).blocking_recv();
        assert!(matches!(panicked, Ok(Err(Error::Unavailable(_)))), "{panicked:?}");
        let answer = threads.read(Wanted::Now, || Ok(number(1))).blocking_recv();
        assert_eq!(answer.expect("the thread is there").expect("it does not fail"), number(1));
        let error = threads.read(Wanted::Now, || Err(Error::corrupt("damaged"))).blocking_recv();
        assert!(matches!(error, Ok(Err(Error::Corrupt(_)))));
        assert_eq!(threads.shared.lock().threads, 1);
    }

    #[test]
    fn threads_end_when_nobody_needs_them() {
        let threads = ReaderThreads::new(3);
        let occupied = threads.occupy();
        let shared = Arc::downgrade(&threads.shared);
        let last = threads.read(Wanted::Later, || Ok(number(1)));
        drop(threads);
        drop(occupied);
        assert!(last.blocking_recv().expect("it was asked for before").is_ok());
        while shared.strong_count() > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

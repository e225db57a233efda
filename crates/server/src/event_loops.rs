//! The threads that serve connections: one for each core, each with the connections that it was
//! given, for as long as they last.
//!
//! With tokio's own threads, which take work from each other, a connection is served now here and now
//! there. What is read for it, copied to its socket and taken from there then wanders between the
//! caches of cores, which costs a third more CPU for sending a NAR where two cores share none.
//! A thread that stays with its connections, and threads beside it that read for them alone, pass
//! on what is in the cache of one core for most of the time.

use std::{
    cell::OnceCell,
    io,
    num::NonZero,
    sync::{Arc, OnceLock, mpsc::sync_channel},
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tracing::warn;

/// Most event loops; there is one for each core.
const MAX_EVENT_LOOPS: usize = 64;

/// Time that a thread has to end beyond what its work is given.
const END_WAIT: Duration = Duration::from_secs(1);

thread_local! {
    static HERE: OnceCell<Here> = const { OnceCell::new() };
}

/// What a thread that serves connections knows.
struct Here {
    index: usize,
    /// What has the threads that may block.
    blocking: Handle,
}

/// How many event loops a daemon has. The same for as long as the process lives.
pub(crate) fn count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    let cores = || thread::available_parallelism().map_or(1, NonZero::get);
    *COUNT.get_or_init(|| cores().min(MAX_EVENT_LOOPS))
}

/// Which event loop this is, below [`count`]; 0 on every other thread.
pub(crate) fn here() -> usize {
    HERE.with(|here| here.get().map_or(0, |here| here.index))
}

/// Has `work` done, which takes long or waits for a disk, on one of the threads that all event loops
/// share for that. On every other thread it is for tokio to find one.
///
/// # Panics
///
/// On a thread that has neither.
pub(crate) fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    HERE.with(|here| match here.get() {
        Some(here) => here.blocking.spawn_blocking(work),
        None => tokio::task::spawn_blocking(work),
    })
}

/// The event loops of a daemon. They end soon after this is dropped, with all that they have; nobody
/// waits for that, nor for what blocks.
pub(crate) struct EventLoops {
    loops: Vec<EventLoop>,
    /// One that serves nobody: its threads do what blocks. They are shared, since a connection may
    /// have work for many.
    blocking: EventLoop,
    /// Closed when all threads have ended.
    ended: mpsc::Receiver<()>,
}

struct EventLoop {
    handle: Handle,
    /// As many as there are connections, and one.
    used: Arc<()>,
    /// Ends it, with the time that work which blocks has left.
    end: oneshot::Sender<Duration>,
}

/// The event loop of a connection. It counts as used until this is dropped.
pub(crate) struct Place {
    handle: Handle,
    _used: Arc<()>,
}

impl EventLoops {
    /// Starts them, with at most `blocking_threads` for what takes long or waits for a disk; these are
    /// started when there is work for them, and end some seconds after it.
    ///
    /// # Errors
    ///
    /// If the system has no threads or file descriptors for them.
    pub(crate) fn start(blocking_threads: usize) -> io::Result<Self> {
        let (alive, ended) = mpsc::channel(1);
        let blocking = EventLoop::start(None, blocking_threads, alive.clone())?;
        let start = |index| {
            let here = Here { index, blocking: blocking.handle.clone() };
            EventLoop::start(Some(here), 1, alive.clone())
        };
        let loops = (0..count()).map(start).collect::<io::Result<_>>()?;
        Ok(Self { loops, blocking, ended })
    }

    /// A place in the one with the fewest connections; `None` if all have failed.
    pub(crate) fn place(&self) -> Option<Place> {
        let working = self.loops.iter().filter(|event_loop| !event_loop.end.is_closed());
        let least = working.min_by_key(|event_loop| Arc::strong_count(&event_loop.used))?;
        Some(Place { handle: least.handle.clone(), _used: Arc::clone(&least.used) })
    }

    /// Gives what blocks `grace` to end, and drops all that is left on them.
    pub(crate) async fn stop(mut self, grace: Duration) {
        for event_loop in self.loops.into_iter().chain([self.blocking]) {
            // It may have ended, if it panicked.
            let _: Result<(), Duration> = event_loop.end.send(grace);
        }
        // Nobody sends: this returns when the last sender is gone.
        if timeout(grace + END_WAIT, self.ended.recv()).await.is_err() {
            warn!("some event loops did not end");
        }
    }
}

impl EventLoop {
    fn start(
        here: Option<Here>,
        blocking_threads: usize,
        alive: mpsc::Sender<()>,
    ) -> io::Result<Self> {
        let (end, ending) = oneshot::channel();
        let (started, starting) = sync_channel(1);
        thread::Builder::new().name("granary-serve".to_owned()).spawn(move || {
            // The thread is new, so that nothing is there.
            let _: Option<Here> = here.and_then(|here| HERE.with(|set| set.set(here)).err());
            // IMPORTANT: made here, since a runtime may not be dropped where another runs, as it would be
            // if there were no thread for it.
            let runtime = Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(blocking_threads.max(1))
                .build();
            // Whoever starts it waits for what is sent.
            match runtime {
                Ok(runtime) => {
                    drop(started.send(Ok(runtime.handle().clone())));
                    run(runtime, ending);
                }
                Err(error) => drop(started.send(Err(error))),
            }
            drop(alive);
        })?;
        let handle = starting.recv().map_err(io::Error::other)??;
        Ok(Self { handle, used: Arc::default(), end })
    }
}

fn run(runtime: Runtime, ending: oneshot::Receiver<Duration>) {
    // An error means that nobody waits any more.
    let grace = runtime.block_on(ending).unwrap_or_default();
    runtime.shutdown_timeout(grace);
}

impl Place {
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        sync::atomic::{AtomicUsize, Ordering},
        time::Instant,
    };

    use super::*;

    fn place(loops: &EventLoops) -> Place {
        loops.place().expect("they work")
    }

    #[tokio::test]
    async fn connections_are_spread_and_places_are_taken_again() {
        let loops = EventLoops::start(4).expect("they start");
        let of = |place: &Place| place.handle().id();
        let mut places: Vec<_> = (0..3 * count()).map(|_| place(&loops)).collect();
        let mut each = HashMap::new();
        for place in &places {
            *each.entry(of(place)).or_insert(0) += 1;
        }
        assert!(each.len() == count() && each.values().all(|places| *places == 3), "{each:?}");
        let left = places.swap_remove(count() / 2);
        let id = of(&left);
        drop(left);
        assert_eq!(of(&place(&loops)), id);
    }

    #[tokio::test]
    async fn what_runs_on_one_stays_there_and_knows_which_it_is() {
        assert_eq!(here(), 0);
        let loops = EventLoops::start(4).expect("they start");
        let mut seen: Vec<_> = Vec::new();
        let places: Vec<_> = (0..count()).map(|_| place(&loops)).collect();
        for place in &places {
            let task = place.handle().spawn(async {
                let (before, thread) = (here(), thread::current().id());
                tokio::task::yield_now().await;
                // What it starts is there, too.
                let started = tokio::spawn(async { (here(), thread::current().id()) }).await;
                assert_eq!(started.expect("it does not panic"), (before, thread));
                before
            });
            seen.push(task.await.expect("it does not panic"));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..count()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn threads_that_block_are_shared_and_as_many_as_there_may_be() {
        let loops = EventLoops::start(3).expect("they start");
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for _ in 0..20 {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            let work = move || {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                // The first ones wait for each other.
                while most.load(Ordering::SeqCst) < 3 {
                    thread::yield_now();
                }
                running.fetch_sub(1, Ordering::SeqCst);
            };
            tasks.push(place(&loops).handle().spawn(async { spawn_blocking(work).await }));
        }
        for task in tasks {
            task.await.expect("it does not panic").expect("nor this");
        }
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn they_end_with_what_they_have_and_wait_for_what_blocks() {
        let loops = EventLoops::start(4).expect("they start");
        let place = place(&loops);
        let held = Arc::new(());
        let (forever, blocking) = (Arc::clone(&held), Arc::clone(&held));
        let (begin, begun) = oneshot::channel();
        place.handle().spawn(async move {
            std::future::pending::<()>().await;
            drop(forever);
        });
        place.handle().spawn(async move {
            spawn_blocking(move || {
                begin.send(()).expect("it is waited for");
                thread::sleep(Duration::from_millis(50));
                drop(blocking);
            });
        });
        begun.await.expect("it begins");
        loops.stop(Duration::from_secs(60)).await;
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn what_blocks_for_too_long_is_left() {
        let loops = EventLoops::start(4).expect("they start");
        let (until, released) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = oneshot::channel();
        place(&loops).handle().spawn(async {
            spawn_blocking(move || {
                begin.send(()).expect("it is waited for");
                released.recv()
            });
        });
        begun.await.expect("it begins");
        let stopping = Instant::now();
        loops.stop(Duration::from_millis(10)).await;
        assert!(stopping.elapsed() < Duration::from_secs(30));
        drop(until);
    }

    #[tokio::test]
    async fn one_that_ended_gets_no_more() {
        let mut loops = EventLoops::start(4).expect("they start");
        let first = loops.loops[0].handle.id();
        let (end, _) = oneshot::channel();
        drop(std::mem::replace(&mut loops.loops[0].end, end));
        let others: Vec<_> = (0..count() - 1).filter_map(|_| loops.place()).collect();
        assert_eq!(others.len(), count() - 1);
        assert!(others.iter().all(|place| place.handle().id() != first));
        for event_loop in &mut loops.loops {
            event_loop.end = oneshot::channel().0;
        }
        assert!(loops.place().is_none());
    }

    #[tokio::test]
    async fn they_end_when_they_are_dropped() {
        let loops = EventLoops::start(4).expect("they start");
        let held = Arc::new(());
        let kept = Arc::clone(&held);
        place(&loops).handle().spawn(async move {
            std::future::pending::<()>().await;
            drop(kept);
        });
        drop(loops);
        while Arc::strong_count(&held) > 1 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

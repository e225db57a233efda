//! Which event loops have a core's worth of work, with the threads that read for them.

use std::{
    cell::Cell,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// Over how long CPU time is looked at, at least.
const WINDOW: Duration = Duration::from_millis(20);

/// How long an event loop counts as busy after it was.
const BUSY_FOR: Duration = Duration::from_millis(50);

/// A loop is busy whose threads, in a window, had this part of the time of a core.
const BUSY_PART: u32 = 2;

/// How busy each event loop was lately.
pub(super) struct Busy {
    begun: Instant,
    loops: Vec<Load>,
}

#[derive(Default)]
struct Load {
    window: Mutex<Window>,
    /// Until when it counts as busy, in nanoseconds since the beginning.
    until: AtomicU64,
}

#[derive(Default)]
struct Window {
    /// Since the beginning of all.
    begun: Duration,
    cpu_time: Duration,
}

impl Busy {
    /// Of so many event loops, none of which has done anything.
    pub(super) fn new(loops: usize) -> Self {
        Self { begun: Instant::now(), loops: (0..loops).map(|_| Load::default()).collect() }
    }

    /// Notes the CPU time that this thread has taken since it noted any, as taken for an event loop.
    pub(super) fn note(&self, event_loop: usize) {
        self.note_at(event_loop, cpu_time_since_last(), Instant::now());
    }

    fn note_at(&self, event_loop: usize, cpu_time: Duration, now: Instant) {
        let (load, now) = (&self.loops[event_loop], now.saturating_duration_since(self.begun));
        let mut window = load.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.cpu_time += cpu_time;
        let passed = now.saturating_sub(window.begun);
        if passed < WINDOW {
            return;
        }
        if window.cpu_time * BUSY_PART >= passed {
            // What others see of it decides on nothing but speed.
            load.until.fetch_max(nanoseconds(now + BUSY_FOR), Ordering::Relaxed);
        }
        *window = Window { begun: now, cpu_time: Duration::ZERO };
    }

    /// Whether all event loops are busy: then no core is left for who would read for one of them.
    pub(super) fn is_every_loop(&self) -> bool {
        self.is_every_loop_at(Instant::now())
    }

    fn is_every_loop_at(&self, now: Instant) -> bool {
        let now = nanoseconds(now.saturating_duration_since(self.begun));
        self.loops.iter().all(|load| now < load.until.load(Ordering::Relaxed))
    }
}

fn nanoseconds(since: Duration) -> u64 {
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

thread_local! {
    static NOTED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn cpu_time_since_last() -> Duration {
    // It is never negative.
    let now = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    now.saturating_sub(NOTED.replace(now))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    impl Busy {
        /// Has all event loops busy for an hour.
        pub(in crate::http) fn keep_all(&self) {
            let end = self.begun.elapsed() + Duration::from_secs(3600);
            self.loops
                .iter()
                .for_each(|load| load.until.store(nanoseconds(end), Ordering::Relaxed));
        }
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn loops_are_busy_that_take_half_of_a_core() {
        let busy = Busy::new(2);
        let at = |milliseconds| busy.begun + ms(milliseconds);
        assert!(!busy.is_every_loop_at(at(0)), "none has done anything");
        busy.note_at(0, ms(10), at(20));
        busy.note_at(1, ms(9), at(20));
        assert!(!busy.is_every_loop_at(at(20)), "the second takes less than half");
        // By its own thread and by one that reads for it.
        busy.note_at(1, ms(5), at(25));
        busy.note_at(1, ms(5), at(40));
        assert!(busy.is_every_loop_at(at(40)));
        assert!(busy.is_every_loop_at(at(69)));
        assert!(!busy.is_every_loop_at(at(70)), "the first has done nothing since");
    }

    #[test]
    fn one_that_rests_for_long_is_not_busy_at_once() {
        let busy = Busy::new(1);
        let at = |milliseconds| busy.begun + ms(milliseconds);
        for time in (20..=100).step_by(20) {
            busy.note_at(0, ms(19), at(time));
            assert!(busy.is_every_loop_at(at(time)));
        }
        busy.note_at(0, ms(1), at(10_000));
        assert!(!busy.is_every_loop_at(at(10_000)));
        busy.note_at(0, ms(20), at(10_020));
        assert!(busy.is_every_loop_at(at(10_020)));
    }

    #[test]
    fn what_a_thread_takes_is_noted_once() {
        cpu_time_since_last();
        let began = Instant::now();
        let mut spent = Duration::ZERO;
        while spent < ms(5) && began.elapsed() < Duration::from_secs(60) {
            spent += cpu_time_since_last();
        }
        assert!(spent >= ms(5) && spent <= began.elapsed() + ms(5), "{spent:?}");
    }
}

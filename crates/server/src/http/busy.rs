//! Which event loops send bodies just now.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How long an event loop counts as busy after a body has asked for its next piece there. A loop that
/// sends as fast as it can comes back to each of some dozen bodies within that, and one whose clients
/// are slow does not.
const BUSY_FOR: Duration = Duration::from_millis(50);

/// When each event loop was busy last.
pub(super) struct Busy {
    begun: Instant,
    /// In milliseconds since then, and one, so that 0 is never.
    noted: Vec<AtomicU64>,
}

impl Busy {
    /// Of so many event loops.
    pub(super) fn new(loops: usize) -> Self {
        Self { begun: Instant::now(), noted: (0..loops).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Notes that this event loop has a body that goes on.
    pub(super) fn note(&self, event_loop: usize, now: Instant) {
        // What others see of it decides on nothing but speed.
        self.noted[event_loop].fetch_max(self.milliseconds(now), Ordering::Relaxed);
    }

    /// Whether all event loops are busy, so that no core is left to whoever would read for this one.
    pub(super) fn are_all(&self, now: Instant) -> bool {
        let now = self.milliseconds(now);
        let is_busy = |noted: &AtomicU64| {
            let noted = noted.load(Ordering::Relaxed);
            noted != 0 && u128::from(now.saturating_sub(noted)) <= BUSY_FOR.as_millis()
        };
        self.noted.iter().all(is_busy)
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.begun).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX - 1) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_busy_while_each_has_just_gone_on() {
        let busy = Busy::new(2);
        let at = |milliseconds| busy.begun + Duration::from_millis(milliseconds);
        assert!(!busy.are_all(at(0)), "none has done anything");
        busy.note(0, at(0));
        assert!(!busy.are_all(at(0)), "the other has done nothing");
        busy.note(1, at(40));
        assert!(busy.are_all(at(40)) && busy.are_all(at(50)));
        assert!(!busy.are_all(at(51)), "the first has done nothing since");
        busy.note(0, at(90));
        assert!(busy.are_all(at(90)));
        assert!(!busy.are_all(at(91)));
    }

    #[test]
    fn one_that_is_alone_is_all() {
        let busy = Busy::new(1);
        busy.note(0, busy.begun);
        assert!(busy.are_all(busy.begun));
    }
}

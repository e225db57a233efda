//! When a walk is read ahead of: when it waits for a disk.
//!
//! A walk that opens and reads one file after the other waits once for each that is not in the page
//! cache, and has the disk do one thing at a time. A [`Scout`] before it keeps the disk busy with many,
//! but would cost a sixth more CPU if it went through a tree where nothing is to be waited for.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::scout::{End, Level, Scout};

/// A packet was waited for if it took that much longer than its thread was at work, and twice as long or
/// more. One that is in the page cache takes half of that in all.
const WAIT: Duration = Duration::from_millis(1);

/// So many packets in a row are waited for before the walk is believed to wait for a disk: a thread that
/// others keep from its core waits too.
const WAITS: u32 = 3;

/// No more than so many have to be, however often it was believed in vain.
const MOST_WAITS: u32 = 48;

/// Has a walk read ahead of where that helps.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    patience: Patience,
    scout: Option<Scout>,
}

/// How long a walk is let wait.
#[derive(Debug, PartialEq, Eq)]
struct Patience {
    in_a_row: u32,
    /// How many in a row are too many; `None` if there is nothing left to be read ahead.
    needed: Option<u32>,
}

/// When something began, and how long this thread had been at work in all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    at: Instant,
    busy: Duration,
}

impl Began {
    pub(super) fn now() -> Self {
        let busy = clock_gettime(ClockId::ThreadCPUTime);
        Self { at: Instant::now(), busy: Duration::try_from(busy).unwrap_or_default() }
    }
}

impl ReadAhead {
    /// Notes that this thread began a packet then and has completed it, and how far the walk has come.
    /// If it waits too long, begins with what is `left` of the tree, if that can be had, where the walk
    /// comes to when it has come to `at`.
    pub(super) fn packet(
        &mut self,
        began: Began,
        (walked, at): (u64, u64),
        left: impl FnOnce() -> Option<Vec<Level>>,
    ) {
        let now = Began::now();
        let too_long = self.patience.packet(now.at - began.at, now.busy.saturating_sub(began.busy));
        if let Some(scout) = &mut self.scout {
            scout.walked(walked);
            let Some(end) = scout.end() else { return };
            self.scout = None;
            self.patience.ended(end);
        } else if too_long {
            self.scout = left().and_then(|left| Scout::start(left, at).ok());
            if self.scout.is_none() {
                // It is only slower without.
                self.patience.ended(End::InVain);
            }
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self { in_a_row: 0, needed: Some(WAITS) }
    }
}

impl Patience {
    /// Notes that a packet took so long, of which its thread was at work for `busy`. True if that is too
    /// much.
    fn packet(&mut self, elapsed: Duration, busy: Duration) -> bool {
        let waited = elapsed.saturating_sub(busy);
        self.in_a_row = if waited >= WAIT && waited >= busy { self.in_a_row + 1 } else { 0 };
        self.needed.is_some_and(|needed| self.in_a_row >= needed)
    }

    /// Notes why reading ahead ended. What was in vain is not tried again as soon.
    fn ended(&mut self, end: End) {
        self.in_a_row = 0;
        self.needed = self.needed.and_then(|needed| match end {
            End::Tree | End::Over => None,
            End::Paused => Some(WAITS),
            End::InVain => Some((2 * needed).min(MOST_WAITS)),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, iter, thread};

    use super::*;

    fn patience(in_a_row: u32, needed: Option<u32>) -> Patience {
        Patience { in_a_row, needed }
    }

    #[test]
    fn packets_are_waited_for_one_after_the_other() {
        let millis = Duration::from_millis;
        let mut patience = Patience::default();
        let notes = [(5, 1), (2, 1), (5, 3), (9, 4), (8, 4), (4, 2), (3, 0), (1, 1), (9, 0)];
        let seen = notes.map(|(elapsed, busy)| patience.packet(millis(elapsed), millis(busy)));
        assert_eq!(seen, [false, false, false, false, false, true, true, false, false]);
        assert!(!patience.packet(Duration::from_micros(999), Duration::ZERO));
        assert_eq!(patience, self::patience(0, Some(WAITS)));
    }

    #[test]
    fn what_was_in_vain_is_tried_less() {
        let ended = |needed, end| {
            let mut patience = patience(9, needed);
            patience.ended(end);
            assert_eq!(patience.in_a_row, 0);
            patience.needed
        };
        assert_eq!(ended(Some(3), End::InVain), Some(6));
        assert_eq!(ended(Some(6), End::InVain), Some(12));
        assert_eq!(ended(Some(48), End::InVain), Some(48));
        assert_eq!(ended(Some(48), End::Paused), Some(3));
        assert_eq!(ended(Some(3), End::Tree), None);
        assert_eq!(ended(None, End::InVain), None);
        assert!(!patience(99, None).packet(Duration::MAX, Duration::ZERO));
    }

    /// Notes a packet that was waited for; gives whether it asked what is left.
    fn wait(read_ahead: &mut ReadAhead, levels: Option<Vec<Level>>) -> bool {
        let now = Began::now();
        let at = now.at.checked_sub(Duration::from_secs(1)).expect("the machine runs for longer");
        let began = Began { at, ..now };
        let mut asked = false;
        read_ahead.packet(began, (0, 0), || {
            asked = true;
            levels
        });
        asked
    }

    #[test]
    fn a_walk_that_waits_is_read_ahead_of_until_nothing_is_left() {
        let directory = tempfile::tempdir().expect("there is room");
        let level = |is_whole| {
            let directory = File::open(directory.path()).expect("it is there").into();
            Some(vec![Level { directory, entries: Vec::new(), is_whole }])
        };
        let mut read_ahead = ReadAhead::default();
        let few = usize::try_from(WAITS).expect("a small number") - 1;
        assert_eq!((0..=few).filter(|_| wait(&mut read_ahead, None)).count(), 1, "in vain");
        assert_eq!(read_ahead.patience, patience(0, Some(2 * WAITS)));
        read_ahead = ReadAhead::default();
        let mut waits = |is_whole| {
            let waits = iter::repeat_with(|| wait(&mut read_ahead, level(is_whole)));
            let waits = waits.take(5).take_while(|asked| !asked).count();
            while read_ahead.scout.is_some() {
                thread::sleep(Duration::from_millis(1));
                read_ahead.packet(Began::now(), (0, 0), || unreachable!("it has begun"));
            }
            waits
        };
        assert_eq!(waits(false), few, "it begins");
        assert_eq!(waits(true), few, "it begins again when it has come to the end of its names");
        assert_eq!(waits(true), 5, "it does not when it has come to the end of the tree");
    }
}

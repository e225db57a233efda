//! Reads ahead of a walk that waits for a disk.
//!
//! A walk that opens and reads one file after the other waits once for each that is not in the page
//! cache, and has the disk do one thing at a time. A thread that goes before it, and only asks for
//! what will be read, keeps the disk busy with many. What an import is made of it never decides: where
//! it comes upon something that is not as expected it ends, and the walk finds out what is wrong. It
//! also ends where all is in the page cache, and is started again if the walk waits again.

use std::{
    ffi::OsStr,
    io::{self, IoSliceMut},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    fd::OwnedFd,
    fs::{Advice, CWD, FileType, Mode, OFlags, fadvise, fstat, openat},
    io::{ReadWriteFlags, preadv2},
    time::{ClockId, clock_gettime},
};

use super::names::{Entry, read_names};

/// How far it goes before the walk, in bytes of files, each of which counts [`FILE_BYTES`] more.
pub(super) const AHEAD_BYTES: u64 = 64 << 20;

/// What a file counts beyond its contents, so that no more than 16,384 are asked for ahead.
const FILE_BYTES: u64 = 4 << 10;

/// Most names that it has in memory.
pub(super) const MAX_NAMES_AHEAD: usize = 1 << 16;

/// It ends when so many files in a row were in the page cache.
const MANY_IN_MEMORY: u32 = 64;

/// A packet was waited for if it took that much longer than its thread was at work, and half of its
/// time or more. One that is in the page cache takes half of that in all.
const WAIT: Duration = Duration::from_millis(1);

/// So many packets in a row are waited for before the walk is believed to wait for a disk: a thread
/// that others keep from its core waits too.
const WAITS: u32 = 3;

/// What a file of so many bytes counts.
pub(super) fn cost(size_bytes: u64) -> u64 {
    size_bytes.saturating_add(FILE_BYTES)
}

/// Tells whether a walk waits for a disk.
#[derive(Debug, Default)]
pub(super) struct Waits {
    in_a_row: u32,
}

impl Waits {
    /// Notes that a packet took so long, of which its thread was at work for `busy`. True if the walk
    /// waits for a disk, as far as that can be told.
    fn note(&mut self, elapsed: Duration, busy: Duration) -> bool {
        let waited = elapsed.saturating_sub(busy);
        self.in_a_row = if waited >= WAIT && waited >= busy { self.in_a_row + 1 } else { 0 };
        self.in_a_row >= WAITS
    }

    /// Notes that a packet was begun then, by this thread, and is complete now.
    pub(super) fn packet(&mut self, began: Began) -> bool {
        let now = Began::now();
        self.note(now.at - began.at, now.busy.saturating_sub(began.busy))
    }
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
        let busy = Duration::try_from(busy).unwrap_or_default();
        Self { at: Instant::now(), busy }
    }
}

/// What is left of a directory.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) path: PathBuf,
    /// The first one last.
    pub(super) entries: Vec<Entry>,
    /// Whether these are all.
    pub(super) is_whole: bool,
}

/// A thread that reads ahead, until there is nothing left or this is dropped.
#[derive(Debug)]
pub(super) struct ReadAhead {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    walk: Mutex<Walk>,
    /// The walk went on, or is over.
    changed: Condvar,
}

/// The walk that is gone before.
#[derive(Debug)]
struct Walk {
    /// What it has come to, by [`cost`].
    walked: u64,
    is_over: bool,
}

impl ReadAhead {
    /// Begins with what is `left` of directories, the innermost one last, for a walk that has come to
    /// `walked`.
    ///
    /// # Errors
    ///
    /// If there is no thread to be had.
    pub(super) fn start(left: Vec<Level>, walked: u64) -> io::Result<Self> {
        let walk = Mutex::new(Walk { walked, is_over: false });
        let shared = Arc::new(Shared { walk, changed: Condvar::new() });
        let followed = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("granary-ahead".to_owned())
            .spawn(move || followed.go_before(left, walked, &ask_for))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Says how far the walk has come.
    pub(super) fn walked(&self, walked: u64) {
        self.shared.lock().walked = walked;
        self.shared.changed.notify_one();
    }

    /// Whether it has nothing more to do.
    pub(super) fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // If it panicked, nothing was asked for.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Walk> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the files of what is `left`, until there is no use in going on.
    fn go_before(&self, left: Vec<Level>, walked: u64, ask: &dyn Fn(&Path) -> Option<Asked>) {
        let (mut asked, mut in_memory) = (walked, 0);
        let _over_or_unexpected = files(left, &mut |path| {
            let file = ask(path)?;
            in_memory = if file.was_in_memory { in_memory + 1 } else { 0 };
            asked = asked.saturating_add(cost(file.size_bytes));
            (in_memory < MANY_IN_MEMORY && self.follows(asked)).then_some(())
        });
    }

    /// Waits until the walk is near enough to what was `asked` for; false if it is over.
    fn follows(&self, asked: u64) -> bool {
        let mut walk = self.lock();
        while !walk.is_over && asked > walk.walked.saturating_add(AHEAD_BYTES) {
            walk = self.changed.wait(walk).unwrap_or_else(PoisonError::into_inner);
        }
        !walk.is_over
    }
}

/// Gives `file` each file of what is `left`, in the order of the walk, until that gives `None` or
/// something is not as expected.
fn files(mut left: Vec<Level>, file: &mut dyn FnMut(&Path) -> Option<()>) -> Option<()> {
    let mut names: usize = left.iter().map(|level| level.entries.len()).sum();
    while let Some(level) = left.last_mut() {
        let Some((name, kind)) = level.entries.pop() else {
            if !level.is_whole {
                return None;
            }
            left.pop();
            continue;
        };
        names -= 1;
        let path = level.path.join(OsStr::from_bytes(name.to_bytes()));
        match kind {
            FileType::Directory => {
                let directory = open(&path, OFlags::DIRECTORY)?;
                let entries = read_names(directory, MAX_NAMES_AHEAD.checked_sub(names)?).ok()??;
                names += entries.len();
                left.push(Level { path, entries, is_whole: true });
            }
            FileType::RegularFile => file(&path)?,
            _ => {}
        }
    }
    Some(())
}

/// A file that was asked for.
struct Asked {
    size_bytes: u64,
    was_in_memory: bool,
}

/// Asks for the contents of a file.
fn ask_for(path: &Path) -> Option<Asked> {
    let fd = open(path, OFlags::NONBLOCK)?;
    let stat = fstat(&fd).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let begins = preadv2(&fd, &mut [IoSliceMut::new(&mut [0])], 0, ReadWriteFlags::NOWAIT);
    let was_in_memory = begins.is_ok();
    if !was_in_memory {
        // Of a large file, Linux reads as much as the disk takes at a time; what follows it reads before
        // whoever reads that.
        fadvise(&fd, 0, None, Advice::WillNeed).ok()?;
    }
    Some(Asked { size_bytes: u64::try_from(stat.st_size).ok()?, was_in_memory })
}

fn open(path: &Path, flags: OFlags) -> Option<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, ffi::CString, fs, iter};

    use super::*;

    fn level(path: &Path, names: &[&str], is_whole: bool) -> Level {
        let kind = |name: &&str| {
            let metadata = fs::symlink_metadata(path.join(name)).expect("it is there");
            FileType::from_raw_mode(std::os::unix::fs::MetadataExt::mode(&metadata))
        };
        let entry = |name: &&str| (CString::new(*name).expect("it has no zero"), kind(name));
        let entries = names.iter().rev().map(entry).collect();
        Level { path: path.to_owned(), entries, is_whole }
    }

    /// The names of what `files` gives, below `root`, and whether it came to an end.
    fn names(root: &Path, left: Vec<Level>) -> (Vec<String>, bool) {
        let mut names = Vec::new();
        let ended = files(left, &mut |path| {
            let name = path.strip_prefix(root).expect("it is below the root");
            names.push(name.display().to_string());
            Some(())
        });
        (names, ended.is_some())
    }

    /// `a`, `b/c`, `b/d/e`, `b/f` and a symlink `g`.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("there is room");
        fs::create_dir_all(root.path().join("b/d")).expect("there is room");
        for name in ["a", "b/c", "b/d/e", "b/f"] {
            fs::write(root.path().join(name), name).expect("there is room");
        }
        std::os::unix::fs::symlink("a", root.path().join("g")).expect("there is room");
        root
    }

    #[test]
    fn goes_as_the_walk_will() {
        let tree = tree();
        let root = tree.path();
        let all = ["a", "b/c", "b/d/e", "b/f"].map(str::to_owned);
        assert_eq!(names(root, vec![level(root, &["a", "b", "g"], true)]), (all.to_vec(), true));
        let left = vec![level(root, &["g"], true), level(&root.join("b"), &["d", "f"], true)];
        assert_eq!(names(root, left), (all[2..].to_vec(), true));
        let left = vec![level(root, &["a"], true), level(&root.join("b"), &["f"], false)];
        assert_eq!(names(root, left), (all[3..].to_vec(), false), "what comes next is not known");
    }

    #[test]
    fn ends_where_something_is_not_as_expected() {
        let tree = tree();
        let root = tree.path();
        let left = || vec![level(root, &["a", "b"], true)];
        let (mut is_gone, mut is_other) = (left(), left());
        let name = |name: &str| CString::new(name).expect("it has no zero");
        is_gone[0].entries.push((name("gone"), FileType::Directory));
        is_other[0].entries.push((name("a"), FileType::Directory));
        assert_eq!(names(root, is_gone), (Vec::new(), false));
        assert_eq!(names(root, is_other), (Vec::new(), false));
        assert!(ask_for(&root.join("gone")).is_none());
        assert!(ask_for(&root.join("g")).is_none(), "a symlink is not followed");
        assert!(ask_for(&root.join("b")).is_none(), "a directory took the place of a file");
        assert_eq!(ask_for(&root.join("b/d/e")).expect("it is there").size_bytes, 5);
    }

    #[test]
    fn names_are_bounded() {
        let tree = tree();
        let root = tree.path();
        for (names_left, expected) in [(MAX_NAMES_AHEAD - 3, true), (MAX_NAMES_AHEAD - 2, false)] {
            let mut left = vec![level(root, &["b"], true)];
            let other = (CString::new("x").expect("it has no zero"), FileType::Symlink);
            left[0].entries.splice(0..0, iter::repeat_n(other, names_left));
            // Three names are in `b`.
            let (names, ended) = names(root, left);
            assert_eq!((names.is_empty(), ended), (!expected, expected), "{names_left}");
        }
    }

    fn shared(walked: u64) -> Shared {
        Shared { walk: Mutex::new(Walk { walked, is_over: false }), changed: Condvar::new() }
    }

    /// How many files are asked for, of those that are in memory or are not.
    fn asked(shared: &Shared, root: &Path, was_in_memory: &[bool]) -> usize {
        let names = vec!["a"; was_in_memory.len()];
        let asked = RefCell::new(0);
        shared.go_before(vec![level(root, &names, true)], 0, &|_| {
            *asked.borrow_mut() += 1;
            let was_in_memory = was_in_memory[*asked.borrow() - 1];
            Some(Asked { size_bytes: 1, was_in_memory })
        });
        asked.into_inner()
    }

    #[test]
    fn ends_where_all_is_in_memory() {
        let tree = tree();
        let many = usize::try_from(MANY_IN_MEMORY).expect("a small number");
        let mut was_in_memory = vec![true; 3 * many];
        assert_eq!(asked(&shared(0), tree.path(), &was_in_memory), many);
        was_in_memory[many - 1] = false;
        assert_eq!(asked(&shared(0), tree.path(), &was_in_memory), 2 * many);
        was_in_memory[2 * many - 1] = false;
        was_in_memory[2 * many + 1] = false;
        assert_eq!(asked(&shared(0), tree.path(), &was_in_memory), 3 * many);
    }

    #[test]
    fn goes_no_further_than_it_may() {
        let shared = shared(7);
        assert!(shared.follows(7 + AHEAD_BYTES));
        thread::scope(|scope| {
            let follower = scope.spawn(|| {
                let is_on = shared.follows(10 + AHEAD_BYTES);
                (is_on, shared.lock().walked)
            });
            for walked in 8..=10 {
                thread::yield_now();
                shared.lock().walked = walked;
                shared.changed.notify_one();
            }
            assert_eq!(follower.join().expect("it does not panic"), (true, 10));
        });
        shared.lock().is_over = true;
        assert!(!shared.follows(99 + AHEAD_BYTES) && !shared.follows(0));
    }

    #[test]
    fn its_thread_ends_with_it() {
        let tree = tempfile::tempdir().expect("there is room");
        let names = ["a", "b", "c"];
        for name in names {
            let file = fs::File::create(tree.path().join(name)).expect("there is room");
            file.set_len(AHEAD_BYTES).expect("it takes none");
        }
        let left = || vec![level(tree.path(), &names, true)];
        // It waits behind the second file.
        let far_ahead = ReadAhead::start(left(), 0).expect("there are threads");
        let shared = Arc::downgrade(&far_ahead.shared);
        drop(far_ahead);
        assert!(shared.upgrade().is_none());
        let near = ReadAhead::start(left(), 0).expect("there are threads");
        near.walked(3 * cost(AHEAD_BYTES));
        while !near.is_done() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_walk_waits_if_its_packets_do_one_after_the_other() {
        let millis = Duration::from_millis;
        let mut waits = Waits::default();
        let mut note = |elapsed, busy| waits.note(millis(elapsed), millis(busy));
        let notes = [(5, 1), (2, 1), (5, 3), (9, 4), (8, 4), (4, 2), (3, 0), (1, 1), (9, 0)];
        let seen = notes.map(|(elapsed, busy)| note(elapsed, busy));
        assert_eq!(seen, [false, false, false, false, false, true, true, false, false]);
    }
}

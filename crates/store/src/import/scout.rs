//! A thread that goes before a walk and asks for the contents of what comes.
//!
//! It only asks: the system reads while it goes on. What an import is made of it never decides. Where it
//! comes upon something that is not as expected it ends, and the walk finds out what is wrong.

use std::{
    ffi::CStr,
    io::{self, IoSliceMut},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use rustix::{
    fs::{Advice, FileType, Mode, OFlags, fadvise, fstat, openat},
    io::{Errno, ReadWriteFlags, preadv2},
};

use super::names::{Entry, read_names};

/// How far it goes before the walk, as [`cost`] counts.
const AHEAD_BYTES: u64 = 64 << 20;

/// What a file or directory counts beyond its contents, so that it goes before the walk by no more than
/// 16,384 of them.
const NODE_BYTES: u64 = 4 << 10;

/// Most names that it has in memory.
pub(super) const MAX_NAMES_AHEAD: usize = 1 << 16;

/// Most directories that it has open, one in the other.
pub(super) const MAX_LEVELS_AHEAD: usize = 64;

/// It ends when so many files in a row were in the page cache.
const MANY_IN_MEMORY: u32 = 64;

/// What a file of so many bytes counts; a directory counts as one that is empty.
pub(super) fn cost(size_bytes: u64) -> u64 {
    size_bytes.saturating_add(NODE_BYTES)
}

/// What is left of a directory.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) directory: OwnedFd,
    /// The first one last.
    pub(super) entries: Vec<Entry>,
    /// Whether the walk goes on above when it is through these, and where is known.
    pub(super) is_whole: bool,
}

/// Why one has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing of the tree is left.
    Tree,
    /// It went as far as it could, and was of use.
    Paused,
    /// All was in the page cache from the start, or something was not as expected or too large.
    InVain,
    /// The walk is over.
    Over,
}

/// A file that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    size_bytes: u64,
    /// Whether it was in the page cache; `None` of an empty file.
    was_in_memory: Option<bool>,
}

/// Asks for a file in a directory; `None` if that is not as expected.
type Ask = fn(&OwnedFd, &CStr) -> Option<Asked>;

/// A thread that goes before a walk until there is no use in it, or this is dropped.
#[derive(Debug)]
pub(super) struct Scout {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<End>>,
}

#[derive(Debug)]
struct Shared {
    walk: Mutex<Walk>,
    /// The walk went on, or is over.
    changed: Condvar,
}

/// The walk that it goes before.
#[derive(Debug)]
struct Walk {
    /// What it has come to, by [`cost`].
    walked: u64,
    is_over: bool,
}

impl Scout {
    /// Begins with what is `left` of directories, the innermost one last, for a walk that will be there
    /// when it has come to `at`.
    ///
    /// # Errors
    ///
    /// If there is no thread to be had.
    pub(super) fn start(left: Vec<Level>, at: u64) -> io::Result<Self> {
        Self::start_with(left, at, ask_for)
    }

    fn start_with(left: Vec<Level>, at: u64, ask: Ask) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(at));
        let walk = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("granary-scout".to_owned())
            .spawn(move || walk.go_before(left, at, ask))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Says how far the walk has come.
    pub(super) fn walked(&self, walked: u64) {
        self.shared.lock().walked = walked;
        self.shared.changed.notify_one();
    }

    /// Why it has ended, if it has.
    pub(super) fn end(&mut self) -> Option<End> {
        let thread = self.thread.take_if(|thread| thread.is_finished())?;
        Some(thread.join().unwrap_or(End::InVain))
    }
}

/// Waits for its thread, and so for what the thread asks the system for at the moment.
impl Drop for Scout {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // If it panicked, nothing more is asked for.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn new(walked: u64) -> Self {
        Self { walk: Mutex::new(Walk { walked, is_over: false }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Walk> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the files of what is `left`, in the order of the walk, and tells why it ended.
    fn go_before(&self, left: Vec<Level>, at: u64, ask: Ask) -> End {
        let mut journey = Journey { asked: at, in_memory: 0, was_of_use: false };
        match journey.go(left, &mut |asked| self.follow(asked), ask) {
            Ok(()) => End::Tree,
            Err(End::InVain) if journey.was_of_use => End::Paused,
            Err(end) => end,
        }
    }

    /// Waits until the walk is near enough to what was `asked` for.
    fn follow(&self, asked: u64) -> Result<(), End> {
        let mut walk = self.lock();
        while walk.is_far_behind(asked) {
            walk = self.changed.wait(walk).unwrap_or_else(PoisonError::into_inner);
        }
        if walk.is_over { Err(End::Over) } else { Ok(()) }
    }
}

impl Walk {
    /// Whether it goes on, so far behind what was `asked` for that this waits.
    fn is_far_behind(&self, asked: u64) -> bool {
        !self.is_over && asked > self.walked.saturating_add(AHEAD_BYTES)
    }
}

/// How far it has come.
struct Journey {
    /// As [`cost`] counts.
    asked: u64,
    /// How many of the last files were in the page cache.
    in_memory: u32,
    /// Whether any was not.
    was_of_use: bool,
}

impl Journey {
    /// Goes through what is `left`, and has the walk follow.
    fn go(
        &mut self,
        mut left: Vec<Level>,
        follow: &mut dyn FnMut(u64) -> Result<(), End>,
        ask: Ask,
    ) -> Result<(), End> {
        let mut names: usize = left.iter().map(|level| level.entries.len()).sum();
        while let Some(level) = left.last_mut() {
            let Some((name, kind)) = level.entries.pop() else {
                if !level.is_whole {
                    // Why it was not given more is no fault of what comes.
                    return Err(End::Paused);
                }
                left.pop();
                continue;
            };
            names -= 1;
            match kind {
                FileType::RegularFile => {
                    self.file(&ask(&level.directory, &name).ok_or(End::InVain)?)?;
                }
                FileType::Directory => {
                    // What it has gone through takes no memory while it is below.
                    level.entries.shrink_to_fit();
                    let below = enter(&level.directory, &name, MAX_NAMES_AHEAD - names);
                    let below = below.ok_or(End::InVain)?;
                    self.asked = self.asked.saturating_add(cost(0));
                    names += below.entries.len();
                    left.push(below);
                    if left.len() > MAX_LEVELS_AHEAD {
                        return Err(End::InVain);
                    }
                }
                FileType::Symlink => continue,
                _ => return Err(End::InVain),
            }
            follow(self.asked)?;
        }
        Ok(())
    }

    fn file(&mut self, file: &Asked) -> Result<(), End> {
        self.asked = self.asked.saturating_add(cost(file.size_bytes));
        self.in_memory = match file.was_in_memory {
            Some(true) => self.in_memory + 1,
            Some(false) => 0,
            None => self.in_memory,
        };
        self.was_of_use |= file.was_in_memory == Some(false);
        if self.in_memory == MANY_IN_MEMORY { Err(End::InVain) } else { Ok(()) }
    }
}

/// Opens a directory and reads its names, of which there may be so many.
fn enter(above: &OwnedFd, name: &CStr, most: usize) -> Option<Level> {
    let directory = open(above, name, OFlags::DIRECTORY)?;
    let entries = read_names(&directory, most).ok()??;
    Some(Level { directory, entries, is_whole: true })
}

/// Asks for the contents of a file.
fn ask_for(directory: &OwnedFd, name: &CStr) -> Option<Asked> {
    let file = open(directory, name, OFlags::NONBLOCK)?;
    let stat = fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let size_bytes = u64::try_from(stat.st_size).ok()?;
    let begins = preadv2(&file, &mut [IoSliceMut::new(&mut [0])], 0, ReadWriteFlags::NOWAIT);
    let was_in_memory = match begins {
        Ok(0) => None,
        Ok(_) => Some(true),
        Err(Errno::AGAIN) => {
            // Of a large file, Linux reads as much as the disk takes at a time; what follows it reads
            // before whoever reads that.
            fadvise(&file, 0, None, Advice::WillNeed).ok()?;
            Some(false)
        }
        // Most likely the file system cannot tell, as overlayfs, tmpfs and NFS cannot. Then it could
        // not be told either that all of it is there.
        Err(_) => return None,
    };
    Some(Asked { size_bytes, was_in_memory })
}

fn open(directory: impl AsFd, name: &CStr, flags: OFlags) -> Option<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::CString,
        fs::{self, File},
        iter,
        os::unix::fs::{FileExt, symlink},
        path::Path,
        sync::atomic::{AtomicUsize, Ordering},
        time::{Duration, Instant},
    };

    use rustix::fs::{CWD, mknodat};

    use super::*;

    const REGULAR: FileType = FileType::RegularFile;

    fn level(directory: &Path, entries: &[(&str, FileType)]) -> Level {
        let entry = |&(name, kind): &(&str, FileType)| (c_string(name), kind);
        let entries = entries.iter().rev().map(entry).collect();
        let directory = File::open(directory).expect("it is there").into();
        Level { directory, entries, is_whole: true }
    }

    fn c_string(name: &str) -> CString {
        CString::new(name).expect("it has no zero")
    }

    /// `a`, `b/c`, `b/d/e`, `b/f` and a symlink `g`, each with its name as contents.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("there is room");
        fs::create_dir_all(root.path().join("b/d")).expect("there is room");
        for name in ["a", "b/c", "b/d/e", "b/f"] {
            fs::write(root.path().join(name), name).expect("there is room");
        }
        symlink("a", root.path().join("g")).expect("there is room");
        root
    }

    /// Asks for a file by writing a `+` behind its contents.
    fn mark(directory: &OwnedFd, name: &CStr) -> Option<Asked> {
        let file = openat(directory, name, OFlags::WRONLY | OFlags::APPEND, Mode::empty());
        rustix::io::write(file.ok()?, b"+").ok()?;
        Some(Asked { size_bytes: 1, was_in_memory: Some(false) })
    }

    /// Which files of the tree were asked for, and how often.
    fn marks(root: &Path) -> [usize; 4] {
        ["a", "b/c", "b/d/e", "b/f"].map(|name| {
            let contents = fs::read_to_string(root.join(name)).expect("it is there");
            contents.matches('+').count()
        })
    }

    fn end(left: Vec<Level>, ask: Ask) -> End {
        Shared::new(0).go_before(left, 0, ask)
    }

    #[test]
    fn all_that_is_left_is_asked_for() {
        let tree = tree();
        let root = tree.path();
        let (directory, link) = (FileType::Directory, FileType::Symlink);
        let whole = level(root, &[("a", REGULAR), ("b", directory), ("g", link)]);
        assert_eq!(end(vec![whole], mark), End::Tree);
        assert_eq!(marks(root), [1, 1, 1, 1]);
        let below = || level(&root.join("b"), &[("d", directory), ("f", REGULAR)]);
        assert_eq!(end(vec![level(root, &[("g", link)]), below()], mark), End::Tree);
        assert_eq!(marks(root), [1, 1, 2, 2]);
        let unknown = Level { is_whole: false, ..below() };
        assert_eq!(end(vec![level(root, &[("a", REGULAR)]), unknown], mark), End::Paused);
        assert_eq!(marks(root), [1, 1, 3, 3]);
    }

    #[test]
    fn it_ends_where_something_is_not_as_expected() {
        let tree = tree();
        let root = tree.path();
        mknodat(CWD, root.join("p"), FileType::Fifo, Mode::RUSR, 0).expect("there is room");
        for (name, kind) in [
            ("gone", REGULAR),
            ("gone", FileType::Directory),
            ("b", REGULAR),
            ("g", REGULAR),
            ("p", REGULAR),
            ("a", FileType::Directory),
            ("g", FileType::Directory),
            ("a", FileType::Unknown),
        ] {
            assert_eq!(end(vec![level(root, &[(name, kind)])], ask_for), End::InVain, "{name}");
        }
    }

    #[test]
    fn names_and_levels_are_bounded() {
        let tree = tree();
        let root = tree.path();
        let directory = [("b", FileType::Directory)];
        // There are three names in `b`.
        for (others, ended) in [(3, End::Tree), (2, End::InVain)] {
            let mut left = level(root, &directory);
            let other = (c_string("x"), FileType::Symlink);
            left.entries.splice(0..0, iter::repeat_n(other, MAX_NAMES_AHEAD - others));
            assert_eq!(end(vec![left], mark), ended, "{others}");
        }
        for (levels, ended) in [(MAX_LEVELS_AHEAD - 2, End::Tree), (63, End::Paused)] {
            let mut left: Vec<_> = (1..levels).map(|_| level(root, &[])).collect();
            left.push(level(root, &directory));
            assert_eq!(end(left, mark), ended, "{levels}");
        }
    }

    #[test]
    fn it_ends_where_all_is_in_memory() {
        // How many are asked for until it ends, of which none is in memory or so many in a row.
        static LEFT: AtomicUsize = AtomicUsize::new(0);
        static EACH: AtomicUsize = AtomicUsize::new(0);
        let ask: Ask = |_, _| {
            let left = LEFT.fetch_sub(1, Ordering::Relaxed);
            let was_in_memory = match left % EACH.load(Ordering::Relaxed) {
                0 => Some(false),
                33 => None,
                _ => Some(true),
            };
            Some(Asked { size_bytes: 0, was_in_memory })
        };
        let root = tempfile::tempdir().expect("there is room");
        for (each, ended, left) in
            [(66, End::Paused, 924), (65, End::Tree, 0), (9_999, End::InVain, 935)]
        {
            LEFT.store(66 * 15 + 9, Ordering::Relaxed);
            EACH.store(each, Ordering::Relaxed);
            let files = vec![("x", REGULAR); 66 * 15 + 9];
            assert_eq!(end(vec![level(root.path(), &files)], ask), ended, "{each}");
            assert_eq!(LEFT.load(Ordering::Relaxed), left, "{each}");
        }
    }

    #[test]
    fn it_goes_before_the_walk_so_far_and_no_further() {
        let mut walk = Walk { walked: 7, is_over: false };
        assert!(!walk.is_far_behind(0) && !walk.is_far_behind(7 + AHEAD_BYTES));
        assert!(walk.is_far_behind(8 + AHEAD_BYTES));
        walk.is_over = true;
        assert!(!walk.is_far_behind(8 + AHEAD_BYTES));
    }

    fn until(mut is_so: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < Duration::from_secs(60), "it never is");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// As [`mark`]; two of them are as far as it may go.
    fn mark_large(directory: &OwnedFd, name: &CStr) -> Option<Asked> {
        Some(Asked { size_bytes: AHEAD_BYTES / 2, ..mark(directory, name)? })
    }

    #[test]
    fn it_waits_for_the_walk_and_ends_with_it() {
        let (tree, other) = (tree(), tree());
        let left = |root| vec![level(root, &[("a", REGULAR), ("b", FileType::Directory)])];
        let mut scout = Scout::start_with(left(tree.path()), 9, mark_large).expect("a thread");
        until(|| marks(tree.path()) == [1, 1, 0, 0]);
        assert_eq!(scout.end(), None);
        scout.walked(9 + 3 * cost(AHEAD_BYTES));
        let mut end = None;
        until(|| {
            end = scout.end();
            end.is_some()
        });
        assert_eq!((end, marks(tree.path())), (Some(End::Tree), [1, 1, 1, 1]));
        assert_eq!(scout.end(), None, "that was said");

        let scout = Scout::start_with(left(other.path()), 9, mark_large).expect("a thread");
        let shared = Arc::downgrade(&scout.shared);
        drop(scout);
        assert!(shared.upgrade().is_none(), "its thread has ended");
        assert!(marks(other.path())[2..] == [0, 0]);
    }

    #[test]
    fn it_is_told_what_is_in_memory_where_that_can_be_told() {
        let tree = tree();
        let root = File::open(tree.path()).expect("it is there").into();
        File::create(tree.path().join("empty")).expect("there is room");
        let file = File::open(tree.path().join("b/c")).expect("it is there");
        // It was just written, and is read once more.
        file.read_exact_at(&mut [0], 0).expect("it is not empty");
        let tells = preadv2(&file, &mut [IoSliceMut::new(&mut [0])], 0, ReadWriteFlags::NOWAIT);
        let asked = |size_bytes, was_in_memory| Asked { size_bytes, was_in_memory };
        let there = tells.is_ok().then_some(asked(3, Some(true)));
        assert_eq!(ask_for(&root, c"b/c"), there, "{tells:?}");
        let empty = ask_for(&root, c"empty");
        assert!(empty == Some(asked(0, None)) || tells.is_err(), "{empty:?}");
        // Two that the page cache is told to forget, and does where there is a disk.
        let forgotten = [c"a", c"b/f"].map(|name| {
            let file = File::from(open(&root, name, OFlags::empty()).expect("it is there"));
            file.sync_all().expect("there is room");
            fadvise(&file, 0, None, Advice::DontNeed).expect("it can be told");
            file
        });
        let tells =
            preadv2(&forgotten[0], &mut [IoSliceMut::new(&mut [0])], 0, ReadWriteFlags::NOWAIT);
        let expected = match tells {
            Ok(_) => Some(asked(3, Some(true))),
            Err(Errno::AGAIN) => Some(asked(3, Some(false))),
            Err(_) => None,
        };
        assert_eq!(ask_for(&root, c"b/f"), expected, "{tells:?}");
    }
}

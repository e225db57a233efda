//! Walks a tree of the file system in the order of its NAR, and reads it.

use std::{
    ffi::{CStr, CString, OsStr},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, readlinkat, statat},
    io::{Errno, fcntl_dupfd_cloexec, read, retry_on_intr},
};

use granary_nix_formats::nar;

use super::{
    ImportError,
    names::{Entry, read_names},
    read_ahead::{Began, ReadAhead},
    scout::{self, Level, MAX_LEVELS_AHEAD, MAX_NAMES_AHEAD},
    step::{Packer, Packet},
};
use crate::{MAX_OPEN_ENTRIES, MAX_WHOLE_FILE_BYTES};

/// Most directories that are kept open. Those further up a deep tree are closed, and opened
/// again from below on the way back.
const MAX_OPEN_DIRECTORIES: usize = 64;

/// How much of a large file is read at a time.
const READ_BYTES: usize = 256 << 10;

/// What went wrong with one file, before it is known where that is.
enum Wrong {
    Errno(&'static str, Errno),
    Changed,
    Nar(nar::Error),
}

impl From<nar::Error> for Wrong {
    fn from(error: nar::Error) -> Self {
        Self::Nar(error)
    }
}

/// A walk, as far as it has come.
pub(super) struct Walker<'a> {
    root: &'a Path,
    /// From the root to the directory that is being read.
    open: Vec<OpenDirectory>,
    /// The file that is being read in pieces.
    large_file: Option<LargeFile>,
    packer: Packer,
    progress: Progress,
    /// How far it has come, as what is read ahead counts that.
    walked: u64,
    read_ahead: ReadAhead,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Root,
    Below,
    Done,
}

/// A file that is read in pieces.
struct LargeFile {
    name: CString,
    fd: OwnedFd,
    left: u64,
}

struct OpenDirectory {
    /// Its name in the one above.
    name: CString,
    handle: Handle,
    /// What is still to come, the first name last.
    entries: Vec<Entry>,
}

enum Handle {
    Open(OwnedFd),
    /// Closed, with what tells it apart: device and inode.
    Closed(u64, u64),
}

impl<'a> Walker<'a> {
    /// One that has the tree at `root` before it, for so many threads that take turns.
    pub(super) fn new(root: &'a Path, threads: usize) -> Result<Self, ImportError> {
        Ok(Self {
            root,
            open: Vec::new(),
            large_file: None,
            packer: Packer::new(threads)?,
            progress: Progress::Root,
            walked: 0,
            read_ahead: ReadAhead::default(),
        })
    }

    /// Walks on, on that thread, until there is a packet; `None` if the whole tree was in those before.
    pub(super) fn packet(&mut self, thread: usize) -> Result<Option<Arc<Packet>>, ImportError> {
        let began = Began::now();
        loop {
            let packet = self.packer.take();
            if self.progress == Progress::Done {
                return Ok(packet);
            }
            if packet.is_some() {
                let came_to = (self.walked, self.at());
                self.read_ahead.packet(began, came_to, || left(&self.open));
                return Ok(packet);
            }
            self.packer.read_by(thread);
            self.step()?;
        }
    }

    /// How far it has come when it gets to what is left of directories.
    fn at(&self) -> u64 {
        let large_file = self.large_file.as_ref().map_or(0, |file| file.left);
        self.walked.saturating_add(large_file)
    }

    /// One node, or one piece of a large file.
    fn step(&mut self) -> Result<(), ImportError> {
        if self.progress == Progress::Root {
            self.progress = Progress::Below;
            let root = CString::new(self.root.as_os_str().as_bytes())
                .map_err(|_| self.error(None, Wrong::Errno("open", Errno::INVAL)))?;
            let kind = self.kind(CWD, &root)?;
            return self.node(root, kind);
        }
        if let Some(file) = &mut self.large_file {
            let before = file.left;
            let done = read_piece(file, &mut self.packer);
            self.walked = self.walked.saturating_add(before - file.left);
            match done {
                Ok(false) => {}
                Ok(true) => self.large_file = None,
                Err(wrong) => {
                    let name = file.name.clone();
                    return Err(self.error(Some(&name), wrong));
                }
            }
            return Ok(());
        }
        let Some(directory) = self.open.last_mut() else {
            self.packer.flush();
            self.progress = Progress::Done;
            return Ok(());
        };
        let Some((name, kind)) = directory.entries.pop() else { return self.leave() };
        self.packer.entry(name.as_bytes())?;
        let kind = match kind {
            FileType::Unknown => self.kind(innermost(&self.open), &name)?,
            kind => kind,
        };
        self.node(name, kind)
    }

    fn kind(&self, directory: BorrowedFd<'_>, name: &CStr) -> Result<FileType, ImportError> {
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.error(Some(name), Wrong::Errno("look at", errno)))?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    /// Reads one node, `name` in the innermost directory; of a large file, only its beginning.
    fn node(&mut self, name: CString, kind: FileType) -> Result<(), ImportError> {
        let result = match kind {
            FileType::Directory => return self.enter(name),
            FileType::RegularFile => {
                read_file(innermost(&self.open), &name, &mut self.packer).map(|(size, rest)| {
                    // Of a large file, what is read counts when it is.
                    let read = if rest.is_none() { size } else { 0 };
                    self.walked = self.walked.saturating_add(scout::cost(read));
                    self.large_file =
                        rest.map(|fd| LargeFile { name: name.clone(), fd, left: size });
                })
            }
            FileType::Symlink => read_symlink(innermost(&self.open), &name, &mut self.packer),
            other => {
                let path = self.path(Some(&name));
                let kind = kind_name(other);
                return Err(ImportError::Unsupported { path, kind });
            }
        };
        result.map_err(|wrong| self.error(Some(&name), wrong))
    }

    /// Opens a directory and reads its names.
    fn enter(&mut self, name: CString) -> Result<(), ImportError> {
        self.packer.directory()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(innermost(&self.open), &name, flags, Mode::empty())
            .map_err(|errno| Wrong::Errno("open", errno))
            .and_then(|fd| {
                let names = read_names(&fd, MAX_OPEN_ENTRIES);
                Ok((names.map_err(|errno| Wrong::Errno("list", errno))?, fd))
            });
        let (entries, fd) = match opened {
            Ok((Some(entries), fd)) => (entries, fd),
            Ok((None, _)) => {
                let path = self.path(Some(&name));
                return Err(ImportError::TooManyEntries { path });
            }
            Err(wrong) => return Err(self.error(Some(&name), wrong)),
        };
        self.walked = self.walked.saturating_add(scout::cost(0));
        self.open.push(OpenDirectory { name, handle: Handle::Open(fd), entries });
        let Some(above) = self.open.len().checked_sub(MAX_OPEN_DIRECTORIES + 1) else {
            return Ok(());
        };
        let closed = match &self.open[above].handle {
            Handle::Open(fd) => {
                let stat =
                    fstat(fd).map_err(|errno| self.error(None, Wrong::Errno("look at", errno)))?;
                Handle::Closed(stat.st_dev, stat.st_ino)
            }
            Handle::Closed(device, inode) => Handle::Closed(*device, *inode),
        };
        self.open[above].handle = closed;
        Ok(())
    }

    /// Ends the innermost directory, and opens the one above again if it was closed.
    fn leave(&mut self) -> Result<(), ImportError> {
        let left = self.open.pop();
        self.packer.end_directory()?;
        if let (Some(OpenDirectory { handle: Handle::Open(below), .. }), Some(above)) =
            (left, self.open.last_mut())
            && let Handle::Closed(device, inode) = above.handle
        {
            match open_parent(&below, device, inode) {
                Ok(fd) => above.handle = Handle::Open(fd),
                Err(wrong) => return Err(self.error(None, wrong)),
            }
        }
        Ok(())
    }

    /// Where `name` in the innermost directory is, or that directory itself.
    fn path(&self, name: Option<&CStr>) -> PathBuf {
        // The first name is the whole path of the root.
        let names = self.open.iter().map(|directory| directory.name.as_c_str()).chain(name);
        let mut path: PathBuf =
            names.map(|name| Path::new(OsStr::from_bytes(name.to_bytes()))).collect();
        if path.as_os_str().is_empty() {
            self.root.clone_into(&mut path);
        }
        path
    }

    fn error(&self, name: Option<&CStr>, wrong: Wrong) -> ImportError {
        let path = self.path(name);
        match wrong {
            Wrong::Nar(error) => error.into(),
            Wrong::Errno(action, errno) => ImportError::File { action, path, source: errno.into() },
            Wrong::Changed => ImportError::Changed { path },
        }
    }
}

/// The directory in which the next node is looked up.
fn innermost(open: &[OpenDirectory]) -> BorrowedFd<'_> {
    match open.last() {
        Some(OpenDirectory { handle: Handle::Open(fd), .. }) => fd.as_fd(),
        // Only the root has none above it; the innermost is never closed.
        _ => CWD,
    }
}

/// What is left of the directories that are open, the innermost one last: the nearest names of the
/// nearest ones. `None` if there are too many descriptors.
fn left(open: &[OpenDirectory]) -> Option<Vec<Level>> {
    let (mut left, mut most, mut is_whole) = (Vec::new(), MAX_NAMES_AHEAD, true);
    for directory in open.iter().rev().take(MAX_LEVELS_AHEAD) {
        let Handle::Open(fd) = &directory.handle else { break };
        let Ok(fd) = fcntl_dupfd_cloexec(fd, 0) else { break };
        let entries = &directory.entries;
        let nearest = entries[entries.len().saturating_sub(most)..].to_vec();
        most -= nearest.len();
        is_whole &= nearest.len() == entries.len();
        left.push(Level { directory: fd, entries: nearest, is_whole });
    }
    left.reverse();
    if left.len() < open.len() {
        left.first_mut()?.is_whole = false;
    }
    Some(left)
}

fn read_symlink(directory: BorrowedFd<'_>, name: &CStr, packer: &mut Packer) -> Result<(), Wrong> {
    let target = readlinkat(directory, name, Vec::new())
        .map_err(|errno| Wrong::Errno("read the symlink", errno))?;
    Ok(packer.symlink(target.as_bytes())?)
}

/// Reads a file, and gives its size; of a large one only what comes before its contents, and gives also
/// from where they are to be read.
fn read_file(
    directory: BorrowedFd<'_>,
    name: &CStr,
    packer: &mut Packer,
) -> Result<(u64, Option<OwnedFd>), Wrong> {
    // Without NONBLOCK, a FIFO that took the file's place would make this wait for ever.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(directory, name, flags, Mode::empty())
        .map_err(|errno| Wrong::Errno("open", errno))?;
    let stat = fstat(&fd).map_err(|errno| Wrong::Errno("look at", errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Wrong::Changed);
    }
    let executable = stat.st_mode & Mode::XUSR.as_raw_mode() != 0;
    let size_bytes = u64::try_from(stat.st_size).map_err(|_| Wrong::Changed)?;
    if let Ok(size) = usize::try_from(size_bytes)
        && size <= MAX_WHOLE_FILE_BYTES
    {
        packer.file(executable, size, |room| read_whole(&fd, room))?;
        return Ok((size_bytes, None));
    }
    packer.large_file(executable, size_bytes)?;
    Ok((size_bytes, Some(fd)))
}

/// Reads the next piece of a large file; true if it was the last.
fn read_piece(file: &mut LargeFile, packer: &mut Packer) -> Result<bool, Wrong> {
    let LargeFile { fd, left, .. } = file;
    let wanted = usize::try_from(*left).map_or(READ_BYTES, |left| left.min(READ_BYTES));
    let read = packer.data(wanted, |room| read_more(fd, room))?;
    if read == 0 {
        return Err(Wrong::Changed);
    }
    *left -= read as u64;
    if *left > 0 {
        return Ok(false);
    }
    if read_more(fd, &mut [0])? > 0 {
        return Err(Wrong::Changed);
    }
    packer.end_large_file()?;
    Ok(true)
}

/// Reads a file that is to have one byte less than there is room for.
fn read_whole(fd: &OwnedFd, room: &mut [u8]) -> Result<(), Wrong> {
    // With room for one byte more, one read shows both that all came and that no more is
    // there.
    let size = room.len() - 1;
    let mut len = 0;
    loop {
        let read = read_more(fd, &mut room[len..])?;
        len += read;
        if len == size {
            return Ok(());
        }
        if read == 0 || len > size {
            return Err(Wrong::Changed);
        }
    }
}

/// Reads once; 0 at the end.
fn read_more(fd: &OwnedFd, room: &mut [u8]) -> Result<usize, Wrong> {
    retry_on_intr(|| read(fd, &mut *room)).map_err(|errno| Wrong::Errno("read", errno))
}

/// Opens the directory above `below`, which must be the one that was closed.
fn open_parent(below: &OwnedFd, device: u64, inode: u64) -> Result<OwnedFd, Wrong> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(below, c"..", flags, Mode::empty())
        .map_err(|errno| Wrong::Errno("go back to", errno))?;
    let stat = fstat(&fd).map_err(|errno| Wrong::Errno("look at", errno))?;
    if (stat.st_dev, stat.st_ino) == (device, inode) { Ok(fd) } else { Err(Wrong::Changed) }
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => "something unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    /// What is left of each directory that is open, the outermost one first.
    fn names_left(walker: &Walker<'_>) -> Vec<String> {
        let level = |Level { entries, is_whole, .. }| {
            let names: Vec<_> =
                entries.iter().rev().map(|(name, _)| name.to_string_lossy()).collect();
            names.join(" ") + if is_whole { "" } else { ".." }
        };
        left(&walker.open).expect("there are descriptors").into_iter().map(level).collect()
    }

    #[test]
    fn what_is_left_and_how_far_it_has_come() {
        let root = tempfile::tempdir().expect("there is room");
        let root = root.path();
        fs::create_dir_all(root.join("b/d")).expect("there is room");
        let large = MAX_WHOLE_FILE_BYTES + READ_BYTES;
        for (name, size) in [("a", 1), ("b/c", large), ("b/d/e", 5), ("b/f", 6), ("g", 7)] {
            fs::write(root.join(name), vec![0; size]).expect("there is room");
        }
        let mut walker = Walker::new(root, 1).expect("there is memory");
        let mut walked = 0;
        let mut step = || {
            walker.step().map_err(|error| error.to_string()).expect("nothing changes");
            let before = std::mem::replace(&mut walked, walker.walked);
            (names_left(&walker), walked - before, walker.at() - walked)
        };
        let cost = |size: usize| scout::cost(size as u64);
        let left = |left: &[&str]| left.iter().map(|&left| left.to_owned()).collect::<Vec<_>>();
        assert_eq!(step(), (left(&["a b g"]), cost(0), 0));
        assert_eq!(step(), (left(&["b g"]), cost(1), 0));
        assert_eq!(step(), (left(&["g", "c d f"]), cost(0), 0));
        let mut size = large as u64;
        assert_eq!(step(), (left(&["g", "d f"]), cost(0), size));
        while size > 0 {
            let piece = size.min(READ_BYTES as u64);
            size -= piece;
            assert_eq!(step(), (left(&["g", "d f"]), piece, size));
        }
        assert_eq!(step(), (left(&["g", "f", "e"]), cost(0), 0));
        assert_eq!(step(), (left(&["g", "f", ""]), cost(5), 0));
        assert_eq!(step(), (left(&["g", "f"]), 0, 0));
    }

    #[test]
    fn only_so_much_is_left() {
        let mut walker = Walker::new(Path::new("/"), 1).expect("there is memory");
        let mut enter = |names, is_open| {
            let root = File::open("/").expect("it is there");
            let handle = if is_open { Handle::Open(root.into()) } else { Handle::Closed(0, 0) };
            let entries = vec![(c"x".to_owned(), FileType::RegularFile); names];
            walker.open.push(OpenDirectory { name: c"y".to_owned(), handle, entries });
            let left = left(&walker.open)?;
            Some(left.iter().map(|left| (left.entries.len(), left.is_whole)).collect::<Vec<_>>())
        };
        let many = MAX_NAMES_AHEAD - 1;
        assert_eq!(enter(9, true), Some(vec![(9, true)]));
        assert_eq!(enter(many, true), Some(vec![(1, false), (many, true)]));
        assert_eq!(enter(1, true), Some(vec![(0, false), (many, true), (1, true)]));
        assert_eq!(enter(2, false), None);
        assert_eq!(enter(3, true), Some(vec![(3, false)]), "what is above is closed");
        assert_eq!(left(&[]).map(|left| left.len()), Some(0));
    }
}

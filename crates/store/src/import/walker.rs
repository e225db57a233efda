//! Walks a tree of the file system in the order of its NAR, and reads it.

use std::{
    ffi::{CStr, CString, OsStr},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, fstat, openat, readlinkat, statat},
    io::{Errno, read, retry_on_intr},
};

use super::{
    ImportError,
    step::{SendError, StepSender},
};
use crate::{MAX_OPEN_ENTRIES, MAX_WHOLE_FILE_BYTES};

/// Most directories that are kept open. Those further up a deep tree are closed, and opened
/// again from below on the way back.
const MAX_OPEN_DIRECTORIES: usize = 64;

/// How much of a large file is read at a time.
const READ_BYTES: usize = 256 << 10;

/// Room for names that are read from a directory at a time.
const NAMES_BYTES: usize = 16 << 10;

/// Walks the tree at `root` and sends its steps, or the error that ended it.
pub(super) fn walk(root: &Path, steps: StepSender) {
    let mut walker = Walker { root, open: Vec::new(), steps };
    match walker.run() {
        Ok(()) | Err(Failure::Stopped) => {}
        Err(Failure::Import(error)) => walker.steps.fail(error),
    }
}

/// Why a walk ended before the end of the tree.
enum Failure {
    /// The other side of the queue is gone.
    Stopped,
    Import(ImportError),
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Stopped => Self::Stopped,
            SendError::Nar(error) => Self::Import(error.into()),
        }
    }
}

/// What went wrong with one file, before it is known where that is.
enum Wrong {
    Errno(&'static str, Errno),
    Changed,
    Send(SendError),
}

impl From<SendError> for Wrong {
    fn from(error: SendError) -> Self {
        Self::Send(error)
    }
}

struct Walker<'a> {
    root: &'a Path,
    /// From the root to the directory that is being read.
    open: Vec<OpenDirectory>,
    steps: StepSender,
}

struct OpenDirectory {
    /// Its name in the one above.
    name: CString,
    handle: Handle,
    /// What is still to come, the first name last.
    entries: Vec<(CString, FileType)>,
}

enum Handle {
    Open(OwnedFd),
    /// Closed, with what tells it apart: device and inode.
    Closed(u64, u64),
}

impl Walker<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        let root = CString::new(self.root.as_os_str().as_bytes())
            .map_err(|_| self.failure(None, Wrong::Errno("open", Errno::INVAL)))?;
        let stat = statat(CWD, &root, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failure(None, Wrong::Errno("look at", errno)))?;
        self.node(root, FileType::from_raw_mode(stat.st_mode))?;
        while let Some(directory) = self.open.last_mut() {
            match directory.entries.pop() {
                Some((name, kind)) => {
                    self.steps.entry(name.as_bytes())?;
                    self.node(name, kind)?;
                }
                None => self.leave()?,
            }
        }
        Ok(self.steps.flush()?)
    }

    /// Reads one node, `name` in the innermost directory.
    fn node(&mut self, name: CString, kind: FileType) -> Result<(), Failure> {
        let result = match kind {
            FileType::Directory => return self.enter(name),
            FileType::RegularFile => read_file(innermost(&self.open), &name, &mut self.steps),
            FileType::Symlink => read_symlink(innermost(&self.open), &name, &mut self.steps),
            other => {
                let path = self.path(Some(&name));
                let kind = kind_name(other);
                return Err(Failure::Import(ImportError::Unsupported { path, kind }));
            }
        };
        result.map_err(|wrong| self.failure(Some(&name), wrong))
    }

    /// Opens a directory and reads its names.
    fn enter(&mut self, name: CString) -> Result<(), Failure> {
        self.steps.directory()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(innermost(&self.open), &name, flags, Mode::empty())
            .map_err(|errno| Wrong::Errno("open", errno))
            .and_then(|fd| Ok((read_names(&fd)?, fd)));
        let (entries, fd) = match opened {
            Ok((Some(entries), fd)) => (entries, fd),
            Ok((None, _)) => {
                let path = self.path(Some(&name));
                return Err(Failure::Import(ImportError::TooManyEntries { path }));
            }
            Err(wrong) => return Err(self.failure(Some(&name), wrong)),
        };
        self.open.push(OpenDirectory { name, handle: Handle::Open(fd), entries });
        let Some(above) = self.open.len().checked_sub(MAX_OPEN_DIRECTORIES + 1) else {
            return Ok(());
        };
        let closed = match &self.open[above].handle {
            Handle::Open(fd) => {
                let stat = fstat(fd)
                    .map_err(|errno| self.failure(None, Wrong::Errno("look at", errno)))?;
                Handle::Closed(stat.st_dev, stat.st_ino)
            }
            Handle::Closed(device, inode) => Handle::Closed(*device, *inode),
        };
        self.open[above].handle = closed;
        Ok(())
    }

    /// Ends the innermost directory, and opens the one above again if it was closed.
    fn leave(&mut self) -> Result<(), Failure> {
        let left = self.open.pop();
        self.steps.end_directory()?;
        if let (Some(OpenDirectory { handle: Handle::Open(below), .. }), Some(above)) =
            (left, self.open.last_mut())
            && let Handle::Closed(device, inode) = above.handle
        {
            match open_parent(&below, device, inode) {
                Ok(fd) => above.handle = Handle::Open(fd),
                Err(wrong) => return Err(self.failure(None, wrong)),
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

    fn failure(&self, name: Option<&CStr>, wrong: Wrong) -> Failure {
        let path = self.path(name);
        Failure::Import(match wrong {
            Wrong::Send(error) => return error.into(),
            Wrong::Errno(action, errno) => ImportError::File { action, path, source: errno.into() },
            Wrong::Changed => ImportError::Changed { path },
        })
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

/// The names in a directory, the first one last; `None` if there are too many.
fn read_names(fd: &OwnedFd) -> Result<Option<Vec<(CString, FileType)>>, Wrong> {
    let mut buffer = [const { MaybeUninit::uninit() }; NAMES_BYTES];
    let mut directory = RawDir::new(fd, &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = directory.next() {
        let entry = entry.map_err(|errno| Wrong::Errno("list", errno))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not say it here.
            FileType::Unknown => {
                let stat = statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|errno| Wrong::Errno("look at an entry of", errno))?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        if entries.len() == MAX_OPEN_ENTRIES {
            return Ok(None);
        }
        entries.push((name.to_owned(), kind));
    }
    entries.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
    Ok(Some(entries))
}

fn read_symlink(
    directory: BorrowedFd<'_>,
    name: &CStr,
    steps: &mut StepSender,
) -> Result<(), Wrong> {
    let target = readlinkat(directory, name, Vec::new())
        .map_err(|errno| Wrong::Errno("read the symlink", errno))?;
    Ok(steps.symlink(target.as_bytes())?)
}

fn read_file(directory: BorrowedFd<'_>, name: &CStr, steps: &mut StepSender) -> Result<(), Wrong> {
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
        return steps.file(executable, size, |room| read_whole(&fd, room));
    }
    steps.large_file(executable, size_bytes)?;
    let mut left = size_bytes;
    while left > 0 {
        let wanted = usize::try_from(left).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        let read = steps.data(wanted, |room| read_more(&fd, room))?;
        if read == 0 {
            return Err(Wrong::Changed);
        }
        left -= read as u64;
    }
    if read_more(&fd, &mut [0])? > 0 {
        return Err(Wrong::Changed);
    }
    Ok(steps.end_large_file()?)
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

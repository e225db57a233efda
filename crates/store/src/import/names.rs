//! What is in a directory of the file system.

use std::{ffi::CString, mem::MaybeUninit, os::fd::AsFd};

use rustix::{
    fs::{FileType, RawDir},
    io::Errno,
};

/// Room for names that are read from a directory at a time.
const NAMES_BYTES: usize = 16 << 10;

/// A name, and what it is of: that can be unknown, since some file systems do not say it here.
pub(super) type Entry = (CString, FileType);

/// The names in a directory, the first one last; `None` if there are more than `most`.
pub(super) fn read_names(fd: impl AsFd, most: usize) -> Result<Option<Vec<Entry>>, Errno> {
    let mut buffer = [const { MaybeUninit::uninit() }; NAMES_BYTES];
    let mut directory = RawDir::new(fd.as_fd(), &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = directory.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entries.len() == most {
            return Ok(None);
        }
        entries.push((name.to_owned(), entry.file_type()));
    }
    entries.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
    Ok(Some(entries))
}

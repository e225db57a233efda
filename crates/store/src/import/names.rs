//! What is in a directory of the file system.

use std::{ffi::CString, mem::MaybeUninit, os::fd::AsFd};

use rustix::{
    fs::{AtFlags, FileType, RawDir, statat},
    io::Errno,
};

/// Room for names that are read from a directory at a time.
const NAMES_BYTES: usize = 16 << 10;

/// A name, and what it is of.
pub(super) type Entry = (CString, FileType);

/// What could not be done, and why.
pub(super) type Failed = (&'static str, Errno);

/// The names in a directory, the first one last; `None` if there are more than `most`.
pub(super) fn read_names(fd: impl AsFd, most: usize) -> Result<Option<Vec<Entry>>, Failed> {
    let mut buffer = [const { MaybeUninit::uninit() }; NAMES_BYTES];
    let mut directory = RawDir::new(fd.as_fd(), &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = directory.next() {
        let entry = entry.map_err(|errno| ("list", errno))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not say it here.
            FileType::Unknown => {
                let stat = statat(fd.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|errno| ("look at an entry of", errno))?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        if entries.len() == most {
            return Ok(None);
        }
        entries.push((name.to_owned(), kind));
    }
    entries.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
    Ok(Some(entries))
}

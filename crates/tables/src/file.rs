//! Reading parts of a file, and all of it.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rustix::{
    buffer::spare_capacity,
    fs::{Mode, OFlags, open},
    io::{Errno, pread},
};
use twox_hash::xxhash3_128;

use crate::error::{Damage, Error, unreadable};

/// Files are checked in pieces of this size.
const CHECK_BUFFER_BYTES: usize = 1 << 20;

/// A file that is open, and its path for messages.
#[derive(Debug)]
pub(crate) struct ReadFile {
    file: File,
    path: PathBuf,
}

impl ReadFile {
    pub(crate) fn open(path: PathBuf) -> Result<Self, Error> {
        let (flags, mode) = (OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        // Nobody asks when a block was read last. Not everybody may say so: it takes the owner.
        let file = match open(&path, flags | OFlags::NOATIME, mode) {
            Err(Errno::PERM) => open(&path, flags, mode),
            opened => opened,
        };
        Ok(Self { file: file.map_err(unreadable("open", &path))?.into(), path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Just the `len` bytes at `offset`. Whoever asks held `len` against a limit.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        // Not zeroed first.
        let mut buffer = Vec::with_capacity(len);
        while buffer.len() < len {
            let at = offset + buffer.len() as u64;
            match pread(&self.file, spare_capacity(&mut buffer), at) {
                Ok(0) => return Err(self.damaged(Damage("it is cut off"))),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(unreadable("read", &self.path)(errno)),
            }
        }
        buffer.truncate(len);
        Ok(buffer)
    }

    /// Length and XXH3 of the whole file.
    pub(crate) fn measure(&self) -> Result<(u64, u128), Error> {
        let (mut hasher, mut len) = (xxhash3_128::Hasher::new(), 0);
        let mut buffer = vec![0; CHECK_BUFFER_BYTES];
        loop {
            match (&self.file).read(&mut buffer) {
                Ok(0) => return Ok((len, hasher.finish_128())),
                Ok(read) => {
                    hasher.write(&buffer[..read]);
                    len += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable("read", &self.path)(error)),
            }
        }
    }

    pub(crate) fn damaged(&self, damage: Damage) -> Error {
        Error::damaged(&self.path, damage)
    }
}

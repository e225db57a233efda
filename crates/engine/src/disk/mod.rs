//! File access, behind a trait: so that a test can fail, tear or drop any operation.
//!
//! Names are relative to the data directory, with `/` between their parts. Only the index does
//! its own I/O.

mod direct;
mod os;

use std::{fmt, io, sync::Arc};

use granary_castore::Error;

pub use os::OsDisk;

/// The files of one data directory. Every call fails if the operating system refuses it.
#[expect(clippy::missing_errors_doc, reason = "said once, for the trait")]
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes a directory, and those above it.
    fn create_dir(&self, name: &str) -> DiskResult<()>;

    /// Names of the files in a directory, without the directory's name, in any order.
    fn list(&self, dir: &str) -> DiskResult<Vec<String>>;

    /// Makes a file that must not be there yet, and opens it for reading and writing.
    fn create(&self, name: &str) -> DiskResult<Arc<dyn DiskFile>>;

    /// Opens a file for reading and writing; `None` if it is not there.
    fn open(&self, name: &str) -> DiskResult<Option<Arc<dyn DiskFile>>>;

    /// Renames a file, over another if there is one.
    fn rename(&self, from: &str, to: &str) -> DiskResult<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> DiskResult<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &str) -> DiskResult<()>;
}

/// An open file. Every call fails if the operating system refuses it.
#[expect(clippy::missing_errors_doc, reason = "said once, for the trait")]
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Length in bytes.
    fn len(&self) -> DiskResult<u64>;

    /// Whether it has no bytes.
    fn is_empty(&self) -> DiskResult<bool> {
        Ok(self.len()? == 0)
    }

    /// Up to `len` bytes from `offset` on: fewer only if the file ends before. Whoever asks
    /// held `len` against a limit.
    fn read_at(&self, offset: u64, len: usize) -> DiskResult<Vec<u8>>;

    /// Fills `buffer` with what lies from `offset` on, if all of that is in memory: this does not
    /// wait for a disk. False if it is not, or if the file ends before, or if it cannot be told;
    /// what is in the buffer is then of no use.
    fn read_cached(&self, _offset: u64, _buffer: &mut [u8]) -> DiskResult<bool> {
        Ok(false)
    }

    /// Writes all of `data` at `offset`.
    fn write_at(&self, data: &[u8], offset: u64) -> DiskResult<()>;

    /// Writes all `pieces` at `offset`, one behind the other, as if they were one.
    fn write_pieces_at(&self, pieces: &[&[u8]], offset: u64) -> DiskResult<()> {
        self.write_at(&pieces.concat(), offset)
    }

    /// Makes contents and length durable.
    fn sync(&self) -> DiskResult<()>;

    /// Cuts the file to `len` bytes.
    fn truncate(&self, len: u64) -> DiskResult<()>;
}

/// What file access returns.
pub type DiskResult<T> = Result<T, DiskError>;

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {name}")]
pub struct DiskError {
    /// What was tried: "open", "write".
    pub operation: &'static str,
    /// On which file or directory.
    pub name: String,
    /// What the operating system said.
    #[source]
    pub cause: io::Error,
}

impl From<DiskError> for Error {
    fn from(error: DiskError) -> Self {
        let mut message = error.to_string();
        if is_full(&error.cause) {
            message.push_str("; ");
            message.push_str(FREE_SPACE);
        }
        Self::unavailable(message).because(error.cause)
    }
}

/// What can be done about a full disk. No restart is needed.
pub(crate) const FREE_SPACE: &str = "free some space on its disk, then try again";

/// Whether a disk, or somebody's share of it, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

//! One process per data directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
};

use granary_castore::Error;

use super::OpenError;

/// Held for as long as the store is open; the operating system lets go of it when the
/// process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a data directory.
    pub(crate) fn take(data_dir: &Path) -> Result<Self, OpenError> {
        let path = data_dir.join("lock");
        let failed = |cause| {
            OpenError::from(
                Error::unavailable(format!("cannot lock {}", path.display())).because(cause),
            )
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(OpenError::InUse { data_dir: data_dir.to_owned() })
            }
            Err(TryLockError::Error(cause)) => Err(failed(cause)),
        }
    }
}

//! The note that a daemon leaves in its data directory, so that others find it.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

use granary_castore::Chain;
use serde::{Deserialize, Serialize};

use crate::error::{CliError, Result};

/// Its name in the data directory.
const FILE_NAME: &str = "daemon.json";

/// Longest note that is read, in bytes. A daemon listens on a handful of addresses.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// What the note says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DaemonInfo {
    /// Process id.
    pub(crate) pid: u32,
    /// Where it can be reached, as `--store` takes it; the first is the best.
    pub(crate) listen: Vec<String>,
}

/// The note, for as long as the daemon runs.
///
/// It is locked until the process ends, however that ends: a note that nobody holds locked
/// was left behind. (Trying the lock of the data directory itself would tell the same, but
/// could make a daemon that starts at that moment believe that the directory is in use.)
#[derive(Debug)]
pub(crate) struct DaemonFile {
    path: PathBuf,
    _locked: File,
}

impl DaemonFile {
    /// Writes the note. Only for who has the store in `data_dir` open.
    pub(crate) fn write(data_dir: &Path, info: &DaemonInfo) -> Result<Self> {
        let path = data_dir.join(FILE_NAME);
        let new = path.with_extension("json.new");
        let locked = write(&new, &path, info).inspect_err(|_| drop(fs::remove_file(&new)));
        let locked = locked.map_err(CliError::system(format!("write {}", path.display())))?;
        Ok(Self { path, _locked: locked })
    }

    /// As [`write`](Self::write), but it is enough to warn of a failure: a daemon whose disk is
    /// full must start all the same, so that what it has can be read.
    pub(crate) fn write_or_warn(data_dir: &Path, info: &DaemonInfo) -> Option<Self> {
        Self::write(data_dir, info)
            .inspect_err(|error| {
                tracing::warn!(error = %Chain(error), "commands find this daemon by --store only");
            })
            .ok()
    }
}

impl Drop for DaemonFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the daemon's note");
        }
    }
}

fn write(new: &Path, path: &Path, info: &DaemonInfo) -> io::Result<File> {
    let mut file = File::create(new)?;
    // It is locked before it has its name, so that nobody finds it unlocked.
    file.try_lock()?;
    let mut text = serde_json::to_string_pretty(info)?;
    text.push('\n');
    file.write_all(text.as_bytes())?;
    fs::rename(new, path)?;
    Ok(file)
}

/// The daemon that holds the store in `data_dir`, if there is one.
pub(crate) fn running(data_dir: &Path) -> Option<DaemonInfo> {
    let file = File::open(data_dir.join(FILE_NAME)).ok()?;
    if !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return None;
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    match serde_json::from_str(&text) {
        Ok(info) => Some(info),
        Err(error) => {
            tracing::warn!(data_dir = %data_dir.display(), %error, "cannot read the daemon's note");
            None
        }
    }
}

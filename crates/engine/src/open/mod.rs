//! Opening a store: its header, its lock, its packs, and the index brought up to date.

mod lock;
mod report;
mod scan;

mod header;
mod packs;
mod replay;

use std::{path::Path, sync::Arc};

use granary_castore::{Error, Result};

pub(crate) use lock::Lock;
pub use report::{CutTail, Damage, OpenError, OpenReport, Progress};

use crate::{
    disk::Disk,
    index::{Index, IndexError, State},
    log::LogStart,
    packs::{PACKS_DIR, Packs},
};

/// Directory for what was taken out of the packs and may still be of interest.
pub(crate) const SET_ASIDE_DIR: &str = "set-aside";

/// The level at which frames are compressed, unless told otherwise.
pub const DEFAULT_COMPRESSION_LEVEL: i32 = 3;

/// How to open a store.
pub struct OpenOptions<'a> {
    /// zstd's level for new frames.
    pub compression_level: i32,
    /// Build the index anew, whatever there is of it.
    pub rebuild_index: bool,
    /// Is told how far replay or rebuilding has come.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
}

impl Default for OpenOptions<'_> {
    fn default() -> Self {
        Self { compression_level: DEFAULT_COMPRESSION_LEVEL, rebuild_index: false, progress: None }
    }
}

/// A store that was brought up to date.
pub(crate) struct Opened {
    pub(crate) start: LogStart,
    pub(crate) report: OpenReport,
}

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    index_dir: &Path,
    options: &OpenOptions<'_>,
) -> Result<Opened, OpenError> {
    disk.create_dir(PACKS_DIR).map_err(Error::from)?;
    let header = header::read_or_create(&*disk)?;
    let mut report = OpenReport::default();
    let (index, state) = open_index(index_dir, header.store_id, options, &mut report)?;
    let index = Arc::new(index);
    let packs = Arc::new(Packs::new(Arc::clone(&disk)));
    let mut replay = replay::Replay {
        disk: &*disk,
        index: &index,
        packs: &packs,
        store_id: header.store_id,
        state: state.unwrap_or(State { store_id: header.store_id, ..State::default() }),
        report: &mut report,
        progress: options.progress,
    };
    let (tail, next_handle) = replay.run()?;
    let state = replay.state;
    report.log();
    let start = LogStart {
        disk,
        index,
        packs,
        tail,
        next_handle,
        state,
        epoch: state.watermark.stamp.epoch + 1,
        writer: header.writer,
        compression_level: options.compression_level,
    };
    Ok(Opened { start, report })
}

/// Opens the index, or an empty one in its place if it is broken, foreign or unwanted.
fn open_index(
    dir: &Path,
    store_id: [u8; 16],
    options: &OpenOptions<'_>,
    report: &mut OpenReport,
) -> Result<(Index, Option<State>), OpenError> {
    let existed = dir.exists();
    if !options.rebuild_index {
        match try_open_index(dir, store_id) {
            Ok((index, state)) => {
                report.rebuilt_index = state.is_none() && !existed;
                return Ok((index, state));
            }
            Err(problem) => {
                if is_environment(&problem) {
                    return Err(Error::from(problem).into());
                }
                tracing::warn!(error = %granary_castore::Chain(&problem), "the index is broken");
            }
        }
    }
    report.rebuilt_index = true;
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(|cause| {
            Error::unavailable(format!("cannot remove {}", dir.display())).because(cause)
        })?;
    }
    let (index, state) = try_open_index(dir, store_id).map_err(Error::from)?;
    Ok((index, state))
}

fn try_open_index(dir: &Path, store_id: [u8; 16]) -> Result<(Index, Option<State>), IndexError> {
    let index = Index::open(dir)?;
    let state = index.state()?;
    if state.is_some_and(|state| state.store_id != store_id) {
        return Err(IndexError::Malformed(crate::format::Malformed(
            "the index belongs to another store",
        )));
    }
    Ok((index, state))
}

/// Whether the trouble lies with the machine, so that a new index would fare no better.
fn is_environment(problem: &IndexError) -> bool {
    use std::io::ErrorKind;
    let IndexError::Database(
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)),
    ) = problem
    else {
        return false;
    };
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied
            | ErrorKind::StorageFull
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::OutOfMemory
            | ErrorKind::QuotaExceeded
    ) || error.raw_os_error().is_some_and(|code| {
        // Too many open files, for the process or for the machine.
        code == rustix::io::Errno::MFILE.raw_os_error()
            || code == rustix::io::Errno::NFILE.raw_os_error()
    })
}

//! Opening a store: its header, its lock, its packs, and the index brought up to date.

mod lock;
mod report;
mod scan;

mod header;
mod packs;
mod replay;

use std::{path::Path, sync::Arc, time::Duration};

use granary_castore::{Chain, Error, Result};

pub(crate) use lock::Lock;
pub use report::{CutTail, Damage, OpenError, OpenReport, Progress};
pub(crate) use scan::Scanner;

use crate::{
    chunker::{Chunker, DEFAULT_AVERAGE_CHUNK_BYTES},
    compression::Compression,
    dead::{DeadList, Unusable},
    disk::Disk,
    format::{StoreHeader, StoreId},
    gc::Guard,
    index::{Index, IndexError, State},
    log::LogStart,
    packs::{PACKS_DIR, Packs},
};

/// Directory for what was taken out of the packs and may still be of interest.
pub(crate) const SET_ASIDE_DIR: &str = "set-aside";

/// The length at which a pack is sealed, unless told otherwise.
pub const DEFAULT_PACK_BYTES: u64 = 64 << 20;

/// How long something is kept that was leased, unless told otherwise.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// How many bytes share a frame, before compression. What is stored can be read whatever
/// they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSizes {
    /// Length at which a frame of chunks that follow each other is closed, about: if they lie in a
    /// buffer of that length, it ends with that.
    pub run_bytes: usize,
    /// Length at which a frame of other small objects is closed.
    pub group_bytes: usize,
}

/// The most that a frame size may be set to: with an object more, a frame is far from the most
/// that can be read.
const MAX_FRAME_SETTING_BYTES: usize = 16 << 20;

impl Default for FrameSizes {
    fn default() -> Self {
        Self { run_bytes: 1 << 20, group_bytes: 512 << 10 }
    }
}

/// How to open a store.
pub struct OpenOptions<'a> {
    /// How new frames are compressed.
    pub compression: Compression,
    /// How large new frames are.
    pub frame_sizes: FrameSizes,
    /// What chunks have on average, in bytes, if this makes a new store: a power of two. A
    /// store keeps what it was made with, or contents that it has would be cut anew.
    pub average_chunk_bytes: u32,
    /// A pack that has reached this length is sealed; its last segment may pass it.
    pub pack_bytes: u64,
    /// How long something is kept that was [leased](granary_castore::WriteBatch::lease).
    pub lease: Duration,
    /// Build the index anew, whatever there is of it.
    pub rebuild_index: bool,
    /// Is told how far replay or rebuilding has come.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
}

impl Default for OpenOptions<'_> {
    fn default() -> Self {
        Self {
            compression: Compression::default(),
            frame_sizes: FrameSizes::default(),
            average_chunk_bytes: DEFAULT_AVERAGE_CHUNK_BYTES,
            pack_bytes: DEFAULT_PACK_BYTES,
            lease: DEFAULT_LEASE,
            rebuild_index: false,
            progress: None,
        }
    }
}

/// A store that was brought up to date.
pub(crate) struct Opened {
    pub(crate) start: LogStart,
    pub(crate) chunker: Chunker,
    pub(crate) report: OpenReport,
}

pub(crate) fn open(
    disk: &Arc<dyn Disk>,
    index_dir: &Path,
    options: &OpenOptions<'_>,
) -> Result<Opened, OpenError> {
    let FrameSizes { run_bytes, group_bytes } = options.frame_sizes;
    if run_bytes.max(group_bytes) > MAX_FRAME_SETTING_BYTES {
        return Err(OpenError::Failed(Error::invalid(format!(
            "frames of {run_bytes} and {group_bytes} bytes: the limit is {MAX_FRAME_SETTING_BYTES}"
        ))));
    }
    disk.create_dir(PACKS_DIR).map_err(Error::from)?;
    let (header, chunker) = header::read_or_create(&**disk, options.average_chunk_bytes)?;
    let first = open_with(disk, &header, chunker, index_dir, options, options.rebuild_index);
    match first {
        // Damage that shows only while the index is used; the packs have everything.
        Err(OpenError::Failed(error @ Error::Corrupt(_))) if !options.rebuild_index => {
            tracing::warn!(error = %Chain(&error), "the index is broken");
            open_with(disk, &header, chunker, index_dir, options, true)
        }
        first => first,
    }
}

fn open_with(
    disk: &Arc<dyn Disk>,
    header: &StoreHeader,
    chunker: Chunker,
    index_dir: &Path,
    options: &OpenOptions<'_>,
    rebuild_index: bool,
) -> Result<Opened, OpenError> {
    let mut report = OpenReport::default();
    let (index, state) = open_index(index_dir, header.store_id, rebuild_index, &mut report)?;
    let packs = Arc::new(Packs::new(Arc::clone(disk)));
    let dead = read_dead_list(&**disk, header.store_id, &mut report)?;
    let mut replay = replay::Replay {
        disk: &**disk,
        index: &index,
        packs: &packs,
        store_id: header.store_id,
        dead: &dead,
        state: state.unwrap_or(State { store_id: header.store_id, ..State::default() }),
        report: &mut report,
        progress: options.progress,
    };
    let (tail, next_handle) = replay.run()?;
    let state = replay.state;
    report.log();
    let last = state.watermark.stamp;
    let epoch = last.epoch.checked_add(1).filter(|_| last.sequence < u64::MAX / 2);
    let start = LogStart {
        disk: Arc::clone(disk),
        index: Arc::new(index),
        packs,
        guard: Guard::new()?,
        dead_generation: dead.generation.max(state.dead_generation),
        tail,
        next_handle,
        state,
        epoch: epoch.ok_or_else(|| Error::corrupt("the numbers of segments are used up"))?,
        writer: header.writer,
        compression: options.compression,
        group_bytes: options.frame_sizes.group_bytes,
        pack_bytes: options.pack_bytes,
    };
    Ok(Opened { start, chunker, report })
}

/// Reads the list of dead objects; an empty one if it cannot be used.
fn read_dead_list(
    disk: &dyn Disk,
    store_id: StoreId,
    report: &mut OpenReport,
) -> Result<DeadList, OpenError> {
    match DeadList::read(disk, store_id) {
        Ok(dead) => Ok(dead),
        Err(Unusable::Damaged(problem)) => {
            report.dead_list_problem = Some(problem.to_string());
            Ok(DeadList::default())
        }
        Err(Unusable::Unread(error)) => Err(error.into()),
    }
}

/// Opens the index, or an empty one in its place if it is broken, foreign or unwanted.
fn open_index(
    dir: &Path,
    store_id: StoreId,
    rebuild_index: bool,
    report: &mut OpenReport,
) -> Result<(Index, Option<State>), OpenError> {
    let existed = dir.exists();
    if !rebuild_index {
        match try_open_index(dir, store_id) {
            Ok((index, state)) => {
                report.rebuilt_index = state.is_none() && !existed;
                return Ok((index, state));
            }
            Err(problem) => {
                if problem.is_passing() {
                    return Err(Error::from(problem).into());
                }
                tracing::warn!(error = %Chain(&problem), "the index is broken");
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

fn try_open_index(dir: &Path, store_id: StoreId) -> Result<(Index, Option<State>), IndexError> {
    let index = Index::open(dir)?;
    let state = index.state()?;
    if state.is_some_and(|state| state.store_id != store_id) {
        return Err(IndexError::Malformed(crate::format::Malformed(
            "the index belongs to another store",
        )));
    }
    Ok((index, state))
}

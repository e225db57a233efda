//! The packs that lie in the data directory, and whether they belong there.

use std::collections::HashMap;

use granary_castore::{Error, Result};

use super::{OpenError, SET_ASIDE_DIR};
use crate::{
    dead::DeadList,
    disk::{Disk, DiskFile},
    format::{PACK_HEADER_BYTES, PackHeader, SegmentHeader, Stamp, StoreId, VersionProblem},
    packs::{PACKS_DIR, PackId},
};

/// A pack that was found. It is not kept open: there may be more packs than a process may
/// open files.
pub(super) struct FoundPack {
    pub(super) len: u64,
    /// What is wrong with its header, if anything.
    pub(super) header_problem: Option<String>,
    /// Stamp of its first segment, if that has a valid header.
    pub(super) first_stamp: Option<Stamp>,
}

impl FoundPack {
    /// Whether it is a pack that was made and got nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.header_problem.is_none() && self.len <= PACK_HEADER_BYTES as u64
    }
}

/// Finds all packs.
pub(super) fn find(
    disk: &dyn Disk,
    store_id: StoreId,
) -> Result<HashMap<PackId, FoundPack>, OpenError> {
    let mut found = HashMap::new();
    for name in disk.list(PACKS_DIR).map_err(Error::from)? {
        if DeadList::is_named(&name) {
            continue;
        }
        let Some(id) = PackId::from_file_name(&name) else {
            tracing::warn!(name, "a file among the packs is no pack; it is left alone");
            continue;
        };
        let Some(file) = disk.open(&id.file_name()).map_err(Error::from)? else { continue };
        found.insert(id, examine(id, &*file, store_id)?);
    }
    Ok(found)
}

fn examine(id: PackId, file: &dyn DiskFile, store_id: StoreId) -> Result<FoundPack, OpenError> {
    let len = file.len().map_err(Error::from)?;
    let bytes = file.read_at(0, 2 * PACK_HEADER_BYTES).map_err(Error::from)?;
    let incompatible = |problem: String| OpenError::Incompatible { file: id.file_name(), problem };
    let header_problem = match PackHeader::decode(&bytes) {
        Ok(header) if header.store_id != store_id => {
            return Err(incompatible("it belongs to another store; move it away".to_owned()));
        }
        Ok(header) if header.pack_id != id.0 => Some("its header has another id".to_owned()),
        Ok(_) => None,
        Err(
            problem @ (VersionProblem::OtherVersion { .. } | VersionProblem::OtherRules { .. }),
        ) => {
            return Err(incompatible(problem.to_string()));
        }
        Err(VersionProblem::Damaged) => Some("its header is cut off or damaged".to_owned()),
    };
    let first_stamp = bytes
        .get(PACK_HEADER_BYTES..)
        .and_then(|bytes| SegmentHeader::decode(bytes, store_id).ok())
        .map(|header| header.stamp);
    Ok(FoundPack { len, header_problem, first_stamp })
}

/// Removes a pack that has nothing in it.
pub(super) fn remove_empty(disk: &dyn Disk, id: PackId) -> Result<()> {
    disk.remove(&id.file_name())?;
    Ok(disk.sync_dir(PACKS_DIR)?)
}

/// Moves a whole pack out of the way.
pub(super) fn set_aside(disk: &dyn Disk, id: PackId) -> Result<String> {
    make_set_aside_dir(disk)?;
    let kept_in = format!("{SET_ASIDE_DIR}/{id}.pack");
    disk.rename(&id.file_name(), &kept_in)?;
    disk.sync_dir(SET_ASIDE_DIR)?;
    disk.sync_dir(PACKS_DIR)?;
    Ok(kept_in)
}

fn make_set_aside_dir(disk: &dyn Disk) -> Result<()> {
    disk.create_dir(SET_ASIDE_DIR)?;
    Ok(disk.sync_dir("")?)
}

/// Copies the end of a pack out of the way, durably, and cuts it off.
pub(super) fn cut_tail(
    disk: &dyn Disk,
    id: PackId,
    file: &dyn DiskFile,
    offset: u64,
    len: u64,
) -> Result<String> {
    /// Bytes copied at a time.
    const COPY_BYTES: usize = 1 << 20;
    make_set_aside_dir(disk)?;
    let kept_in = format!("{SET_ASIDE_DIR}/{id}-{offset}.tail");
    if disk.open(&kept_in)?.is_some() {
        disk.remove(&kept_in)?;
    }
    let copy = disk.create(&kept_in)?;
    let mut copied = 0;
    while copied < len {
        let step = usize::try_from(len - copied).unwrap_or(usize::MAX).min(COPY_BYTES);
        let bytes = file.read_at(offset + copied, step)?;
        if bytes.is_empty() {
            break;
        }
        copy.write_at(&bytes, copied)?;
        copied += bytes.len() as u64;
    }
    copy.sync()?;
    disk.sync_dir(SET_ASIDE_DIR)?;
    // IMPORTANT: only now. Should the rule that decided to cut ever be wrong, the bytes
    // are still there.
    file.truncate(offset)?;
    file.sync()?;
    Ok(kept_in)
}

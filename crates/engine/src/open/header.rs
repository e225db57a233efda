//! The file `store`: what holds for the whole data directory.

use granary_castore::{Error, Result};

use super::OpenError;
use crate::{
    chunker::{AVERAGE_CHUNK_LIMITS, CHUNKER_ID, Chunker},
    disk::Disk,
    format::{STORE_HEADER_BYTES, StoreHeader, StoreId, VersionProblem},
    normalise::NORMALISER_ID,
    packs::{PACKS_DIR, PackId},
};

const FILE: &str = "store";
const NEW_FILE: &str = "store.new";

/// Reads the header, or makes one for a new store, whose chunks are to have
/// `average_chunk_bytes`.
pub(super) fn read_or_create(
    disk: &dyn Disk,
    average_chunk_bytes: u32,
) -> Result<(StoreHeader, Chunker), OpenError> {
    let Some(file) = disk.open(FILE).map_err(Error::from)? else {
        return create(disk, average_chunk_bytes);
    };
    let bytes = file.read_at(0, STORE_HEADER_BYTES).map_err(Error::from)?;
    let header = StoreHeader::decode(&bytes).and_then(|header| {
        let StoreHeader { chunker, normaliser, .. } = header;
        Chunker::new(header.average_chunk_bytes)
            .filter(|_| (chunker, normaliser) == (CHUNKER_ID, NORMALISER_ID))
            .map(|chunker| (header, chunker))
            .ok_or(VersionProblem::OtherRules { chunker, normaliser })
    });
    header.map_err(|problem| OpenError::Incompatible {
        file: FILE.to_owned(),
        problem: problem.to_string(),
    })
}

fn create(disk: &dyn Disk, average_chunk_bytes: u32) -> Result<(StoreHeader, Chunker), OpenError> {
    let chunker = Chunker::new(average_chunk_bytes).ok_or_else(|| {
        Error::invalid(format!(
            "chunks of {average_chunk_bytes} bytes on average: it must be a power of two from \
             {} to {}",
            AVERAGE_CHUNK_LIMITS.start(),
            AVERAGE_CHUNK_LIMITS.end()
        ))
    })?;
    let packs = disk.list(PACKS_DIR).map_err(Error::from)?;
    if packs.iter().any(|name| PackId::from_file_name(name).is_some()) {
        return Err(OpenError::Incompatible {
            file: FILE.to_owned(),
            problem: "it is missing, but there are packs; restore it from a backup, or take \
                      it from a copy of this data directory"
                .to_owned(),
        });
    }
    let mut random = [0; 24];
    getrandom::fill(&mut random)
        .map_err(|cause| Error::unavailable("cannot get random bits").because(cause))?;
    let (store_id, writer) = random.split_at(16);
    let header = StoreHeader {
        store_id: StoreId(store_id.try_into().expect("16 bytes were split off")),
        chunker: CHUNKER_ID,
        normaliser: NORMALISER_ID,
        average_chunk_bytes,
        writer: u64::from_le_bytes(writer.try_into().expect("8 of 24 bytes are left")),
    };
    write(disk, &header).map_err(Error::from)?;
    Ok((header, chunker))
}

/// Under another name first, so that there is never half a header.
fn write(disk: &dyn Disk, header: &StoreHeader) -> Result<(), crate::disk::DiskError> {
    if disk.open(NEW_FILE)?.is_some() {
        disk.remove(NEW_FILE)?;
    }
    let file = disk.create(NEW_FILE)?;
    file.write_at(&header.encode(), 0)?;
    file.sync()?;
    disk.rename(NEW_FILE, FILE)?;
    disk.sync_dir("")
}

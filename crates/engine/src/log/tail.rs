//! The pack that is being appended to.

use std::sync::Arc;

use granary_castore::Result;

use crate::{
    disk::{Disk, DiskFile, DiskResult},
    format::{Footer, PACK_HEADER_BYTES, PackHeader, Segment, StoreId},
    packs::{PACKS_DIR, PackId},
};

/// An unsealed pack, and where its valid bytes end.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) handle: u32,
    pub(crate) id: PackId,
    file: Arc<dyn DiskFile>,
    len: u64,
    segment_offsets: Vec<u64>,
}

impl Tail {
    /// Makes a new pack. Its name and header are durable before anything is appended, so
    /// that a pack with segments and without a header is damage, never a crash.
    pub(crate) fn create(disk: &dyn Disk, store_id: StoreId, handle: u32) -> Result<Self> {
        let id = PackId::random()?;
        let name = id.file_name();
        let file = disk.create(&name)?;
        let header = PackHeader { pack_id: id.0, store_id }.encode();
        let written = file
            .write_at(&header, 0)
            .and_then(|()| file.sync())
            .and_then(|()| disk.sync_dir(PACKS_DIR));
        if let Err(error) = written {
            // It has no contents; if it stays, opening sets it aside.
            if let Err(left) = disk.remove(&name) {
                tracing::warn!(name, error = %left, "a pack without contents is left behind");
            }
            return Err(error.into());
        }
        let len = PACK_HEADER_BYTES as u64;
        Ok(Self { handle, id, file, len, segment_offsets: Vec::new() })
    }

    /// Goes on with a pack whose segments were checked and end at `len`.
    pub(crate) fn resume(
        handle: u32,
        id: PackId,
        file: Arc<dyn DiskFile>,
        len: u64,
        segment_offsets: Vec<u64>,
    ) -> Self {
        Self { handle, id, file, len, segment_offsets }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Appends a segment, without a sync, and returns where it begins. If that fails, the
    /// pack ends where it ended before.
    pub(crate) fn append(&mut self, segment: &Segment) -> DiskResult<u64> {
        let offset = self.len;
        let pieces = segment.pieces();
        if let Err(error) = self.file.write_pieces_at(&pieces, offset) {
            self.cut();
            return Err(error);
        }
        self.segment_offsets.push(offset);
        self.len += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        Ok(offset)
    }

    /// Makes all segments durable.
    pub(crate) fn sync(&self) -> DiskResult<()> {
        self.file.sync()
    }

    /// Writes the footer, without a sync. The segments must be synced. If that fails, the
    /// pack is unsealed as before.
    pub(crate) fn write_footer(&self, store_id: StoreId) -> DiskResult<()> {
        let footer = Footer { segment_offsets: self.segment_offsets.clone() }.encode(store_id);
        self.file.write_at(&footer, self.len).inspect_err(|_| self.cut())
    }

    /// Removes what a failed write may have left. If that fails too, the next append
    /// writes over it, and opening knows a torn tail.
    fn cut(&self) {
        if let Err(error) = self.file.truncate(self.len) {
            tracing::warn!(pack = %self.id, %error, "cannot cut off what a failed write left");
        }
    }
}

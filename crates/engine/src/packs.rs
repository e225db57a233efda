//! The packs of a store, for reading.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use granary_castore::{Error, Result};
use quick_cache::sync::Cache;

use crate::{
    buffers::Buffers,
    disk::{Disk, DiskFile},
    format::{
        ContentsTag, FRAME_HEADER_BYTES, FrameCheck, FrameHeader, MAX_FRAME_RAW_BYTES, Malformed,
        PackedFrame,
    },
    frame_cache::FrameCache,
    index::Location,
};

/// Directory of the packs in the data directory.
pub(crate) const PACKS_DIR: &str = "packs";

/// Most packs that are open for reading at a time.
const MAX_OPEN_PACKS: usize = 256;

/// Most bytes of a frame before compression that is read for who must not wait, who should not be
/// kept long either. Hardly a frame has more, unless larger ones are asked for.
const MAX_RAW_BYTES_NOW: usize = 4 << 20;

/// Identifies a pack for ever: 128 random bits, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackId(pub(crate) [u8; 16]);

impl PackId {
    /// A new one.
    pub(crate) fn random() -> Result<Self> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|cause| Error::unavailable("cannot get random bits").because(cause))?;
        Ok(Self(id))
    }

    /// File name relative to the data directory.
    pub(crate) fn file_name(self) -> String {
        format!("{PACKS_DIR}/{self}.pack")
    }

    /// From its 32 hexadecimal digits, as it is displayed; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_file_name(&format!("{text}.pack"))
    }

    /// From a file name without its directory; `None` if that is no pack's name.
    pub(crate) fn from_file_name(name: &str) -> Option<Self> {
        let hex = name.strip_suffix(".pack")?;
        let well_formed =
            hex.len() == 32 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let id = u128::from_str_radix(hex, 16).ok().filter(|_| well_formed)?;
        Some(Self(id.to_be_bytes()))
    }
}

impl std::fmt::Display for PackId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Opens packs and reads checked frames from them.
pub(crate) struct Packs {
    disk: Arc<dyn Disk>,
    ids: RwLock<HashMap<u32, PackId>>,
    /// How many packs were removed: what could not be read may have been moved if that changes.
    removals: AtomicU64,
    files: Cache<u32, Arc<dyn DiskFile>>,
    frames: FrameCache,
    /// For frames that go to somebody as they are stored, and for those that are decompressed at once.
    buffers: Buffers,
}

impl Packs {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            ids: RwLock::default(),
            removals: AtomicU64::new(0),
            files: Cache::new(MAX_OPEN_PACKS),
            frames: FrameCache::default(),
            buffers: Buffers::default(),
        }
    }

    /// Makes a pack known under its handle.
    pub(crate) fn add(&self, handle: u32, id: PackId) {
        self.ids.write().unwrap_or_else(PoisonError::into_inner).insert(handle, id);
    }

    /// Forgets a pack whose objects lie elsewhere now, or nowhere.
    pub(crate) fn remove(&self, handle: u32) -> Option<PackId> {
        // IMPORTANT: in this order. Who does not find it any more must see that some was removed.
        self.removals.fetch_add(1, Ordering::AcqRel);
        let id = self.ids.write().unwrap_or_else(PoisonError::into_inner).remove(&handle);
        // Its space is free once nobody has it open.
        self.files.remove(&handle);
        id
    }

    /// To be noted before an object is looked up.
    pub(crate) fn removals(&self) -> u64 {
        self.removals.load(Ordering::Acquire)
    }

    /// Whether the pack with a handle is known, or was removed since somebody got its handle.
    pub(crate) fn is_known(&self, handle: u32) -> bool {
        self.ids.read().unwrap_or_else(PoisonError::into_inner).contains_key(&handle)
    }

    /// Handles and names of all packs.
    pub(crate) fn all(&self) -> Vec<(u32, PackId)> {
        let ids = self.ids.read().unwrap_or_else(PoisonError::into_inner);
        ids.iter().map(|(handle, id)| (*handle, *id)).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.ids.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The name of a pack, if there is one with that handle.
    pub(crate) fn known_id(&self, handle: u32) -> Option<PackId> {
        self.ids.read().unwrap_or_else(PoisonError::into_inner).get(&handle).copied()
    }

    fn id(&self, handle: u32) -> Result<PackId> {
        self.known_id(handle).ok_or_else(|| {
            Error::corrupt(format!("the index names pack {handle}, which is unknown"))
        })
    }

    fn file(&self, handle: u32) -> Result<(PackId, Arc<dyn DiskFile>)> {
        let id = self.id(handle)?;
        if let Some(file) = self.files.get(&handle) {
            return Ok((id, file));
        }
        let file = self
            .disk
            .open(&id.file_name())?
            .ok_or_else(|| Error::corrupt(format!("{} is missing", id.file_name())))?;
        self.files.insert(handle, Arc::clone(&file));
        if !self.is_known(handle) {
            // Removed meanwhile: its space must become free.
            self.files.remove(&handle);
        }
        Ok((id, file))
    }

    /// The bytes of an object. They passed the checksum of their frame; whether they are
    /// the object that was asked for, only its digest tells.
    pub(crate) fn read(&self, location: &Location) -> Result<Bytes> {
        let raw = self.frame(location)?;
        let (start, len) = (location.offset as usize, location.len as usize);
        if raw.len() < start + len {
            return Err(self.damaged(location, "the frame is shorter than the index says"));
        }
        Ok(raw.slice(start..start + len))
    }

    /// Forgets what is kept in memory of the frame that an object lies in: what is read next of
    /// it comes from the disk.
    pub(crate) fn forget_frame(&self, location: &Location) {
        self.frames.forget(location);
    }

    /// The raw bytes of the frame that an object lies in, for whoever wants but some of them
    /// now: what is left may be wanted soon.
    pub(crate) fn frame(&self, location: &Location) -> Result<Bytes> {
        if let Some(frame) = self.frames.partial(location) {
            return Ok(frame);
        }
        self.unpack_shared(location, &self.packed_frame(location)?)
    }

    /// The raw bytes of a frame, for whoever wants but the object there now.
    pub(crate) fn unpack_shared(&self, location: &Location, frame: &PackedFrame) -> Result<Bytes> {
        let raw = self.unpack(location, frame)?;
        if (location.len as usize) < raw.len() {
            self.frames.keep_partial(location, &raw);
        }
        Ok(raw)
    }

    /// What is kept of frames in memory.
    pub(crate) fn frames(&self) -> &FrameCache {
        &self.frames
    }

    /// The raw bytes of a frame, which an object lies in.
    pub(crate) fn unpack(&self, location: &Location, frame: &PackedFrame) -> Result<Bytes> {
        frame.unpack().map_err(|problem| self.damaged_frame(location, problem))
    }

    /// The frame that an object lies in as it is stored, its checksum checked.
    pub(crate) fn packed_frame(&self, location: &Location) -> Result<PackedFrame> {
        PackedFrame::check(self.stored_frame(location)?)
            .map_err(|problem| self.damaged_frame(location, problem))
    }

    /// The bytes of an object, as [`read`](Self::read) gives them, if that can be told without waiting
    /// for a disk.
    pub(crate) fn read_now(&self, location: &Location) -> Option<Bytes> {
        let raw = match self.frames.partial(location) {
            Some(frame) => frame,
            None => self.unpack_shared(location, &self.packed_frame_now(location)?).ok()?,
        };
        let (start, len) = (location.offset as usize, location.len as usize);
        (start + len <= raw.len()).then(|| raw.slice(start..start + len))
    }

    /// The frame that an object lies in as it is stored, its checksum checked, if that can be told
    /// without waiting for a disk.
    pub(crate) fn packed_frame_now(&self, location: &Location) -> Option<PackedFrame> {
        let mut reader = self.read_in_memory(location)?;
        let mut start = [0; FRAME_HEADER_BYTES];
        reader.read(&mut start)?;
        let header = FrameHeader::decode(&start).ok()?;
        let is_wanted = header.frame_len() == location.frame_len as usize
            && header.raw_len as usize <= MAX_RAW_BYTES_NOW;
        if !is_wanted {
            return None;
        }
        let bytes = if header.is_compressed() {
            let mut buffer = self.buffers.take(header.frame_len());
            let (place, stored) = buffer.as_mut().split_at_mut(FRAME_HEADER_BYTES);
            place.copy_from_slice(&start);
            reader.read(stored)?;
            buffer.freeze()
        } else {
            // It will be passed on as it is, and perhaps be kept: not in a buffer that may be longer.
            let mut bytes = vec![0; header.frame_len()];
            let (place, stored) = bytes.split_at_mut(FRAME_HEADER_BYTES);
            place.copy_from_slice(&start);
            reader.read(stored)?;
            bytes.into()
        };
        PackedFrame::check(bytes).ok()
    }

    /// Reads the pack that an object lies in, from the beginning of its frame on, as far as that is
    /// in memory.
    fn read_in_memory(&self, location: &Location) -> Option<InMemory> {
        if !self.is_known(location.pack) {
            return None;
        }
        // What is not open would have to be looked for on the disk.
        let file = self.files.get(&location.pack)?;
        Some(InMemory { file, offset: location.frame_offset.into() })
    }

    /// The raw bytes of the frame that an object lies in as one frame of zstd, its checksum
    /// checked, if they are `raw_len` bytes with the tag `tag`, and if that can be told without
    /// waiting for a disk.
    pub(crate) fn zstd_now(
        &self,
        location: &Location,
        raw_len: u64,
        tag: ContentsTag,
    ) -> Option<Bytes> {
        let mut reader = self.read_in_memory(location)?;
        let mut header = [0; FRAME_HEADER_BYTES];
        reader.read(&mut header)?;
        let (header, mut check) = FrameCheck::begin(&header).ok()?;
        let is_wanted = header.frame_len() == location.frame_len as usize
            && u64::from(header.raw_len) == raw_len
            && header.contents_tag == tag;
        if !is_wanted {
            return None;
        }
        // No longer than what is wanted, and what zstd has between.
        let mut buffer = self.buffers.take(header.zstd_len());
        for place in header.zstd_places(buffer.as_mut()) {
            // Each is hashed while it is in the processor's cache.
            reader.read(place)?;
            check.add(place);
        }
        check.end().ok()?;
        Some(buffer.freeze())
    }

    /// Length of the raw bytes of the frame that an object lies in, as its header says.
    pub(crate) fn frame_raw_len(&self, location: &Location) -> Result<u64> {
        let (_, file) = self.file(location.pack)?;
        let header = file.read_at(location.frame_offset.into(), FRAME_HEADER_BYTES)?;
        let header = FrameHeader::decode(&header)
            .map_err(|problem| self.damaged_frame(location, problem))?;
        Ok(header.raw_len.into())
    }

    fn damaged_frame(&self, location: &Location, problem: Malformed) -> Error {
        self.damaged(location, "the frame is damaged").because(problem)
    }

    /// Header and stored bytes of a frame, unchecked.
    fn stored_frame(&self, location: &Location) -> Result<Bytes> {
        let (_, file) = self.file(location.pack)?;
        let frame_len = location.frame_len as usize;
        if frame_len > MAX_FRAME_RAW_BYTES + FRAME_HEADER_BYTES {
            return Err(self.damaged(location, "the frame is larger than frames may be"));
        }
        Ok(file.read_at(u64::from(location.frame_offset), frame_len)?.into())
    }

    pub(crate) fn damaged(&self, location: &Location, problem: &str) -> Error {
        let name = self.id(location.pack).map_or_else(|_| "a pack".to_owned(), PackId::file_name);
        Error::corrupt(format!("{name} at byte {}: {problem}", location.frame_offset))
    }
}

/// Reads on in a file, without waiting for a disk.
struct InMemory {
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl InMemory {
    /// Fills `place` with what comes next; `None` if not all of that is in memory.
    fn read(&mut self, place: &mut [u8]) -> Option<()> {
        let is_read = self.file.read_cached(self.offset, place).unwrap_or_default();
        self.offset += place.len() as u64;
        is_read.then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let id = PackId([0x0a; 16]);
        assert_eq!(id.file_name(), format!("packs/{}.pack", "0a".repeat(16)));
        assert_eq!(PackId::from_file_name(&format!("{id}.pack")), Some(id));
        for other in ["", ".pack", "x.pack", &format!("{id}"), &format!("{}.pack", "0A".repeat(16))]
        {
            assert_eq!(PackId::from_file_name(other), None, "{other}");
        }
    }
}

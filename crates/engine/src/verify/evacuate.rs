//! Moving what is left out of packs that are damaged beyond their frames.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    num::NonZero,
    sync::atomic::Ordering,
};

use granary_castore::{Error, Result, Severity};

use super::{Collector, Effect, PackSnapshot, PackWalk, Snapshot, VerifyOptions};
use crate::{
    compression::Compressor,
    engine::{Engine, Inner},
    format::{BlobRecord, Object, ObjectKind, PACK_HEADER_BYTES, Record, StoredFrame, ValueRecord},
    index::{Located, Location},
    log::{Maintenance, MovedFrame, Request},
    object_key::ObjectKey,
    open::{SET_ASIDE_DIR, Scanner},
    packs::{PACKS_DIR, PackId},
};

/// Values, and blobs, that are moved together.
const MOVED_TOGETHER: usize = 1_000;

impl Engine {
    /// Moves everything that the index knows out of a pack whose records are damaged, or that is
    /// missing or cut off, and sets the pack aside. False if it is no such pack, or if it holds
    /// what the index does not know, which would be lost.
    ///
    /// What cannot be read must have been [given up](Self::quarantine).
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] while a collection is under way, or if what was moved could not be
    /// made durable. Nothing is lost then.
    pub fn evacuate(&self, id: PackId) -> Result<bool> {
        let inner = &self.inner;
        if inner.is_collecting.swap(true, Ordering::AcqRel) {
            return Err(Error::unavailable(
                "a garbage collection is under way: wait until it has ended",
            ));
        }
        let evacuated = inner.evacuate(id);
        inner.is_collecting.store(false, Ordering::Release);
        if matches!(evacuated, Ok(true)) {
            inner.damage.set_places(Some(id), []);
            tracing::warn!(pack = %id, "moved what was left out of a damaged pack and set it aside");
        }
        evacuated
    }
}

impl Inner {
    fn evacuate(&self, id: PackId) -> Result<bool> {
        // Nothing is to be appended to it meanwhile.
        self.log.ask(|answer| Request::Maintain(Maintenance::CloseTail { answer }))?;
        let snapshot = Snapshot::take(self)?;
        let Some(pack) = snapshot.packs.iter().find(|pack| pack.id == id) else {
            return Ok(false);
        };
        if !self.is_broken(*pack)? {
            return Ok(false);
        }
        let losses = self.log.losses();
        let handle = pack.handle;
        self.index.sync()?;
        let (mut objects, mut blobs) = (Vec::new(), Vec::new());
        for entry in self.index.written_objects() {
            match entry? {
                (ObjectKey::Object(kind, digest), pack) if pack == handle => {
                    objects.push((kind, digest));
                }
                (ObjectKey::Blob(digest), pack) if pack == handle => blobs.push(digest),
                _ => {}
            }
        }
        if !self.move_objects(handle, &objects)? {
            return Ok(false);
        }
        self.move_blobs(handle, &blobs)?;
        self.move_values(&snapshot, handle)?;
        let handles = vec![handle];
        self.log.ask(|answer| {
            Request::Maintain(Maintenance::ForgetPacks { losses, handles, answer })
        })?;
        // IMPORTANT: before the file goes. An index that a crash leaves must not point to it.
        self.index.sync()?;
        self.packs.remove(handle);
        self.set_aside(id)?;
        Ok(true)
    }

    /// Whether more of a pack is damaged than frames, and the index knows all the rest.
    fn is_broken(&self, pack: PackSnapshot) -> Result<bool> {
        let collector = Collector::default();
        let options = VerifyOptions { data: false, threads: NonZero::<usize>::MIN };
        PackWalk::new(self, options, &collector, &()).run(&[pack])?;
        let report = collector.into_report();
        let errors = || report.findings.iter().filter(|found| found.severity == Severity::Error);
        Ok(errors().any(|found| found.objects.is_empty())
            && !errors().any(|found| found.effect == Effect::Unindexed))
    }

    /// False if one of the objects cannot be read.
    fn move_objects(&self, handle: u32, objects: &[(ObjectKind, [u8; 32])]) -> Result<bool> {
        let mut located = Vec::with_capacity(objects.len());
        for (kind, digest) in objects {
            let Some(found) = self.index.located(*kind, digest)? else { continue };
            let kind = match found {
                Located::Patched(_) => ObjectKind::Patch,
                Located::Frame(_) => *kind,
            };
            located.push((*found.location(), kind, *digest));
        }
        located.retain(|(location, ..)| location.pack == handle);
        located.sort_unstable_by_key(|(location, ..)| (location.frame_offset, location.offset));
        let mut compressor = Compressor::new(self.compression)?;
        for of_frame in located.chunk_by(|(a, ..), (b, ..)| a.frame_offset == b.frame_offset) {
            let Some(moved) = self.moved_frame(of_frame, &mut compressor)? else {
                return Ok(false);
            };
            self.log.send(Request::Maintain(Maintenance::MoveFrame(moved)))?;
        }
        Ok(true)
    }

    /// A frame with what is wanted of one; `None` if that cannot be read.
    fn moved_frame(
        &self,
        of_frame: &[(Location, ObjectKind, [u8; 32])],
        compressor: &mut Compressor,
    ) -> Result<Option<MovedFrame>> {
        let (mut raw, mut objects, mut from) = (Vec::new(), Vec::new(), Vec::new());
        for (location, kind, digest) in of_frame {
            let bytes = match self.packs.read(location) {
                Ok(bytes) => bytes,
                Err(Error::Corrupt(_)) => return Ok(None),
                Err(error) => return Err(error),
            };
            let len = location.len;
            let object = Object { kind: *kind, digest: *digest, len, literals_len: 0 };
            // IMPORTANT: whoever reads it from its new frame believes the checksum of that.
            if !object.is_in(&bytes) {
                return Ok(None);
            }
            raw.extend_from_slice(&bytes);
            objects.push(object);
            from.push(*location);
        }
        let frame = StoredFrame::compress(&raw, &objects, compressor);
        Ok(Some(MovedFrame { frame, objects, from }))
    }

    fn move_blobs(&self, handle: u32, digests: &[[u8; 32]]) -> Result<()> {
        for digests in digests.chunks(MOVED_TOGETHER) {
            let blobs = digests.iter().map(|digest| self.index.blob(digest));
            let blobs: Vec<Option<BlobRecord>> = blobs.collect::<std::result::Result<_, _>>()?;
            let blobs = blobs.into_iter().flatten().collect();
            self.log.send(Request::Maintain(Maintenance::MoveBlobs { pack: handle, blobs }))?;
        }
        Ok(())
    }

    /// Writes anew the values that no valid record of another pack tells of.
    fn move_values(&self, snapshot: &Snapshot, handle: u32) -> Result<()> {
        let (hasher, mut recorded) = (RandomState::new(), HashSet::new());
        for pack in snapshot.packs.iter().filter(|pack| pack.handle != handle) {
            self.recorded_values(*pack, |value| {
                recorded.insert(hasher.hash_one((value.kind, &value.key, place(value))));
            })?;
        }
        let mut start = None;
        loop {
            let (mut values, next) = self.index.scan_placed_values(start.as_deref())?;
            values.retain(|value| {
                !recorded.contains(&hasher.hash_one((value.kind, &value.key, place(value))))
            });
            if !values.is_empty() {
                self.log.ask(|answer| {
                    let forgotten = Vec::new();
                    Request::Maintain(Maintenance::MoveValues { values, forgotten, answer })
                })?;
            }
            if next.is_none() {
                return Ok(());
            }
            start = next;
        }
    }

    /// Tells of all values that valid records of a pack have.
    fn recorded_values(
        &self,
        pack: PackSnapshot,
        mut on_value: impl FnMut(&ValueRecord),
    ) -> Result<()> {
        let Some(file) = self.disk.open(&pack.id.file_name())? else { return Ok(()) };
        let scanner = Scanner::up_to(&*file, self.store_id, pack.end.unwrap_or(u64::MAX))?;
        let mut offset = PACK_HEADER_BYTES as u64;
        while offset < scanner.limit() {
            match scanner.records(offset)? {
                Ok((header, records)) => {
                    for record in &records {
                        if let Record::Value(value) = record {
                            on_value(value);
                        }
                    }
                    offset += header.segment_len();
                }
                Err(_) => offset = super::packs::next_segment(&scanner, offset)?,
            }
        }
        Ok(())
    }

    /// Moves the file of a pack out of the way, if it is there.
    fn set_aside(&self, id: PackId) -> Result<()> {
        if self.disk.open(&id.file_name())?.is_none() {
            return Ok(());
        }
        self.disk.create_dir(SET_ASIDE_DIR)?;
        self.disk.sync_dir("")?;
        self.disk.rename(&id.file_name(), &format!("{SET_ASIDE_DIR}/{id}.pack"))?;
        self.disk.sync_dir(SET_ASIDE_DIR)?;
        Ok(self.disk.sync_dir(PACKS_DIR)?)
    }
}

/// The place of a value, to be hashed.
fn place(value: &ValueRecord) -> (u32, u64, u64) {
    (value.place.epoch, value.place.writer, value.place.sequence)
}

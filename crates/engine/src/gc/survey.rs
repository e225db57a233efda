//! What is left in a pack once garbage is taken away.

use std::collections::HashSet;

use granary_castore::Result;

use super::courtesy::Courtesy;
use super::frames::{OBJECT_RECORD_BYTES, share};
use crate::{
    engine::Inner,
    format::{
        BLOB_ENTRY_BYTES, BlobRecord, FrameObjects, Object, ObjectKind, PACK_HEADER_BYTES, Record,
        SEGMENT_HEADER_BYTES, ValueRecord,
    },
    gc::lease,
    index::Location,
    object_key::ObjectKey,
    open::Scanner,
    packs::PackId,
};

/// Type and length of a record.
const RECORD_HEADER_BYTES: u64 = 5;

/// What an old pack holds.
#[derive(Debug)]
pub(super) struct PackSurvey {
    pub(super) handle: u32,
    pub(super) id: PackId,
    /// Length of the file.
    pub(super) stored_bytes: u64,
    /// Of it, what would be left if all that is not wanted were taken out.
    pub(super) live_bytes: u64,
    pub(super) dead_objects: u64,
    /// Parts of it cannot be read, so nobody knows what lies there.
    pub(super) is_damaged: bool,
}

impl PackSurvey {
    pub(super) fn unused_bytes(&self) -> u64 {
        self.stored_bytes.saturating_sub(self.live_bytes)
    }
}

/// Goes through packs.
pub(super) struct Surveyor<'a> {
    engine: &'a Inner,
    now_s: u64,
    courtesy: Courtesy<'a>,
    /// Hashes of keys that have older values than the newest in some pack.
    superseded: HashSet<u64>,
}

/// What is live of a frame.
pub(super) struct LiveObjects {
    /// Where each object lies.
    pub(super) locations: Vec<Location>,
    /// Whether each is live here.
    pub(super) live: Vec<bool>,
    /// Those that are dead in the whole pack.
    dead: Vec<ObjectKey>,
}

impl<'a> Surveyor<'a> {
    pub(super) fn new(engine: &'a Inner) -> Self {
        let (now_s, courtesy) = (lease::now_s(), Courtesy::new(engine));
        Self { engine, now_s, courtesy, superseded: HashSet::new() }
    }

    /// Looks at a pack, and returns with it what is dead there.
    pub(super) fn survey(
        &mut self,
        handle: u32,
        id: PackId,
    ) -> Result<(PackSurvey, Vec<ObjectKey>)> {
        let mut survey = PackSurvey {
            handle,
            id,
            stored_bytes: 0,
            live_bytes: 0,
            dead_objects: 0,
            is_damaged: false,
        };
        let mut dead = Vec::new();
        let Some(file) = self.engine.disk.open(&id.file_name())? else {
            survey.is_damaged = true;
            return Ok((survey, dead));
        };
        survey.stored_bytes = file.len()?;
        let mut live_bytes = 0;
        let mut segments_end = PACK_HEADER_BYTES as u64;
        survey.is_damaged = scan(self.engine, id, |offset, records, end| {
            let before = live_bytes;
            for record in &records {
                live_bytes += match record {
                    Record::Frame(frame) => self.frame(handle, offset, frame, &mut dead)?,
                    Record::Blob(blob) => self.blob(handle, blob, &mut dead)?,
                    Record::Value(value) => self.value(value)?,
                };
            }
            if live_bytes > before {
                live_bytes += SEGMENT_HEADER_BYTES as u64;
            }
            segments_end = end;
            self.courtesy.rest();
            Ok(())
        })?;
        if live_bytes > 0 {
            // Its own header and footer.
            let footer_bytes = survey.stored_bytes.saturating_sub(segments_end);
            live_bytes += PACK_HEADER_BYTES as u64 + footer_bytes;
        }
        survey.live_bytes = live_bytes.min(survey.stored_bytes);
        survey.dead_objects = dead.len() as u64;
        Ok((survey, dead))
    }

    fn frame(
        &self,
        handle: u32,
        segment_offset: u64,
        frame: &FrameObjects,
        dead: &mut Vec<ObjectKey>,
    ) -> Result<u64> {
        let found = live_objects(self.engine, handle, segment_offset, frame)?;
        dead.extend(found.dead);
        let (mut raw_len, mut live_len, mut live_count) = (0, 0, 0);
        for (object, is_live) in frame.objects.iter().zip(found.live) {
            let len = u64::from(object.len) + u64::from(object.literals_len);
            raw_len += len;
            if is_live {
                live_len += len;
                live_count += 1;
            }
        }
        if live_count == 0 {
            return Ok(0);
        }
        let frame_bytes = share(frame.frame_len.into(), live_len, raw_len);
        Ok(frame_bytes + RECORD_HEADER_BYTES + 8 + live_count * OBJECT_RECORD_BYTES)
    }

    fn blob(&self, handle: u32, blob: &BlobRecord, dead: &mut Vec<ObjectKey>) -> Result<u64> {
        if is_live_blob(self.engine, handle, blob)? {
            return Ok(RECORD_HEADER_BYTES + 33 + (blob.entries.len() * BLOB_ENTRY_BYTES) as u64);
        }
        dead.push(ObjectKey::Blob(blob.digest));
        Ok(0)
    }

    fn value(&mut self, value: &ValueRecord) -> Result<u64> {
        if !is_newest(self.engine, value)? {
            self.superseded.insert(key_hash(value));
            return Ok(0);
        }
        if lease::is_expired(value, self.now_s) {
            return Ok(0);
        }
        let value_len = value.value.as_ref().map_or(0, Vec::len);
        Ok(RECORD_HEADER_BYTES + 26 + (value.key.len() + value_len) as u64)
    }

    /// Whether a value that is the newest of its key may be forgotten: a lease that is over, or a
    /// tombstone that no older value lies under, in any pack.
    pub(super) fn may_forget(&self, value: &ValueRecord) -> bool {
        lease::is_expired(value, self.now_s)
            || value.value.is_none() && !self.superseded.contains(&key_hash(value))
    }
}

/// Calls `on_segment` with where each readable segment of a pack begins, its records and where it
/// ends. True if some are not readable, or the pack is gone.
pub(super) fn scan(
    engine: &Inner,
    id: PackId,
    mut on_segment: impl FnMut(u64, Vec<Record>, u64) -> Result<()>,
) -> Result<bool> {
    let Some(file) = engine.disk.open(&id.file_name())? else { return Ok(true) };
    let scanner = Scanner::new(&*file, engine.store_id)?;
    let from = PACK_HEADER_BYTES as u64;
    let on_segment = &mut |offset, header: &crate::format::SegmentHeader, records| {
        on_segment(offset, records, offset + header.segment_len())
    };
    let by_footer = scanner.scan_by_footer(from, on_segment)?;
    let end = if let Some(end) = by_footer { end } else { scanner.scan(from, on_segment)? };
    Ok(!end.damage.is_empty() || end.torn.is_some())
}

/// What is live of a frame that a segment at `segment_offset` has.
pub(super) fn live_objects(
    engine: &Inner,
    handle: u32,
    segment_offset: u64,
    frame: &FrameObjects,
) -> Result<LiveObjects> {
    let frame_offset = segment_offset + SEGMENT_HEADER_BYTES as u64 + u64::from(frame.offset);
    let frame_offset = u32::try_from(frame_offset).unwrap_or(u32::MAX);
    let mut found = LiveObjects { locations: Vec::new(), live: Vec::new(), dead: Vec::new() };
    let mut offset = 0_u32;
    for object in &frame.objects {
        offset = offset.saturating_add(object.literals_len.into());
        let len = object.len;
        let location =
            Location { pack: handle, frame_offset, frame_len: frame.frame_len, offset, len };
        offset = offset.saturating_add(len);
        let place = place_of(engine, object)?;
        found.live.push(place == Some(location));
        if object.kind != ObjectKind::Duplicate && place.is_none_or(|place| place.pack != handle) {
            found.dead.push(ObjectKey::of(object));
        }
        found.locations.push(location);
    }
    Ok(found)
}

/// Where an object lies, if it is wanted.
fn place_of(engine: &Inner, object: &Object) -> Result<Option<Location>> {
    let key = ObjectKey::of(object);
    let ObjectKey::Object(kind, digest) = key else { return Ok(None) };
    if kind == ObjectKind::Duplicate || !engine.guard.lock().is_marked(&key) {
        return Ok(None);
    }
    Ok(engine.index.located(kind, &digest)?.map(|located| *located.location()))
}

/// Whether a blob is wanted and its record in the pack with this handle is the one that counts.
pub(super) fn is_live_blob(engine: &Inner, handle: u32, blob: &BlobRecord) -> Result<bool> {
    let key = ObjectKey::Blob(blob.digest);
    if !engine.guard.lock().is_marked(&key) {
        return Ok(false);
    }
    Ok(engine.index.pack_of(&key)? == Some(handle))
}

/// Whether a value, or tombstone, is the newest of its key.
pub(super) fn is_newest(engine: &Inner, value: &ValueRecord) -> Result<bool> {
    let newest = engine.index.value(value.kind, &value.key)?;
    Ok(newest.is_some_and(|(place, _)| place == value.place))
}

/// Two keys with the same hash only make a tombstone stay longer.
fn key_hash(value: &ValueRecord) -> u64 {
    twox_hash::XxHash3_64::oneshot_with_seed(value.kind.into(), &value.key)
}

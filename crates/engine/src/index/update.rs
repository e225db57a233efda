//! From the records of a segment to entries of the index. Writing, replay and rebuilding
//! all come through here.

use super::{
    Index, IndexError,
    entry::{self, Entry, Key, Located, Location, PackEntry, State, Totals},
};
use crate::{
    format::{
        BlobRecord, FrameObjects, Malformed, ObjectKind, Record, SEGMENT_HEADER_BYTES, ValueRecord,
    },
    object_key::ObjectKey,
};

/// Entries to be written together.
#[derive(Debug, Default)]
pub(crate) struct Update {
    entries: Vec<Entry>,
}

/// How the records of a segment relate to what is in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Novelty {
    /// They were just written, and checked before that.
    New,
    /// They are read from a pack: the index may have the same or something newer.
    Unknown,
}

impl Update {
    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries for the records of a segment that begins at `segment_offset` of `pack`, the
    /// sums of what is new among them added to `totals`.
    pub(crate) fn add_segment(
        &mut self,
        index: &Index,
        novelty: Novelty,
        pack: u32,
        segment_offset: u64,
        records: &[Record],
        totals: &mut Totals,
    ) -> Result<(), IndexError> {
        for record in records {
            match record {
                Record::Frame(frame) => {
                    self.add_frame(index, novelty, pack, segment_offset, frame, totals)?;
                }
                Record::Blob(blob) => self.add_blob(index, novelty, pack, blob, totals)?,
                Record::Value(value) => self.add_value(index, novelty, value)?,
            }
        }
        Ok(())
    }

    fn add_frame(
        &mut self,
        index: &Index,
        novelty: Novelty,
        pack: u32,
        segment_offset: u64,
        frame: &FrameObjects,
        totals: &mut Totals,
    ) -> Result<(), IndexError> {
        let frame_offset = segment_offset + SEGMENT_HEADER_BYTES as u64 + u64::from(frame.offset);
        let frame_offset =
            u32::try_from(frame_offset).map_err(|_| Malformed("a pack is too large"))?;
        let mut offset = 0_u32;
        let too_long = Malformed("the objects of a frame are larger than a frame");
        for object in &frame.objects {
            offset = offset.checked_add(object.literals_len.into()).ok_or(too_long)?;
            let location = Location {
                pack,
                frame_offset,
                frame_len: frame.frame_len,
                offset,
                len: object.len,
            };
            offset = offset.checked_add(object.len).ok_or(too_long)?;
            if object.kind == ObjectKind::Duplicate {
                continue;
            }
            let key = entry::object_key(object.kind, &object.digest);
            // The first place wins, as it does while writing.
            if novelty == Novelty::Unknown && index.contains_key(&key)? {
                continue;
            }
            totals.add(object.kind, object.len);
            let located = match object.kind {
                ObjectKind::Patch => Located::Patched(location),
                _ => Located::Frame(location),
            };
            self.put(Key::Digest(key), located.encode());
        }
        Ok(())
    }

    fn add_blob(
        &mut self,
        index: &Index,
        novelty: Novelty,
        pack: u32,
        blob: &BlobRecord,
        totals: &mut Totals,
    ) -> Result<(), IndexError> {
        let key = entry::blob_key(&blob.digest);
        if novelty == Novelty::New || !index.contains_key(&key)? {
            totals.divided_blobs = totals.divided_blobs.saturating_add(1);
            self.put(Key::Digest(key), entry::encode_blob(pack, blob));
        }
        Ok(())
    }

    /// The newest wins, in whatever order segments are read.
    fn add_value(
        &mut self,
        index: &Index,
        novelty: Novelty,
        value: &ValueRecord,
    ) -> Result<(), IndexError> {
        if novelty == Novelty::Unknown
            && let Some((place, _)) = index.value(value.kind, &value.key)?
            && place > value.place
        {
            return Ok(());
        }
        let key = entry::value_key(value.kind, &value.key);
        self.put(Key::Other(key.into()), entry::encode_value(value.place, value.value.as_deref()));
        Ok(())
    }

    /// Removes an object.
    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.entries.push((Key::Digest(entry::digest_key(key)), None));
    }

    /// Removes a value, or its tombstone.
    pub(crate) fn remove_value(&mut self, kind: u8, key: &[u8]) {
        self.entries.push((Key::Other(entry::value_key(kind, key).into()), None));
    }

    /// Removes a pack.
    pub(crate) fn remove_pack(&mut self, handle: u32) {
        self.entries.push((Key::Other(entry::pack_key(handle).into()), None));
    }

    pub(crate) fn set_pack(&mut self, handle: u32, pack: PackEntry) {
        self.put(Key::Other(entry::pack_key(handle).into()), pack.encode());
    }

    pub(crate) fn set_state(&mut self, state: &State) {
        self.put(Key::Other(entry::STATE_KEY.into()), state.encode());
    }

    fn put(&mut self, key: Key, value: Vec<u8>) {
        self.entries.push((key, Some(value.into())));
    }
}

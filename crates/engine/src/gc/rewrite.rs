//! Moving what is wanted out of a pack.

use std::time::{Duration, Instant};

use bytes::Bytes;
use granary_castore::Result;

use super::courtesy::Courtesy;
use super::survey::{self, Surveyor, is_live_blob, is_newest, live_objects};
use crate::{
    compression::Compressor,
    engine::Inner,
    format::{BlobRecord, FrameObjects, Object, Record, StoredFrame, ValueRecord},
    index::Location,
    log::{Maintenance, MovedFrame, Request},
    packs::PackId,
};

/// What follows each other in a frame, with at least this length, keeps a frame of its own.
const LONE_FRAME_BYTES: usize = 64 << 10;

/// Values that are moved together, and their bytes: records are small.
const MAX_MOVED_VALUES: usize = 5_000;
const MAX_MOVED_VALUE_BYTES: usize = 4 << 20;

/// Moves what is wanted.
pub(super) struct Rewriter<'a> {
    engine: &'a Inner,
    compressor: Compressor,
    pace: Pace,
    courtesy: Courtesy<'a>,
    /// Objects out of frames of which not all is wanted, to share a frame.
    loose: Loose,
    values: Vec<ValueRecord>,
    forgotten: Vec<ValueRecord>,
    value_bytes: usize,
    copied_bytes: u64,
}

/// Objects that are to be moved, and where they lie.
#[derive(Default)]
struct Loose {
    raw: Vec<u8>,
    objects: Vec<Object>,
    from: Vec<Location>,
}

/// How a pack was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// Nothing in it is wanted any more.
    All,
    /// A part of it cannot be read: it must stay.
    Damaged,
}

impl<'a> Rewriter<'a> {
    pub(super) fn new(engine: &'a Inner, bytes_per_s: Option<u64>) -> Result<Self> {
        Ok(Self {
            engine,
            compressor: Compressor::new(engine.compression)?,
            pace: Pace::new(bytes_per_s),
            courtesy: Courtesy::new(engine),
            loose: Loose::default(),
            values: Vec::new(),
            forgotten: Vec::new(),
            value_bytes: 0,
            copied_bytes: 0,
        })
    }

    pub(super) fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    /// Moves what is wanted out of a pack to the end of the log. It is durable once the packs are
    /// forgotten.
    pub(super) fn move_pack(
        &mut self,
        handle: u32,
        id: PackId,
        surveyor: &Surveyor<'_>,
    ) -> Result<Moved> {
        let mut is_damaged = survey::scan(self.engine, id, |_, _, _| Ok(()))?;
        if !is_damaged {
            let mut damaged_frames = 0;
            is_damaged = survey::scan(self.engine, id, |offset, records, _| {
                let mut blobs = Vec::new();
                for record in records {
                    match record {
                        Record::Frame(frame) => {
                            damaged_frames += u64::from(!self.frame(handle, offset, &frame)?);
                        }
                        Record::Blob(blob) => self.blob(handle, blob, &mut blobs)?,
                        Record::Value(value) => self.value(value, surveyor)?,
                    }
                }
                self.move_blobs(handle, blobs)
            })?;
            is_damaged |= damaged_frames > 0;
        }
        // IMPORTANT: whatever a pack's own records refer to goes before the next pack's, so that
        // the log stays in an order in which every beginning is whole.
        self.flush_loose()?;
        self.flush_values()?;
        Ok(if is_damaged { Moved::Damaged } else { Moved::All })
    }

    /// Moves what is wanted of a frame. False if the frame is damaged.
    fn frame(&mut self, handle: u32, segment_offset: u64, frame: &FrameObjects) -> Result<bool> {
        let found = live_objects(self.engine, handle, segment_offset, frame)?;
        let Some(first) = found.live.iter().position(|live| *live) else { return Ok(true) };
        let Ok(packed) = self.engine.packs.packed_frame(&found.locations[first]) else {
            return Ok(false);
        };
        if found.live.iter().all(|live| *live) {
            self.send(MovedFrame {
                frame: StoredFrame { bytes: packed.bytes().to_vec() },
                objects: frame.objects.clone(),
                from: found.locations,
            })?;
            return Ok(true);
        }
        let Ok(raw) = packed.unpack() else { return Ok(false) };
        // IMPORTANT: whoever reads what gets a frame of its own believes the checksum of that, so
        // what it is made of must be right.
        let is_right = |(object, location): (&Object, &Location)| {
            let start = location.offset as usize;
            raw.get(start..start + object.len as usize).is_some_and(|bytes| object.is_in(bytes))
        };
        let live = found.live.iter().zip(frame.objects.iter().zip(&found.locations));
        if !live.filter(|(live, _)| **live).all(|(_, placed)| is_right(placed)) {
            return Ok(false);
        }
        let mut start = first;
        while start < frame.objects.len() {
            let run = found.live[start..].iter().take_while(|live| **live).count();
            let range = start..start + run;
            if !range.is_empty() {
                self.run(&raw, &frame.objects[range.clone()], &found.locations[range])?;
            }
            start += run.max(1);
        }
        Ok(true)
    }

    /// Moves objects that follow each other in a frame.
    fn run(&mut self, raw: &Bytes, objects: &[Object], from: &[Location]) -> Result<()> {
        let (Some(first), Some(last)) = (from.first(), from.last()) else { return Ok(()) };
        let bytes = raw.slice(first.offset as usize..(last.offset + last.len) as usize);
        if bytes.len() >= LONE_FRAME_BYTES {
            let mut objects = objects.to_vec();
            // What is before it is gone.
            objects[0].literals_len = 0;
            return self.compress(&bytes, objects, from.to_vec());
        }
        for (object, location) in objects.iter().zip(from) {
            let start = (location.offset - first.offset) as usize;
            self.loose.raw.extend_from_slice(&bytes[start..start + object.len as usize]);
            self.loose.objects.push(Object { literals_len: 0, ..*object });
            self.loose.from.push(*location);
        }
        if self.loose.raw.len() >= self.engine.frame_sizes.group_bytes {
            self.flush_loose()?;
        }
        Ok(())
    }

    fn flush_loose(&mut self) -> Result<()> {
        let Loose { raw, objects, from } = std::mem::take(&mut self.loose);
        if objects.is_empty() { Ok(()) } else { self.compress(&raw, objects, from) }
    }

    fn compress(&mut self, raw: &[u8], objects: Vec<Object>, from: Vec<Location>) -> Result<()> {
        let frame = StoredFrame::compress(raw, &objects, &mut self.compressor);
        self.send(MovedFrame { frame, objects, from })
    }

    fn send(&mut self, moved: MovedFrame) -> Result<()> {
        let bytes = moved.frame.bytes.len() as u64;
        self.copied_bytes += bytes;
        self.engine.log.send(Request::Maintain(Maintenance::MoveFrame(moved)))?;
        self.pace.wait(bytes);
        self.courtesy.rest();
        Ok(())
    }

    fn blob(&self, handle: u32, blob: BlobRecord, blobs: &mut Vec<BlobRecord>) -> Result<()> {
        if is_live_blob(self.engine, handle, &blob)? {
            blobs.push(blob);
        }
        Ok(())
    }

    fn move_blobs(&mut self, pack: u32, blobs: Vec<BlobRecord>) -> Result<()> {
        if blobs.is_empty() {
            return Ok(());
        }
        // They may refer to what waits for a frame.
        self.flush_loose()?;
        self.engine.log.send(Request::Maintain(Maintenance::MoveBlobs { pack, blobs }))
    }

    fn value(&mut self, value: ValueRecord, surveyor: &Surveyor<'_>) -> Result<()> {
        if !is_newest(self.engine, &value)? {
            return Ok(());
        }
        self.value_bytes += value.key.len() + value.value.as_ref().map_or(0, Vec::len);
        let values =
            if surveyor.may_forget(&value) { &mut self.forgotten } else { &mut self.values };
        values.push(value);
        if self.values.len() + self.forgotten.len() >= MAX_MOVED_VALUES
            || self.value_bytes >= MAX_MOVED_VALUE_BYTES
        {
            self.flush_values()?;
        }
        Ok(())
    }

    fn flush_values(&mut self) -> Result<()> {
        let values = std::mem::take(&mut self.values);
        let forgotten = std::mem::take(&mut self.forgotten);
        self.copied_bytes += std::mem::take(&mut self.value_bytes) as u64;
        if values.is_empty() && forgotten.is_empty() {
            return Ok(());
        }
        self.engine
            .log
            .ask(|answer| Request::Maintain(Maintenance::MoveValues { values, forgotten, answer }))
    }
}

/// Keeps to a rate.
struct Pace {
    bytes_per_s: Option<u64>,
    began: Instant,
    bytes: u64,
}

impl Pace {
    fn new(bytes_per_s: Option<u64>) -> Self {
        Self { bytes_per_s, began: Instant::now(), bytes: 0 }
    }

    /// Waits until the bytes so far, and these, may have been copied.
    fn wait(&mut self, bytes: u64) {
        self.bytes += bytes;
        let Some(bytes_per_s) = self.bytes_per_s.filter(|rate| *rate > 0) else { return };
        let due_ms = self.bytes.saturating_mul(1000) / bytes_per_s;
        let due = Duration::from_millis(due_ms);
        if let Some(early) = due.checked_sub(self.began.elapsed()) {
            std::thread::sleep(early);
        }
    }
}

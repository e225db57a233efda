//! What garbage collection asks of the log: it alone may change the index, and so nothing comes
//! in between.

use std::sync::mpsc::SyncSender;

use granary_castore::{Error, Result};

use super::thread::{Appender, reply};
use crate::{
    format::{BlobRecord, Object, ObjectKind, PACK_HEADER_BYTES, StoredFrame, ValueRecord},
    index::{Index, Location},
    object_key::ObjectKey,
};

/// A request of garbage collection.
#[derive(Debug)]
pub(crate) enum Maintenance {
    /// Close the pack that is appended to, if there is anything in it, and answer with a handle
    /// that only packs made from now on reach.
    CloseTail { answer: SyncSender<Result<u32>> },
    /// Remove objects from the index that still lie in the pack that is named.
    Remove { objects: Vec<(ObjectKey, u32)>, answer: SyncSender<Result<u64>> },
    /// Append a frame whose objects lie in an old pack, and let the index point to it.
    MoveFrame(MovedFrame),
    /// The same for the records of blobs that stand in the pack with this handle.
    MoveBlobs { pack: u32, blobs: Vec<BlobRecord> },
    /// Append values that stand in an old pack, as far as they are the newest; they keep their
    /// places. Remove those of `forgotten` that are.
    MoveValues {
        values: Vec<ValueRecord>,
        forgotten: Vec<ValueRecord>,
        answer: SyncSender<Result<()>>,
    },
    /// Note that the list of dead objects of this generation was followed.
    NoteDead { generation: u64, answer: SyncSender<Result<()>> },
    /// Make everything that was moved durable, and forget packs; not if a segment was lost since
    /// the count of losses was `losses`.
    ForgetPacks { losses: u64, handles: Vec<u32>, answer: SyncSender<Result<()>> },
}

/// A frame with objects that lie elsewhere already.
#[derive(Debug)]
pub(crate) struct MovedFrame {
    pub(crate) frame: StoredFrame,
    pub(crate) objects: Vec<Object>,
    /// Where each of them lies now; of duplicates nothing is wanted.
    pub(crate) from: Vec<Location>,
}

impl Maintenance {
    /// Answers with `poison`.
    pub(super) fn refuse(self, poison: &Error) {
        match self {
            Self::CloseTail { answer } => reply(&answer, Err(poison.clone())),
            Self::Remove { answer, .. } => reply(&answer, Err(poison.clone())),
            Self::MoveValues { answer, .. }
            | Self::NoteDead { answer, .. }
            | Self::ForgetPacks { answer, .. } => reply(&answer, Err(poison.clone())),
            // The request behind them is answered.
            Self::MoveFrame(_) | Self::MoveBlobs { .. } => {}
        }
    }
}

impl Appender {
    pub(super) fn maintain(&mut self, maintenance: Maintenance) {
        match maintenance {
            Maintenance::CloseTail { answer } => {
                let result = self.close_tail();
                reply(&answer, result);
            }
            Maintenance::Remove { objects, answer } => {
                let result = self.remove(&objects);
                reply(&answer, result);
            }
            Maintenance::MoveFrame(moved) => self.move_frame(moved),
            Maintenance::MoveBlobs { pack, blobs } => {
                for blob in blobs {
                    self.move_blob(pack, blob);
                }
            }
            Maintenance::MoveValues { values, forgotten, answer } => {
                let result = self.move_values(values, &forgotten);
                reply(&answer, result);
            }
            Maintenance::NoteDead { generation, answer } => {
                let result = self.settle().and_then(|()| {
                    self.state.dead_generation = generation;
                    self.apply_alone()
                });
                reply(&answer, result);
            }
            Maintenance::ForgetPacks { losses, handles, answer } => {
                let result = self.forget_packs(losses, &handles);
                reply(&answer, result);
            }
        }
    }

    /// Makes everything so far durable and visible, so that the index says how things are; and
    /// makes sure that it takes what is applied next.
    fn settle(&mut self) -> Result<()> {
        self.commit();
        self.poison().map_or(Ok(()), Err)?;
        Ok(self.index.make_room()?)
    }

    /// Applies what is in `update`, behind which no segment lies.
    fn apply_alone(&mut self) -> Result<()> {
        let mut update = std::mem::take(&mut self.update);
        update.set_state(&self.state);
        Ok(self.index.apply(update)?)
    }

    fn close_tail(&mut self) -> Result<u32> {
        self.settle()?;
        match &self.tail {
            Some(tail) if tail.len() > PACK_HEADER_BYTES as u64 => {
                self.seal()?;
                Ok(self.next_handle)
            }
            Some(tail) => Ok(tail.handle),
            None => Ok(self.next_handle),
        }
    }

    /// Returns how many were there to be removed.
    fn remove(&mut self, objects: &[(ObjectKey, u32)]) -> Result<u64> {
        self.settle()?;
        let mut removed = 0;
        for (key, pack) in objects {
            // Whoever wrote it anew meanwhile wrote it elsewhere.
            if self.index.pack_of(key)? != Some(*pack) {
                continue;
            }
            if let Some(totals) = self.index.totals_of(key)? {
                self.state.totals.subtract(&totals);
            }
            self.update.remove(key);
            removed += 1;
        }
        self.apply_alone()?;
        Ok(removed)
    }

    fn move_frame(&mut self, moved: MovedFrame) {
        let MovedFrame { frame, mut objects, from } = moved;
        for (object, from) in objects.iter_mut().zip(&from) {
            if object.kind != ObjectKind::Duplicate && !lies_at(&self.index, object, from) {
                object.kind = ObjectKind::Duplicate;
            }
        }
        if objects.iter().all(|object| object.kind == ObjectKind::Duplicate) {
            return;
        }
        for object in objects.iter().filter(|object| object.kind != ObjectKind::Duplicate) {
            self.note_replaced(&ObjectKey::of(object));
        }
        self.segment.push_frame(frame, objects);
    }

    fn move_blob(&mut self, pack: u32, blob: BlobRecord) {
        let key = ObjectKey::Blob(blob.digest);
        if self.index.pack_of(&key).is_ok_and(|at| at == Some(pack)) {
            self.note_replaced(&key);
            self.segment.push_blob(blob);
        }
    }

    fn move_values(&mut self, values: Vec<ValueRecord>, forgotten: &[ValueRecord]) -> Result<()> {
        // IMPORTANT: first. Else a newer value could be in the segment, or written and not in the
        // index yet, and this one would take its place.
        self.settle()?;
        for value in values {
            if self.is_newest(&value)? {
                self.segment.set_value(value);
            }
        }
        for value in forgotten {
            if self.is_newest(value)? {
                self.update.remove_value(value.kind, &value.key);
            }
        }
        Ok(())
    }

    fn is_newest(&self, value: &ValueRecord) -> Result<bool> {
        let found = self.index.value(value.kind, &value.key)?;
        Ok(found.is_some_and(|(place, _)| place == value.place))
    }

    fn forget_packs(&mut self, losses: u64, handles: &[u32]) -> Result<()> {
        self.settle()?;
        // IMPORTANT: what a lost segment was to bring lies nowhere else.
        self.check_losses(losses)?;
        for handle in handles {
            self.update.remove_pack(*handle);
            if *handle == self.state.watermark.pack {
                // IMPORTANT: after a restart another pack may get the handle. That one must be
                // read from its beginning.
                self.state.watermark.offset = 0;
            }
        }
        self.apply_alone()
    }
}

/// Whether the index says that an object lies there.
fn lies_at(index: &Index, object: &Object, from: &Location) -> bool {
    let kind = match ObjectKey::of(object) {
        ObjectKey::Object(kind, _) => kind,
        ObjectKey::Blob(_) => return false,
    };
    let located = index.located(kind, &object.digest);
    located.is_ok_and(|located| located.is_some_and(|located| located.location() == from))
}

//! What can be asked of the log.

use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use granary_castore::{RecordWrite, Result};

use super::maintenance::Maintenance;
use crate::format::{BlobRecord, Object, StoredFrame};

/// A small object that is to share a frame with others that arrive at about the same time.
#[derive(Debug)]
pub(crate) struct LooseObject {
    pub(crate) object: Object,
    pub(crate) bytes: Bytes,
}

/// What a batch has for the log.
#[derive(Debug)]
pub(crate) enum Part {
    /// A frame that is ready.
    Frame { frame: StoredFrame, objects: Vec<Object> },
    /// Objects for a shared frame.
    Loose(Vec<LooseObject>),
    /// A blob's list of chunks.
    Blob(BlobRecord),
    /// Values that become durable with the batch.
    Values(Vec<RecordWrite>),
}

/// A request to the log.
#[derive(Debug)]
pub(crate) enum Request {
    /// Append a part of a batch that began when the count of lost segments was `losses`. It
    /// is left out if one was lost since, for it may refer to what was lost; the batch's
    /// commit fails then.
    Append { losses: u64, part: Part },
    /// Append values, make everything so far durable, and answer.
    Values { writes: Vec<RecordWrite>, answer: SyncSender<Result<()>> },
    /// Make everything so far durable, and answer; with an error if a segment was lost
    /// since the count of losses was `losses`.
    Commit { losses: u64, answer: SyncSender<Result<()>> },
    /// Something that garbage collection needs.
    Maintain(Maintenance),
    /// Answer once everything so far was taken.
    Barrier { answer: SyncSender<Result<()>> },
    /// Make everything so far durable, answer, and end.
    Close { answer: SyncSender<Result<()>> },
}

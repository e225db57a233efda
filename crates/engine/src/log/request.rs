//! What can be asked of the log.

use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use granary_castore::{RecordWrite, Result};

use crate::format::{BlobRecord, Object, StoredFrame};

/// A small object that is to share a frame with others that arrive at about the same time.
#[derive(Debug)]
pub(crate) struct LooseObject {
    pub(crate) object: Object,
    pub(crate) bytes: Bytes,
}

/// A request to the log.
#[derive(Debug)]
pub(crate) enum Request {
    /// Append a frame that is ready.
    Frame { frame: StoredFrame, objects: Vec<Object> },
    /// Append objects in a shared frame.
    Loose(Vec<LooseObject>),
    /// Append a blob's list of chunks.
    Blob(BlobRecord),
    /// Append values, make everything so far durable, and answer.
    Values { writes: Vec<RecordWrite>, answer: SyncSender<Result<()>> },
    /// Make everything so far durable, and answer; with an error if a segment was lost
    /// since the count of losses was `losses`.
    Commit { losses: u64, answer: SyncSender<Result<()>> },
    /// Answer once everything so far was taken.
    Barrier { answer: SyncSender<Result<()>> },
    /// Make everything so far durable, answer, and end.
    Close { answer: SyncSender<Result<()>> },
}

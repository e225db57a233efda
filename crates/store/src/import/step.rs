//! The steps of a walk, and the queue that they go through.

use std::{mem, sync::mpsc::SyncSender};

use bytes::Bytes;

use super::ImportError;

/// Most packets that wait in the queue.
pub(super) const QUEUE_PACKETS: usize = 4;

/// A packet is sent when it has so many bytes of contents; it can have as much again, if
/// its last file is a large one.
const PACKET_BYTES: usize = 1 << 20;

/// A packet is sent when it has so many steps: some tens of KiB, if all have short names.
const PACKET_STEPS: usize = 1_024;

/// What is sent through the queue. Steps are sent many at a time, because handing a packet
/// from thread to thread costs more than reading a small file.
pub(super) type Packet = Result<Vec<Step>, ImportError>;

/// One step of a walk, in the order of a NAR.
#[derive(Debug)]
pub(super) enum Step {
    /// A directory begins.
    Directory,
    /// An entry of the innermost directory; its node comes next.
    Entry { name: Vec<u8> },
    /// The innermost directory ends.
    EndDirectory,
    /// A symlink.
    Symlink { target: Vec<u8> },
    /// A file that was read whole.
    File { executable: bool, contents: Bytes },
    /// A file whose contents follow in pieces.
    LargeFile { executable: bool, size_bytes: u64 },
    /// The next contents of the large file.
    Data(Bytes),
    /// The end of the large file, all of whose bytes came.
    EndLargeFile,
}

/// Gathers steps into packets and sends them.
pub(super) struct StepSender {
    sender: SyncSender<Packet>,
    steps: Vec<Step>,
    bytes: usize,
}

/// Nobody receives any more.
pub(super) struct Stopped;

impl StepSender {
    pub(super) fn new(sender: SyncSender<Packet>) -> Self {
        Self { sender, steps: Vec::with_capacity(PACKET_STEPS), bytes: 0 }
    }

    /// Adds a step, and sends the packet if that fills it.
    pub(super) fn push(&mut self, step: Step) -> Result<(), Stopped> {
        if let Step::File { contents: data, .. } | Step::Data(data) = &step {
            self.bytes += data.len();
        }
        self.steps.push(step);
        if self.bytes >= PACKET_BYTES || self.steps.len() >= PACKET_STEPS {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends what is left.
    pub(super) fn flush(&mut self) -> Result<(), Stopped> {
        self.bytes = 0;
        let packet = mem::replace(&mut self.steps, Vec::with_capacity(PACKET_STEPS));
        self.sender.send(Ok(packet)).map_err(|_| Stopped)
    }

    /// Sends the error that ended the walk; the steps before it are of no more use.
    pub(super) fn fail(self, error: ImportError) {
        // If nobody receives it, the import has failed already.
        let _ = self.sender.send(Err(error));
    }
}

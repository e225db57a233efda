//! The steps of a walk, and the queue that they go through.

use std::{
    mem,
    sync::{Arc, mpsc::SyncSender},
};

use bytes::Bytes;

use super::ImportError;

/// Most packets that wait in each queue.
pub(super) const QUEUE_PACKETS: usize = 4;

/// A packet is sent when it has so many bytes of contents; it can have as much again, if
/// its last file is a large one.
const PACKET_BYTES: usize = 1 << 20;

/// A packet is sent when it has so many steps: some tens of KiB, if all have short names.
const PACKET_STEPS: usize = 1_024;

/// What is sent through a queue. Steps are sent many at a time, because handing a packet
/// from thread to thread costs more than reading a small file.
pub(super) type Packet = Arc<Vec<Step>>;

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

/// Gathers steps into packets and sends them to two who work on them side by side.
pub(super) struct StepSender {
    /// To whoever stores contents; an error that ends the walk goes there too.
    storing: SyncSender<Result<Packet, ImportError>>,
    /// To whoever hashes the NAR.
    hashing: SyncSender<Packet>,
    steps: Vec<Step>,
    bytes: usize,
}

/// Nobody receives any more.
pub(super) struct Stopped;

impl StepSender {
    pub(super) fn new(
        storing: SyncSender<Result<Packet, ImportError>>,
        hashing: SyncSender<Packet>,
    ) -> Self {
        Self { storing, hashing, steps: Vec::with_capacity(PACKET_STEPS), bytes: 0 }
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
        let packet = Arc::new(packet);
        self.hashing.send(Arc::clone(&packet)).map_err(|_| Stopped)?;
        self.storing.send(Ok(packet)).map_err(|_| Stopped)
    }

    /// Sends the error that ended the walk; the steps before it are of no more use.
    pub(super) fn fail(self, error: ImportError) {
        // If nobody receives it, the import has failed already.
        let _ = self.storing.send(Err(error));
    }
}

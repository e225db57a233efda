//! The steps of a walk, and the queues that they go through with the NAR that they make.

use std::{
    io, mem,
    ops::Range,
    sync::{Arc, mpsc::SyncSender},
};

use bytes::Bytes;
use granary_nix_formats::nar;

use super::ImportError;
use crate::{MAX_WHOLE_FILE_BYTES, recycler::Recycler};

/// Most packets that wait in each queue.
pub(super) const QUEUE_PACKETS: usize = 4;

/// A packet is sent when it has so many bytes of the NAR: about a frame, which then is one piece of
/// memory. It can have as much again, if its last file is a large one. Each step has its part in the NAR, so
/// that there are some 30,000 at most, of two or three MiB with their names.
const PACKET_BYTES: usize = 1 << 20;

/// Room in the buffer of a packet: for one file more when it is nearly full, and what the NAR has
/// around that.
const BUFFER_BYTES: usize = PACKET_BYTES + MAX_WHOLE_FILE_BYTES + (16 << 10);

/// Buffers that nobody uses any more and that are kept for the next packets: about as many as are
/// under way.
const KEPT_PACKETS: usize = 16;

/// What is sent through a queue: many steps at a time, because handing a packet from thread to thread
/// costs more than reading a small file.
pub(super) struct Packet {
    /// A piece of the NAR.
    pub(super) nar: Bytes,
    /// Those whose bytes are in it: each has all of its bytes in the packet that it is in. So what comes
    /// before the first contents is of steps in this one, and where a large file goes on its contents
    /// come first.
    pub(super) steps: Vec<Step>,
}

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
    /// A file that was read whole, and where its contents lie in the packet.
    File { executable: bool, contents: Range<usize> },
    /// A file whose contents follow in pieces.
    LargeFile { executable: bool, size_bytes: u64 },
    /// Where the next contents of the large file lie in the packet.
    Data(Range<usize>),
    /// The end of the large file, all of whose bytes came.
    EndLargeFile,
}

/// Writes the NAR of a walk, and sends it with its steps, in packets, to two who work on them side by
/// side.
pub(super) struct StepSender {
    /// To whoever stores contents; an error that ends the walk goes there too.
    storing: SyncSender<Result<Arc<Packet>, ImportError>>,
    /// To whoever hashes the NAR.
    hashing: SyncSender<Arc<Packet>>,
    nar: nar::Writer<NarBuffer>,
    steps: Vec<Step>,
    recycler: Recycler,
}

/// Why a step could not be sent.
#[derive(Debug)]
pub(super) enum SendError {
    /// Nobody receives any more.
    Stopped,
    /// No NAR has that step there.
    Nar(nar::Error),
}

impl From<nar::Error> for SendError {
    fn from(error: nar::Error) -> Self {
        Self::Nar(error)
    }
}

impl StepSender {
    pub(super) fn new(
        storing: SyncSender<Result<Arc<Packet>, ImportError>>,
        hashing: SyncSender<Arc<Packet>>,
    ) -> Result<Self, nar::Error> {
        let recycler = Recycler::new(KEPT_PACKETS);
        let nar = nar::Writer::new(NarBuffer::default())?;
        Ok(Self { storing, hashing, nar, steps: Vec::new(), recycler })
    }

    /// A directory begins.
    pub(super) fn directory(&mut self) -> Result<(), SendError> {
        self.nar.directory()?;
        self.push(Step::Directory)
    }

    /// The next node is this entry of the innermost directory.
    pub(super) fn entry(&mut self, name: &[u8]) -> Result<(), SendError> {
        self.nar.entry(name)?;
        self.push(Step::Entry { name: name.to_vec() })
    }

    /// The innermost directory ends.
    pub(super) fn end_directory(&mut self) -> Result<(), SendError> {
        self.nar.end_directory()?;
        self.end_node()?;
        self.push(Step::EndDirectory)
    }

    /// A symlink.
    pub(super) fn symlink(&mut self, target: &[u8]) -> Result<(), SendError> {
        self.nar.symlink(target)?;
        self.end_node()?;
        self.push(Step::Symlink { target: target.to_vec() })
    }

    /// A file of `size` bytes, which `read` puts at the beginning of what it is given: that is one
    /// byte more.
    pub(super) fn file<E: From<SendError>>(
        &mut self,
        executable: bool,
        size: usize,
        read: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.nar.file_header(executable, size as u64).map_err(SendError::Nar)?;
        let buffer = self.nar.get_mut();
        let start = buffer.len;
        read(buffer.room(size + 1))?;
        buffer.len += size;
        self.nar.skip_file_data(size as u64).map_err(SendError::Nar)?;
        self.end_file()?;
        Ok(self.push(Step::File { executable, contents: start..start + size })?)
    }

    /// A file of which [`data`](Self::data) comes next, and in the end
    /// [`end_large_file`](Self::end_large_file).
    pub(super) fn large_file(
        &mut self,
        executable: bool,
        size_bytes: u64,
    ) -> Result<(), SendError> {
        self.nar.file_header(executable, size_bytes)?;
        self.push(Step::LargeFile { executable, size_bytes })
    }

    /// The next bytes of the large file, at most so many, as `read` puts them at the beginning of
    /// what it is given. Returns how many there were.
    pub(super) fn data<E: From<SendError>>(
        &mut self,
        at_most: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let buffer = self.nar.get_mut();
        let start = buffer.len;
        let len = read(buffer.room(at_most))?;
        buffer.len += len;
        self.nar.skip_file_data(len as u64).map_err(SendError::Nar)?;
        self.push(Step::Data(start..start + len))?;
        Ok(len)
    }

    /// The end of the large file, all of whose bytes came.
    pub(super) fn end_large_file(&mut self) -> Result<(), SendError> {
        self.end_file()?;
        self.push(Step::EndLargeFile)
    }

    /// Sends the error that ended the walk; the steps before it are of no more use.
    pub(super) fn fail(self, error: ImportError) {
        // If nobody receives it, the import has failed already.
        let _ = self.storing.send(Err(error));
    }

    /// Ends a file.
    fn end_file(&mut self) -> Result<(), SendError> {
        self.nar.end_file()?;
        self.end_node()
    }

    /// Every node but the root is the end of an entry.
    fn end_node(&mut self) -> Result<(), SendError> {
        if self.nar.is_within_directory() {
            self.nar.end_entry()?;
        }
        Ok(())
    }

    /// Adds a step whose part of the NAR is written, and sends the packet if that fills it.
    fn push(&mut self, step: Step) -> Result<(), SendError> {
        self.steps.push(step);
        if self.nar.get_ref().len >= PACKET_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends what is left.
    pub(super) fn flush(&mut self) -> Result<(), SendError> {
        let next = NarBuffer { bytes: self.recycler.take(), len: 0 };
        let NarBuffer { bytes, len } = mem::replace(self.nar.get_mut(), next);
        let steps = mem::take(&mut self.steps);
        let packet = Arc::new(Packet { nar: self.recycler.freeze(bytes, len), steps });
        self.hashing.send(Arc::clone(&packet)).map_err(|_| SendError::Stopped)?;
        self.storing.send(Ok(packet)).map_err(|_| SendError::Stopped)
    }
}

/// The NAR of a packet. Its memory is initialised as a whole, so that files can be read into it, and
/// that only once, however often it is used.
#[derive(Debug, Default)]
struct NarBuffer {
    bytes: Vec<u8>,
    /// How many of them are of the NAR.
    len: usize,
}

impl NarBuffer {
    /// The next `len` bytes, with whatever is in them.
    fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.len + len;
        if self.bytes.is_empty() {
            self.bytes = vec![0; BUFFER_BYTES.max(end)];
        } else if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.len..end]
    }
}

impl io::Write for NarBuffer {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.room(buf.len()).copy_from_slice(buf);
        self.len += buf.len();
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

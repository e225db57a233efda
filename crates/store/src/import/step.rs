//! The steps of a walk, and the packets that they go into with the NAR that they make.

use std::{collections::VecDeque, io, mem, ops::Range, sync::Arc};

use bytes::Bytes;
use granary_nix_formats::nar;

use crate::{MAX_WHOLE_FILE_BYTES, recycler::Recycler};

/// A packet is complete when it has so many bytes of the NAR: about a frame, which then is one piece of
/// memory. It can have as much again, if its last file is a large one. Each step has its part in the NAR, so
/// that there are some 30,000 at most, of two or three MiB with their names.
const PACKET_BYTES: usize = 1 << 20;

/// Room in the buffer of a packet: for one file more when it is nearly full, and what the NAR has
/// around that.
const BUFFER_BYTES: usize = PACKET_BYTES + MAX_WHOLE_FILE_BYTES + (16 << 10);

/// Buffers that nobody uses any more and that are kept for the next packets, by all threads together: about as
/// many as are under way.
const KEPT_PACKETS: usize = 16;

/// What goes from stage to stage: many steps at a time, because handing a packet from thread to thread
/// costs more than reading a small file.
#[derive(Debug)]
pub(super) struct Packet {
    /// The number of the thread that read it.
    pub(super) read_by: usize,
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

/// Writes the NAR of a walk, and puts it into packets with its steps.
pub(super) struct Packer {
    nar: nar::Writer<NarBuffer>,
    steps: Vec<Step>,
    /// Those that are complete.
    packets: VecDeque<Arc<Packet>>,
    /// Buffers that each thread has read into before.
    recyclers: Vec<Recycler>,
    /// The number of the thread that reads now.
    read_by: usize,
}

impl Packer {
    /// One for so many threads.
    pub(super) fn new(threads: usize) -> Result<Self, nar::Error> {
        let nar = nar::Writer::new(NarBuffer::default())?;
        let kept = KEPT_PACKETS.div_ceil(threads);
        let recyclers = (0..threads).map(|_| Recycler::new(kept)).collect();
        Ok(Self { nar, steps: Vec::new(), packets: VecDeque::new(), recyclers, read_by: 0 })
    }

    /// Says which thread reads what comes next. A buffer that is begun with it is one that it has used
    /// before.
    pub(super) fn read_by(&mut self, thread: usize) {
        self.read_by = thread;
        let buffer = self.nar.get_mut();
        if buffer.bytes.is_empty() {
            buffer.bytes = self.recyclers[thread].take();
        }
    }

    /// The next packet that is complete.
    pub(super) fn take(&mut self) -> Option<Arc<Packet>> {
        self.packets.pop_front()
    }

    /// A directory begins.
    pub(super) fn directory(&mut self) -> Result<(), nar::Error> {
        self.nar.directory()?;
        self.push(Step::Directory);
        Ok(())
    }

    /// The next node is this entry of the innermost directory.
    pub(super) fn entry(&mut self, name: &[u8]) -> Result<(), nar::Error> {
        self.nar.entry(name)?;
        self.push(Step::Entry { name: name.to_vec() });
        Ok(())
    }

    /// The innermost directory ends.
    pub(super) fn end_directory(&mut self) -> Result<(), nar::Error> {
        self.nar.end_directory()?;
        self.end_node()?;
        self.push(Step::EndDirectory);
        Ok(())
    }

    /// A symlink.
    pub(super) fn symlink(&mut self, target: &[u8]) -> Result<(), nar::Error> {
        self.nar.symlink(target)?;
        self.end_node()?;
        self.push(Step::Symlink { target: target.to_vec() });
        Ok(())
    }

    /// A file of `size` bytes, which `read` puts at the beginning of what it is given: that is one
    /// byte more.
    pub(super) fn file<E: From<nar::Error>>(
        &mut self,
        executable: bool,
        size: usize,
        read: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.nar.file_header(executable, size as u64)?;
        let buffer = self.nar.get_mut();
        let start = buffer.len;
        read(buffer.room(size + 1))?;
        buffer.len += size;
        self.nar.skip_file_data(size as u64)?;
        self.end_file()?;
        self.push(Step::File { executable, contents: start..start + size });
        Ok(())
    }

    /// A file of which [`data`](Self::data) comes next, and in the end
    /// [`end_large_file`](Self::end_large_file).
    pub(super) fn large_file(
        &mut self,
        executable: bool,
        size_bytes: u64,
    ) -> Result<(), nar::Error> {
        self.nar.file_header(executable, size_bytes)?;
        self.push(Step::LargeFile { executable, size_bytes });
        Ok(())
    }

    /// The next bytes of the large file, at most so many, as `read` puts them at the beginning of
    /// what it is given. Returns how many there were.
    pub(super) fn data<E: From<nar::Error>>(
        &mut self,
        at_most: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let buffer = self.nar.get_mut();
        let start = buffer.len;
        let len = read(buffer.room(at_most))?;
        buffer.len += len;
        self.nar.skip_file_data(len as u64)?;
        self.push(Step::Data(start..start + len));
        Ok(len)
    }

    /// The end of the large file, all of whose bytes came.
    pub(super) fn end_large_file(&mut self) -> Result<(), nar::Error> {
        self.end_file()?;
        self.push(Step::EndLargeFile);
        Ok(())
    }

    /// Ends a file.
    fn end_file(&mut self) -> Result<(), nar::Error> {
        self.nar.end_file()?;
        self.end_node()
    }

    /// Every node but the root is the end of an entry.
    fn end_node(&mut self) -> Result<(), nar::Error> {
        if self.nar.is_within_directory() {
            self.nar.end_entry()?;
        }
        Ok(())
    }

    /// Adds a step whose part of the NAR is written, and ends the packet if that fills it.
    fn push(&mut self, step: Step) {
        self.steps.push(step);
        if self.nar.get_ref().len >= PACKET_BYTES {
            self.flush();
        }
    }

    /// Makes a packet of what is left.
    pub(super) fn flush(&mut self) {
        let NarBuffer { bytes, len } = mem::take(self.nar.get_mut());
        let (steps, read_by) = (mem::take(&mut self.steps), self.read_by);
        let nar = self.recyclers[read_by].freeze(bytes, len);
        self.packets.push_back(Arc::new(Packet { read_by, nar, steps }));
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

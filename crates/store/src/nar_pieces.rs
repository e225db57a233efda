//! A planned NAR in pieces: cut in order, which costs little, and read in any order and on
//! any thread, which is the work.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use granary_castore::{BlobService, Result};

use crate::{
    nar_cursor::{ExtentPart, NarCursor, Part, Read},
    nar_plan::NarPlan,
};

/// What a piece has at least, in bytes, unless it is the last. It has at most this and one
/// extent more.
pub const PIECE_BYTES: u64 = 640 << 10;

/// What has fewer bytes is copied to what it lies beside; what has more is passed on where it
/// was read. Writing buffers of this size one by one costs no more than writing one, and what
/// they may keep alive beside them, a frame each, is bounded by how many fit into a piece.
const COPY_BELOW_BYTES: u64 = 128 << 10;

/// Most extents of a piece that is quick to read. Most pieces have one or two; each may be of another
/// frame.
const QUICK_EXTENTS: usize = 8;

/// Cuts a range of a planned NAR into pieces, at the ends of extents.
pub struct NarPieces {
    cursor: NarCursor<Arc<NarPlan>>,
}

/// Bytes of a NAR that are read together. It may be kept, and read again.
pub struct NarPiece {
    plan: Arc<NarPlan>,
    id: u64,
    /// Which bytes of the NAR.
    range: Range<u64>,
    parts: Vec<Part>,
}

/// Identifies the next piece that is cut.
static NEXT_PIECE: AtomicU64 = AtomicU64::new(0);

/// Bytes of a NAR in the form that costs least to read.
#[derive(Debug)]
pub enum StoredBytes<'a> {
    /// The bytes, which lie in memory in any case.
    Literal(&'a [u8]),
    /// The bytes.
    Plain(Bytes),
    /// The bytes as one frame of zstd that declares its content size.
    Zstd {
        /// The frame, checked as what was stored.
        frame: Bytes,
        /// How many bytes it must give.
        size_bytes: u64,
    },
}

impl NarPieces {
    /// The bytes `range` of the NAR, as far as it has them.
    pub fn new(plan: Arc<NarPlan>, range: Range<u64>) -> Self {
        Self { cursor: NarCursor::new(plan, range) }
    }

    /// Cuts off the next piece; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](granary_castore::Error::Corrupt) if a blob is missing, damaged or of another size than planned; or
    /// whatever the service fails with. Nothing may be asked of it then.
    pub fn next(&mut self, blobs: &dyn BlobService) -> Result<Option<NarPiece>> {
        let start = self.cursor.offset();
        let (mut parts, mut size_bytes) = (Vec::new(), 0);
        while size_bytes < PIECE_BYTES {
            let Some(part) = self.cursor.next(blobs, PIECE_BYTES - size_bytes)? else { break };
            size_bytes += part.size_bytes();
            parts.push(part);
        }
        if parts.is_empty() {
            return Ok(None);
        }
        parts.shrink_to_fit();
        let (plan, range) = (Arc::clone(self.cursor.plan()), start..start + size_bytes);
        let id = NEXT_PIECE.fetch_add(1, Ordering::Relaxed);
        Ok(Some(NarPiece { plan, id, range, parts }))
    }
}

impl NarPiece {
    /// Tells it from every other piece that was cut since the process began.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its length in bytes; not 0.
    pub fn size_bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// How much memory it takes for as long as it is kept, about, the plan left out.
    pub fn memory_bytes(&self) -> usize {
        let parts = self.parts.iter();
        size_of::<Self>() + parts.map(|part| size_of::<Part>() + part.memory_bytes()).sum::<usize>()
    }

    /// Whether it takes little more work to read than its length says: one of many small files may take
    /// as many frames, of which it has but a small part each.
    pub fn is_quick(&self) -> bool {
        let is_extent = |part: &&Part| matches!(part, Part::Extent(_));
        self.parts.iter().filter(is_extent).count() <= QUICK_EXTENTS
    }

    /// The same bytes, to be cut as they lie now.
    pub fn anew(&self) -> NarPieces {
        NarPieces::new(Arc::clone(&self.plan), self.range.clone())
    }

    /// Reads it: its bytes in order, in buffers as large as can be had without copying much.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](granary_castore::Error::Corrupt) if what is stored is damaged; or
    /// whatever the service fails with.
    pub fn read(&self) -> Result<Vec<Bytes>> {
        self.packed(ExtentPart::read)
    }

    /// The same, if that can be had without waiting for a disk or another store. It takes as much work.
    /// `None` says nothing of why not, but that [`read`](Self::read) will tell.
    pub fn read_now(&self) -> Option<Vec<Bytes>> {
        self.packed(|part| part.read_now().ok_or(())).ok()
    }

    /// Its bytes in order, parts of extents by `read`.
    fn packed<E>(&self, read: impl Fn(&ExtentPart) -> Result<Bytes, E>) -> Result<Vec<Bytes>, E> {
        let mut packer = Packer::default();
        for (position, part) in self.parts.iter().enumerate() {
            if packer.packed.capacity() == 0 {
                packer.packed.reserve(small_bytes(&self.parts[position..]));
            }
            match part {
                Part::Literal(range) => packer.copy(&self.plan.literals[range.clone()]),
                Part::Extent(part) => packer.push(read(part)?),
            }
        }
        Ok(packer.finish())
    }

    /// Reads it and gives its bytes to `take`, in order, in the form in which they are stored.
    ///
    /// # Errors
    ///
    /// What `take` fails with, or as [`read`](Self::read).
    pub fn read_stored(&self, mut take: impl FnMut(StoredBytes<'_>) -> Result<()>) -> Result<()> {
        (0..self.part_count()).try_for_each(|part| take(self.read_stored_part(part)?))
    }

    /// How many parts it has, which are stored apart.
    pub fn part_count(&self) -> usize {
        self.parts.len()
    }

    /// Reads a part, in the form in which it is stored. That need not be the same each time.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Panics
    ///
    /// If it has not as many parts.
    pub fn read_stored_part(&self, part: usize) -> Result<StoredBytes<'_>> {
        match &self.parts[part] {
            Part::Literal(range) => Ok(StoredBytes::Literal(&self.plan.literals[range.clone()])),
            Part::Extent(part) => stored(part),
        }
    }

    /// The frame that a part is stored as, if it is, and if it can be had without waiting for a
    /// disk.
    ///
    /// # Panics
    ///
    /// If it has not as many parts.
    pub fn read_frame_now(&self, part: usize) -> Option<Bytes> {
        match &self.parts[part] {
            Part::Literal(_) => None,
            Part::Extent(part) => part.read_frame_now(),
        }
    }
}

fn stored(part: &ExtentPart) -> Result<StoredBytes<'static>> {
    Ok(match part.read_stored()? {
        Read::Plain(bytes) => StoredBytes::Plain(bytes),
        Read::Zstd(frame) => StoredBytes::Zstd { frame, size_bytes: part.size_bytes() },
    })
}

/// How many bytes `parts` begin with that will be copied to one buffer.
fn small_bytes(parts: &[Part]) -> usize {
    let is_small =
        |part: &&Part| matches!(part, Part::Literal(_)) || part.size_bytes() < COPY_BELOW_BYTES;
    let bytes: u64 = parts.iter().take_while(is_small).map(Part::size_bytes).sum();
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Packs what is small, and leaves what is large where it is.
#[derive(Default)]
struct Packer {
    done: Vec<Bytes>,
    packed: BytesMut,
}

impl Packer {
    fn copy(&mut self, bytes: &[u8]) {
        self.packed.extend_from_slice(bytes);
    }

    fn push(&mut self, bytes: Bytes) {
        if (bytes.len() as u64) < COPY_BELOW_BYTES {
            return self.copy(&bytes);
        }
        self.flush();
        self.done.push(bytes);
    }

    fn flush(&mut self) {
        let packed = std::mem::take(&mut self.packed);
        if !packed.is_empty() {
            self.done.push(packed.freeze());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.flush();
        self.done
    }
}

//! Extents: what is read of a blob at once.

use std::sync::{Arc, OnceLock, atomic::Ordering};

use bytes::Bytes;
use granary_castore::{BlobDigest, BlobExtent, Error, Result};

use crate::{
    engine::Inner,
    format::{ContentsTag, ObjectKind, PackedFrame, contents_tag},
    index::{Located, Location},
};

/// Chunks that lie in one frame one behind the other, unpatched, and the literals between
/// them.
pub(crate) struct FrameExtent {
    engine: Arc<Inner>,
    /// The first chunk.
    first: Location,
    size_bytes: u64,
    parts: Vec<Part>,
    /// That of a frame which they fill, once it was asked for.
    tag: OnceLock<ContentsTag>,
    /// How many collections had ended when it was looked up.
    ended: u64,
    /// How many packs had been removed when this was made.
    removals: u64,
}

/// What lies in the frame of a [`FrameExtent`].
#[derive(Debug, Clone)]
enum Part {
    Chunk {
        digest: [u8; 32],
        len: u32,
    },
    /// What is to be read there. The frame has room for it, and may have other literals: the
    /// same files under other names.
    Literals(Bytes),
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Chunk { len, .. } => *len as usize,
            Self::Literals(bytes) => bytes.len(),
        }
    }

    /// As it counts for the tag of a frame.
    fn digest(&self) -> [u8; 32] {
        match self {
            Self::Chunk { digest, .. } => *digest,
            Self::Literals(bytes) => *blake3::hash(bytes).as_bytes(),
        }
    }
}

impl FrameExtent {
    /// Of a chunk that was looked up when [`Guard::ended`](crate::gc::Guard::ended) was `ended`.
    pub(crate) fn new(
        engine: Arc<Inner>,
        digest: [u8; 32],
        location: Location,
        ended: u64,
    ) -> Self {
        let len = location.len;
        let parts = vec![Part::Chunk { digest, len }];
        let removals = engine.packs.removals();
        let (size_bytes, tag) = (len.into(), OnceLock::new());
        Self { engine, first: location, size_bytes, parts, tag, ended, removals }
    }

    /// Adds the chunk behind it, which has `size_bytes` and comes after `literals`, if it lies
    /// there in the frame too; false if it does not.
    pub(crate) fn add(
        &mut self,
        literals: &Bytes,
        digest: [u8; 32],
        size_bytes: u64,
        located: Located,
    ) -> bool {
        let Located::Frame(location) = located else { return false };
        let Location { pack, frame_offset, frame_len, offset, len } = location;
        let end = u64::from(self.first.offset) + self.size_bytes;
        let is_next = (pack, frame_offset, frame_len)
            == (self.first.pack, self.first.frame_offset, self.first.frame_len)
            && u64::from(offset) == end + literals.len() as u64
            && u64::from(len) == size_bytes
            && self.size_bytes < MAX_EXTENT_BYTES;
        if is_next {
            self.size_bytes += literals.len() as u64 + size_bytes;
            if !literals.is_empty() {
                self.parts.push(Part::Literals(literals.clone()));
            }
            self.parts.push(Part::Chunk { digest, len });
        }
        is_next
    }

    /// All of its bytes; `packed` gives the frame, if that is needed.
    fn try_read(&self, packed: impl FnOnce() -> Result<PackedFrame>) -> Result<Bytes, Harm> {
        let (packs, first) = (&self.engine.packs, &self.first);
        if self.may_be_whole()
            && let Some(raw) = packs.frames().whole(first, self.size_bytes, || *self.tag())
        {
            return Ok(raw);
        }
        if let Some(raw) = packs.frames().partial(first) {
            return self.checked(&raw);
        }
        let frame = packed().map_err(|error| self.harm(error))?;
        if self.may_be_whole() && self.is_whole(&frame) {
            // What was stored is just what is wanted, and it is as it was stored: the digests of
            // its parts, at several times the cost, would tell the same.
            let raw = packs.unpack(first, &frame).map_err(|error| self.harm(error))?;
            packs.frames().note_whole(first, *self.tag(), &raw);
            return Ok(raw);
        }
        // Beside it lies what others want.
        let raw = packs.unpack_shared(first, &frame).map_err(|error| self.harm(error))?;
        self.checked(&raw)
    }

    /// Whether it looks as if it filled its frame.
    fn may_be_whole(&self) -> bool {
        self.first.offset == 0 && self.size_bytes >= LARGE_BYTES
    }

    /// Whether just its chunks and literals lie in `frame`: other literals, empty objects or
    /// other contents do not.
    fn is_whole(&self, frame: &PackedFrame) -> bool {
        frame.raw_len() == self.size_bytes && frame.tag() == *self.tag()
    }

    /// The tag of a frame that just its chunks and literals lie in.
    fn tag(&self) -> &ContentsTag {
        // An extent may be kept, and read again.
        self.tag.get_or_init(|| contents_tag(self.parts.iter().map(Part::digest)))
    }

    /// All of its bytes out of those of its frame, each chunk checked.
    fn checked(&self, frame: &Bytes) -> Result<Bytes, Harm> {
        let start = self.first.offset as usize;
        let whole = usize::try_from(self.size_bytes)
            .ok()
            .and_then(|len| start.checked_add(len))
            .filter(|end| *end <= frame.len())
            .map(|end| frame.slice(start..end))
            .ok_or_else(|| {
                let problem = "the frame is shorter than the index says";
                self.harm(self.engine.packs.damaged(&self.first, problem))
            })?;
        let mut has_other_literals = false;
        let mut rest = &whole[..];
        for part in &self.parts {
            let (bytes, behind) = rest.split_at(part.len());
            match part {
                Part::Chunk { digest, .. } => {
                    if blake3::hash(bytes) != *digest {
                        let error = Error::corrupt("its bytes have another digest");
                        return Err(Harm { digest: *digest, error });
                    }
                }
                Part::Literals(wanted) => has_other_literals |= wanted != bytes,
            }
            rest = behind;
        }
        Ok(if has_other_literals { self.with_literals(&whole) } else { whole })
    }

    /// The chunks that lie in `whole`, and the literals that are wanted.
    fn with_literals(&self, whole: &Bytes) -> Bytes {
        let mut bytes = Vec::with_capacity(whole.len());
        for part in &self.parts {
            let stored = &whole[bytes.len()..bytes.len() + part.len()];
            bytes.extend_from_slice(match part {
                Part::Chunk { .. } => stored,
                Part::Literals(wanted) => wanted,
            });
        }
        bytes.into()
    }

    /// Whether what the frame was looked up for may lie elsewhere now.
    fn may_be_moved(&self) -> bool {
        self.engine.packs.removals() != self.removals
            || !self.engine.packs.is_known(self.first.pack)
    }

    /// All of its bytes, each chunk from wherever it lies now.
    fn read_apart(&self) -> Result<Bytes> {
        let mut bytes = Vec::new();
        for part in &self.parts {
            match part {
                Part::Chunk { digest, .. } => {
                    bytes.extend_from_slice(&self.engine.chunk(digest, self.ended)?);
                }
                Part::Literals(wanted) => bytes.extend_from_slice(wanted),
            }
        }
        Ok(bytes.into())
    }

    /// That all of it is harmed.
    fn harm(&self, error: Error) -> Harm {
        // It begins with a chunk.
        Harm { digest: self.parts[0].digest(), error }
    }

    fn describe(&self, harm: Harm) -> Error {
        let Harm { digest, error } = harm;
        let chunk = BlobDigest::from_bytes(digest);
        let error = error.while_doing(format!("reading chunk {chunk} and what lies behind it"));
        self.engine.note_if_damage(ObjectKind::Chunk, &digest, error)
    }
}

/// An error, and the first chunk that cannot be read because of it.
struct Harm {
    digest: [u8; 32],
    error: Error,
}

impl BlobExtent for FrameExtent {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.parts.capacity() * size_of::<Part>()
    }

    fn read(&self) -> Result<Bytes> {
        self.engine.reads.fetch_add(1, Ordering::Relaxed);
        match self.try_read(|| self.engine.packs.packed_frame(&self.first)) {
            Ok(bytes) => Ok(bytes),
            Err(_) if self.may_be_moved() => self.read_apart(),
            Err(harm) => Err(self.describe(harm)),
        }
    }

    fn read_now(&self) -> Option<Bytes> {
        let not_now = || Error::unavailable("it is not in memory");
        let packed = || self.engine.packs.packed_frame_now(&self.first).ok_or_else(not_now);
        let bytes = self.try_read(packed).ok()?;
        self.engine.reads.fetch_add(1, Ordering::Relaxed);
        Some(bytes)
    }

    fn read_zstd(&self) -> Result<Option<Bytes>> {
        self.engine.reads.fetch_add(1, Ordering::Relaxed);
        if !self.may_be_whole() {
            return Ok(None);
        }
        match self.engine.packs.packed_frame(&self.first) {
            // Whoever reads the bytes will tell what else lies there.
            Ok(frame) => Ok(self.is_whole(&frame).then(|| frame.zstd())),
            Err(_) if self.may_be_moved() => Ok(None),
            Err(error) => Err(self.describe(self.harm(error))),
        }
    }

    fn read_zstd_now(&self) -> Option<Bytes> {
        if !self.may_be_whole() {
            return None;
        }
        let frame = self.engine.packs.zstd_now(&self.first, self.size_bytes, *self.tag())?;
        self.engine.reads.fetch_add(1, Ordering::Relaxed);
        Some(frame)
    }
}

/// No extent goes on once it has so many bytes.
pub(super) const MAX_EXTENT_BYTES: u64 = 4 << 20;

/// An extent of at least this length that begins a frame most likely fills it. What is
/// smaller shares frames, and to send it as it is stored would not pay.
const LARGE_BYTES: u64 = 64 << 10;

/// A chunk that is kept as another one with some bytes replaced.
pub(crate) struct PatchedExtent {
    engine: Arc<Inner>,
    digest: [u8; 32],
    size_bytes: u64,
    /// How many collections had ended when it was looked up.
    ended: u64,
    patches: Location,
    /// Where what is patched lies, if that could be told from what is in memory: whoever must not wait
    /// does not look it up.
    base: Option<Location>,
}

impl PatchedExtent {
    /// Of a chunk of `size_bytes` whose patches lie at `patches`, and which was looked up when
    /// [`Guard::ended`](crate::gc::Guard::ended) was `ended`.
    pub(crate) fn new(
        engine: Arc<Inner>,
        digest: [u8; 32],
        size_bytes: u64,
        patches: Location,
        ended: u64,
    ) -> Self {
        let base = engine.base_if_in_memory(&patches);
        Self { engine, digest, size_bytes, ended, patches, base }
    }
}

impl BlobExtent for PatchedExtent {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>()
    }

    fn read(&self) -> Result<Bytes> {
        self.engine.reads.fetch_add(1, Ordering::Relaxed);
        let chunk = self.engine.chunk(&self.digest, self.ended)?;
        if chunk.len() as u64 == self.size_bytes {
            return Ok(chunk);
        }
        let (digest, size_bytes) = (BlobDigest::from_bytes(self.digest), self.size_bytes);
        let error = Error::corrupt(format!(
            "chunk {digest} has {} bytes instead of {size_bytes}",
            chunk.len()
        ));
        Err(self.engine.note_if_damage(ObjectKind::Chunk, &self.digest, error))
    }

    fn read_now(&self) -> Option<Bytes> {
        let base = self.base.as_ref()?;
        let patches = self.engine.patches_now(&self.patches)?;
        let mut bytes = self.engine.packs.read_now(base)?.to_vec();
        patches.apply(&mut bytes).ok()?;
        let is_right = bytes.len() as u64 == self.size_bytes && blake3::hash(&bytes) == self.digest;
        if is_right {
            self.engine.reads.fetch_add(1, Ordering::Relaxed);
        }
        is_right.then(|| bytes.into())
    }
}

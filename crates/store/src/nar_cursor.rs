//! A position in a planned NAR.

use std::ops::{Deref, Range};

use bytes::Bytes;
use granary_castore::{BlobDigest, BlobExtent, BlobReader, BlobService, Error, NextBlob};

use crate::nar_plan::{NarPlan, PlannedBlob};

/// Walks a plan in order. The blob at the position stays open between its parts.
pub(crate) struct NarCursor<P> {
    plan: P,
    offset: u64,
    /// Where it ends, at most the end of the NAR.
    end: u64,
    /// Position in the plan of the first blob that ends behind `offset`.
    index: usize,
    open: Option<Box<dyn BlobReader>>,
}

/// Some bytes of a NAR.
pub(crate) enum Part {
    /// This part of the plan's literals.
    Literal(Range<usize>),
    /// Bytes of an extent, which begin in a blob and end in the same or a later one.
    Extent(ExtentPart),
}

impl Part {
    pub(crate) fn size_bytes(&self) -> u64 {
        match self {
            Self::Literal(range) => range.len() as u64,
            Self::Extent(part) => part.size_bytes(),
        }
    }

    /// What it takes in memory beside itself.
    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Self::Literal(_) => 0,
            Self::Extent(part) => part.extent.memory_bytes(),
        }
    }

    /// Its bytes, those of `plan`.
    pub(crate) fn read(&self, plan: &NarPlan) -> Result<Bytes, Error> {
        match self {
            Self::Literal(range) => Ok(plan.literals.slice(range.clone())),
            Self::Extent(part) => part.read(),
        }
    }
}

/// Bytes of an extent, which was found to be one of its blob.
pub(crate) struct ExtentPart {
    extent: Box<dyn BlobExtent>,
    /// Which of its bytes.
    range: Range<u64>,
}

/// What was read of an extent.
pub(crate) enum Read {
    /// The bytes.
    Plain(Bytes),
    /// The bytes, as a frame of zstd.
    Zstd(Bytes),
}

impl ExtentPart {
    /// The bytes from `position` in the blob that `reader` reads, to the end of the extent
    /// there. What is behind the blob, as far as it is wanted, comes from `behind`.
    fn at(
        reader: &mut dyn BlobReader,
        blob: &PlannedBlob,
        position: u64,
        behind: &mut Behind<'_>,
    ) -> Result<Self, Error> {
        let wrong = |what: &str| {
            let digest = blob.digest;
            Error::corrupt(format!("reading blob {digest} at {position} gave {what}"))
        };
        let found = reader.extent_at(position, behind)?.ok_or_else(|| wrong("nothing"))?;
        let extent_end = found.start.checked_add(found.extent.size_bytes());
        let told_end = behind.told_end() - blob.nar_offset;
        let extent_end = extent_end.filter(|end| *end <= told_end);
        let extent_end = extent_end.ok_or_else(|| wrong("more bytes than there are"))?;
        if !(found.start..extent_end).contains(&position) {
            return Err(wrong("other bytes of it"));
        }
        let end = extent_end.min(behind.end - blob.nar_offset);
        let range = position - found.start..end - found.start;
        Ok(Self { extent: found.extent, range })
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Its bytes.
    pub(crate) fn read(&self) -> Result<Bytes, Error> {
        self.wanted(&self.extent.read()?)
    }

    /// Its bytes, if they can be had without waiting.
    pub(crate) fn read_now(&self) -> Option<Bytes> {
        self.wanted(&self.extent.read_now()?).ok()
    }

    /// Those of the bytes of its extent that are wanted.
    fn wanted(&self, bytes: &Bytes) -> Result<Bytes, Error> {
        if bytes.len() as u64 != self.extent.size_bytes() {
            return Err(Error::corrupt(format!(
                "reading an extent of {} bytes gave {}",
                self.extent.size_bytes(),
                bytes.len()
            )));
        }
        let index = |at| usize::try_from(at).expect("it lies within the bytes that were read");
        Ok(bytes.slice(index(self.range.start)..index(self.range.end)))
    }

    /// Its bytes, as a frame if they are stored as one.
    pub(crate) fn read_stored(&self) -> Result<Read, Error> {
        if self.range == (0..self.extent.size_bytes())
            && let Some(frame) = self.extent.read_zstd()?
        {
            return Ok(Read::Zstd(frame));
        }
        self.read().map(Read::Plain)
    }

    /// The frame that it is stored as, if it is, and if it can be had without waiting.
    pub(crate) fn read_frame_now(&self) -> Option<Bytes> {
        let is_whole = self.range == (0..self.extent.size_bytes());
        is_whole.then(|| self.extent.read_zstd_now()).flatten()
    }
}

/// Opens `blob`, which must have the length that is planned.
fn open(blobs: &dyn BlobService, blob: &PlannedBlob) -> Result<Box<dyn BlobReader>, PartError> {
    let reader = blobs.open(&blob.digest)?.ok_or(PartError::Missing(blob.digest))?;
    if reader.size_bytes() == blob.size_bytes {
        return Ok(reader);
    }
    Err(PartError::Store(Error::corrupt(format!(
        "blob {} has {} bytes, and a directory says {}",
        blob.digest,
        reader.size_bytes(),
        blob.size_bytes
    ))))
}

/// The blobs behind one in a plan, as far as they are wanted.
struct Behind<'a> {
    plan: &'a NarPlan,
    /// Position in the plan of the one that was told last: at first of that before them.
    index: usize,
    /// Where in the NAR nothing more is wanted.
    end: u64,
}

impl Behind<'_> {
    /// Where in the NAR the blob ends that was told last.
    fn told_end(&self) -> u64 {
        let blob = &self.plan.blobs[self.index];
        blob.nar_offset + blob.size_bytes
    }
}

impl Iterator for Behind<'_> {
    type Item = NextBlob;

    fn next(&mut self) -> Option<NextBlob> {
        let before = self.plan.blobs[self.index].literals_before;
        let blob = self.plan.blobs.get(self.index + 1)?;
        if blob.nar_offset >= self.end {
            return None;
        }
        self.index += 1;
        let literals = self.plan.literals.slice(before..blob.literals_before);
        Some(NextBlob { literals, digest: blob.digest, size_bytes: blob.size_bytes })
    }
}

/// Why there is no part.
pub(crate) enum PartError {
    /// A blob is not stored.
    Missing(BlobDigest),
    /// The store failed, or what it has is not what was planned.
    Store(Error),
}

impl From<PartError> for Error {
    fn from(error: PartError) -> Self {
        match error {
            PartError::Missing(digest) => {
                Self::corrupt(format!("blob {digest} is needed, and missing"))
            }
            PartError::Store(error) => error,
        }
    }
}

impl From<Error> for PartError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl<P: Deref<Target = NarPlan>> NarCursor<P> {
    /// A cursor over the bytes `range` of the NAR, as far as it has them.
    pub(crate) fn new(plan: P, range: Range<u64>) -> Self {
        let (offset, end) = (range.start, range.end.min(plan.nar_size));
        let index = plan.blobs.partition_point(|blob| blob.nar_offset + blob.size_bytes <= offset);
        Self { plan, offset, end, index, open: None }
    }

    pub(crate) fn plan(&self) -> &P {
        &self.plan
    }

    /// Where in the NAR the next part begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next part, which has at most `max_literal_bytes` if it is of literals; `None` at
    /// the end. Blobs are opened in the order of the plan, each when its first part is asked
    /// for.
    pub(crate) fn next(
        &mut self,
        blobs: &dyn BlobService,
        max_literal_bytes: u64,
    ) -> Result<Option<Part>, PartError> {
        if self.offset >= self.end {
            return Ok(None);
        }
        let Some(blob) = self.blob() else {
            return Ok(Some(Part::Literal(self.literal(max_literal_bytes))));
        };
        let reader = match &mut self.open {
            Some(reader) => reader,
            none => none.insert(open(blobs, &blob)?),
        };
        let position = self.offset - blob.nar_offset;
        let mut behind = Behind { plan: &self.plan, index: self.index, end: self.end };
        let part = ExtentPart::at(&mut **reader, &blob, position, &mut behind)?;
        self.offset += part.size_bytes();
        let is_behind = |blob: &PlannedBlob| blob.nar_offset + blob.size_bytes <= self.offset;
        while self.plan.blobs.get(self.index).is_some_and(is_behind) {
            self.index += 1;
            self.open = None;
        }
        Ok(Some(Part::Extent(part)))
    }

    /// The blob at the position, if there is one.
    fn blob(&self) -> Option<PlannedBlob> {
        let blob = self.plan.blobs.get(self.index)?;
        (blob.nar_offset <= self.offset).then_some(*blob)
    }

    /// The literals at the position, up to the next blob or the end.
    fn literal(&mut self, max_bytes: u64) -> Range<usize> {
        // In literals and in the NAR, the same distance lies between here and there.
        let (nar_end, end) = match self.plan.blobs.get(self.index) {
            Some(blob) => (blob.nar_offset, blob.literals_before),
            None => (self.plan.nar_size, self.plan.literals.len()),
        };
        let in_memory = |bytes| usize::try_from(bytes).expect("literals lie in memory");
        let start = end - in_memory(nar_end - self.offset);
        let size_bytes = nar_end.min(self.end).min(self.offset.saturating_add(max_bytes));
        let size_bytes = size_bytes - self.offset;
        self.offset += size_bytes;
        start..start + in_memory(size_bytes)
    }
}

//! A position in a planned NAR.

use std::ops::{Deref, Range};

use bytes::Bytes;
use granary_castore::{BlobDigest, BlobExtent, BlobReader, BlobService, Error};

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
    /// Bytes of an extent of a blob.
    Extent(ExtentPart),
}

impl Part {
    pub(crate) fn size_bytes(&self) -> u64 {
        match self {
            Self::Literal(range) => range.len() as u64,
            Self::Extent(part) => part.size_bytes(),
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
    /// The part of `reader` from `position` to the end of the extent there, or to `end`.
    fn at(
        reader: &mut dyn BlobReader,
        blob: &PlannedBlob,
        position: u64,
        end: u64,
    ) -> Result<Self, Error> {
        let wrong = |what: &str| {
            let digest = blob.digest;
            Error::corrupt(format!("reading blob {digest} at {position} gave {what}"))
        };
        let found = reader.extent_at(position)?.ok_or_else(|| wrong("nothing"))?;
        let extent_end = found.start.checked_add(found.extent.size_bytes());
        let extent_end = extent_end.filter(|end| *end <= blob.size_bytes);
        let extent_end = extent_end.ok_or_else(|| wrong("more bytes than it has"))?;
        if !(found.start..extent_end).contains(&position) {
            return Err(wrong("other bytes of it"));
        }
        let range = position - found.start..end.min(extent_end) - found.start;
        Ok(Self { extent: found.extent, range })
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Its bytes.
    pub(crate) fn read(&self) -> Result<Bytes, Error> {
        let bytes = self.extent.read()?;
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

/// Gives the parts of a whole blob to `take`.
pub(crate) fn read_blob(
    blobs: &dyn BlobService,
    blob: &PlannedBlob,
    mut take: impl FnMut(&ExtentPart) -> Result<(), Error>,
) -> Result<(), PartError> {
    let mut reader = open(blobs, blob)?;
    let mut position = 0;
    while position < blob.size_bytes {
        let part = ExtentPart::at(&mut *reader, blob, position, blob.size_bytes)?;
        take(&part)?;
        position += part.size_bytes();
    }
    Ok(())
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
        let end = blob.size_bytes.min(self.end - blob.nar_offset);
        let part = ExtentPart::at(&mut **reader, &blob, position, end)?;
        self.offset += part.size_bytes();
        if self.offset == blob.nar_offset + blob.size_bytes {
            self.index += 1;
            self.open = None;
        }
        Ok(Some(Part::Extent(part)))
    }

    /// Steps over the blob that begins at the position, if one does, all of it is wanted, and
    /// it has at most `max_bytes`. It is not opened.
    pub(crate) fn step_over(&mut self, max_bytes: u64) -> Option<PlannedBlob> {
        let blob = self.blob()?;
        let is_whole = blob.nar_offset == self.offset
            && self.end.checked_sub(self.offset).is_some_and(|left| blob.size_bytes <= left);
        if !is_whole || blob.size_bytes > max_bytes {
            return None;
        }
        self.offset += blob.size_bytes;
        self.index += 1;
        Some(blob)
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

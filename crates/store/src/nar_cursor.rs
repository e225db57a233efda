//! A position in a planned NAR.

use std::ops::Range;

use bytes::Bytes;
use granary_castore::{BlobDigest, BlobReader, BlobService, Error};

use crate::nar_plan::NarPlan;

/// Reads a plan in order. The blob at the position stays open between the pieces.
pub(crate) struct NarCursor<'a> {
    plan: &'a NarPlan,
    offset: u64,
    /// Position in the plan of the first blob that ends behind `offset`.
    index: usize,
    open: Option<Box<dyn BlobReader>>,
}

/// Some bytes of a NAR.
pub(crate) enum Piece {
    /// This part of the plan's literals.
    Literal(Range<usize>),
    /// Contents of a blob.
    Contents(Bytes),
}

impl Piece {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Literal(range) => range.len(),
            Self::Contents(bytes) => bytes.len(),
        }
    }

    pub(crate) fn bytes<'a>(&'a self, literals: &'a Bytes) -> &'a [u8] {
        match self {
            Self::Literal(range) => &literals[range.clone()],
            Self::Contents(bytes) => bytes,
        }
    }

    pub(crate) fn into_bytes(self, literals: &Bytes) -> Bytes {
        match self {
            Self::Literal(range) => literals.slice(range),
            Self::Contents(bytes) => bytes,
        }
    }
}

/// Why there is no piece.
pub(crate) enum PieceError {
    /// A blob is not stored.
    Missing(BlobDigest),
    /// The store failed, or what it has is not what was planned.
    Store(Error),
}

impl From<PieceError> for Error {
    fn from(error: PieceError) -> Self {
        match error {
            PieceError::Missing(digest) => {
                Self::corrupt(format!("blob {digest} is missing, and a NAR needs it"))
            }
            PieceError::Store(error) => error,
        }
    }
}

impl From<Error> for PieceError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl<'a> NarCursor<'a> {
    pub(crate) fn new(plan: &'a NarPlan, offset: u64) -> Self {
        let index = plan.blobs.partition_point(|blob| blob.nar_offset + blob.size_bytes <= offset);
        Self { plan, offset, index, open: None }
    }

    /// The next piece, of 1 to `max_bytes` bytes; `None` at the end.
    pub(crate) fn next(
        &mut self,
        blobs: &dyn BlobService,
        max_bytes: usize,
    ) -> Result<Option<Piece>, PieceError> {
        if self.offset >= self.plan.nar_size {
            return Ok(None);
        }
        let piece = match self.plan.blobs.get(self.index) {
            Some(blob) if blob.nar_offset <= self.offset => {
                let bytes = self.contents(blobs, max_bytes)?;
                self.offset += bytes.len() as u64;
                if self.offset == blob.nar_offset + blob.size_bytes {
                    self.index += 1;
                    self.open = None;
                }
                Piece::Contents(bytes)
            }
            _ => {
                let range = self.literal(max_bytes);
                self.offset += range.len() as u64;
                Piece::Literal(range)
            }
        };
        Ok(Some(piece))
    }

    /// The literals at the position, up to the next blob or the end.
    fn literal(&self, max_bytes: usize) -> Range<usize> {
        // In literals and in the NAR, the same distance lies between here and there.
        let (nar_end, end) = match self.plan.blobs.get(self.index) {
            Some(blob) => (blob.nar_offset, blob.literals_before),
            None => (self.plan.nar_size, self.plan.literals.len()),
        };
        let left = usize::try_from(nar_end - self.offset).expect("literals lie in memory");
        let start = end - left;
        start..start + left.min(max_bytes)
    }

    /// Contents of the blob at the position.
    fn contents(&mut self, blobs: &dyn BlobService, max_bytes: usize) -> Result<Bytes, PieceError> {
        let blob = &self.plan.blobs[self.index];
        let reader = match &mut self.open {
            Some(reader) => reader,
            none => {
                let reader = blobs.open(&blob.digest)?.ok_or(PieceError::Missing(blob.digest))?;
                if reader.size_bytes() != blob.size_bytes {
                    return Err(PieceError::Store(Error::corrupt(format!(
                        "blob {} has {} bytes, and a directory says {}",
                        blob.digest,
                        reader.size_bytes(),
                        blob.size_bytes
                    ))));
                }
                none.insert(reader)
            }
        };
        let position = self.offset - blob.nar_offset;
        let left = blob.size_bytes - position;
        let max_bytes = usize::try_from(left).map_or(max_bytes, |left| left.min(max_bytes));
        let bytes = reader.read_at(position, max_bytes)?;
        if bytes.is_empty() || bytes.len() > max_bytes {
            return Err(PieceError::Store(Error::corrupt(format!(
                "reading blob {} at {position} gave {} bytes, not 1 to {max_bytes}",
                blob.digest,
                bytes.len()
            ))));
        }
        Ok(bytes)
    }
}

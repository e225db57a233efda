//! Consecutive chunks on their way.

use std::ops::Range;

use super::cut::CutChunk;
use crate::format::{Object, ObjectKind};

/// Consecutive new chunks of a cut.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) objects: Vec<Object>,
    /// Where they lie in the bytes of the cut.
    pub(super) range: Range<usize>,
}

impl Run {
    pub(super) fn push(&mut self, digest: [u8; 32], chunk: &CutChunk<'_>) {
        if self.objects.is_empty() {
            self.range.start = chunk.start;
        }
        self.range.end = chunk.end();
        let len = u32::try_from(chunk.bytes.len()).expect("a chunk is far smaller");
        self.objects.push(Object { kind: ObjectKind::Chunk, digest, len, literals_len: 0 });
    }
}

//! Chunks in the order in which they will be read, with what lies between them.

use bytes::Bytes;

use super::raw_frame::RawFrame;
use crate::format::{Object, ObjectKind};

/// New chunks that follow each other in what is read of them together, a NAR as a rule, and the
/// literals between them: a piece of a NAR as it is, which will lie in one frame.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    objects: Vec<Object>,
    /// The bytes of each object.
    chunks: Vec<Bytes>,
    /// The literals before each object, one behind the other, and those since the last chunk.
    literals: Vec<u8>,
    /// Where those since the last chunk begin.
    last_literals: usize,
    /// Bytes from the first chunk to the end of the last.
    len: usize,
}

impl Sequence {
    /// Notes literals behind the last chunk; false if there are too many to go on with it, and
    /// then it must be taken. Before the first chunk nothing is noted.
    pub(super) fn put_literals(&mut self, bytes: &[u8]) -> bool {
        let fits = u16::try_from(self.last_literals().len() + bytes.len()).is_ok();
        if fits && !self.is_empty() {
            self.literals.extend_from_slice(bytes);
        }
        fits || self.is_empty()
    }

    /// Adds a chunk behind the literals.
    pub(super) fn push(&mut self, digest: [u8; 32], bytes: Bytes) {
        let len = u32::try_from(bytes.len()).expect("a chunk is far smaller");
        let literals = self.last_literals().len();
        let literals_len = u16::try_from(literals).expect("checked when they came");
        self.objects.push(Object { kind: ObjectKind::Chunk, digest, len, literals_len });
        self.last_literals = self.literals.len();
        self.len += literals + bytes.len();
        self.chunks.push(bytes);
    }

    fn last_literals(&self) -> &[u8] {
        &self.literals[self.last_literals..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Bytes from the first chunk to the end of the last.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The raw bytes of the frame, and what lies in it; the sequence is empty then.
    pub(super) fn take(&mut self) -> (RawFrame, Vec<Object>) {
        let Self { objects, chunks, literals, .. } = std::mem::take(self);
        let mut literals = Bytes::from(literals);
        let mut raw = RawFrame::with_capacity(2 * objects.len());
        for (object, bytes) in objects.iter().zip(chunks) {
            raw.push(literals.split_to(object.literals_len.into()));
            raw.push(bytes);
        }
        (raw, objects)
    }

    /// The chunks one by one, without literals; the sequence is empty then.
    pub(super) fn take_loose(&mut self) -> impl Iterator<Item = (Object, Bytes)> + use<> {
        let Self { objects, chunks, .. } = std::mem::take(self);
        objects
            .into_iter()
            .zip(chunks)
            .map(|(object, bytes)| (Object { literals_len: 0, ..object }, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_begins_and_ends_with_a_chunk() {
        let mut sequence = Sequence::default();
        assert!(sequence.put_literals(b"before the first"));
        sequence.push([1; 32], Bytes::from_static(b"one"));
        assert!(sequence.put_literals(b"bet"));
        assert!(sequence.put_literals(b"ween"));
        sequence.push([2; 32], Bytes::from_static(b"two"));
        assert!(sequence.put_literals(b"behind the last"));
        assert_eq!(sequence.len(), 3 + 7 + 3);
        let (raw, objects) = sequence.take();
        assert_eq!(raw.contiguous(&mut Vec::new()), b"onebetweentwo");
        let lens: Vec<_> = objects.iter().map(|object| (object.literals_len, object.len)).collect();
        assert_eq!(lens, [(0, 3), (7, 3)]);
        assert!(sequence.is_empty());
        sequence.push([3; 32], Bytes::from_static(b"three"));
        let (raw, _) = sequence.take();
        assert_eq!(raw.contiguous(&mut Vec::new()), b"three", "what was behind the last is gone");
    }

    #[test]
    fn loose_chunks_have_no_literals() {
        let mut sequence = Sequence::default();
        sequence.push([1; 32], Bytes::from_static(b"one"));
        assert!(sequence.put_literals(b"between"));
        sequence.push([2; 32], Bytes::from_static(b"two"));
        let loose: Vec<_> = sequence.take_loose().collect();
        assert!(loose.iter().all(|(object, _)| object.literals_len == 0));
        assert_eq!(loose.iter().map(|(_, bytes)| &bytes[..]).collect::<Vec<_>>(), [b"one", b"two"]);
    }

    #[test]
    fn more_literals_than_a_record_can_say_are_refused() {
        let mut sequence = Sequence::default();
        let most = vec![b'x'; usize::from(u16::MAX)];
        sequence.push([1; 32], Bytes::from_static(b"one"));
        assert!(sequence.put_literals(&most));
        sequence.push([2; 32], Bytes::from_static(b"two"));
        assert!(sequence.put_literals(&most));
        assert!(!sequence.put_literals(b"x"));
    }
}

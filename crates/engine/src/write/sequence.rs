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
    /// From the first chunk to the end of the last.
    raw: RawFrame,
    len: usize,
    /// The literals since the last chunk.
    literals: Vec<Bytes>,
    literals_len: usize,
    /// What is added may lie in this, one behind the other, and need not be put together then.
    archive: Bytes,
}

impl Sequence {
    /// Whether what is added is taken to lie in `archive`.
    pub(super) fn lies_in(&self, archive: &Bytes) -> bool {
        (archive.as_ptr(), archive.len()) == (self.archive.as_ptr(), self.archive.len())
    }

    /// Says that what is added next lies in `archive`.
    pub(super) fn enter(&mut self, archive: Bytes) {
        self.archive = archive;
    }

    /// Notes literals behind the last chunk; false if there are too many to go on with it, and
    /// then it must be taken. Before the first chunk nothing is noted.
    pub(super) fn put_literals(&mut self, bytes: Bytes) -> bool {
        if self.is_empty() || bytes.is_empty() {
            return true;
        }
        let fits = u16::try_from(self.literals_len + bytes.len()).is_ok();
        if fits {
            self.literals_len += bytes.len();
            self.literals.push(bytes);
        }
        fits
    }

    /// Adds a chunk behind the literals.
    pub(super) fn push(&mut self, digest: [u8; 32], bytes: Bytes) {
        let len = u32::try_from(bytes.len()).expect("a chunk is far smaller");
        let literals_len = u16::try_from(self.literals_len).expect("checked when they came");
        self.objects.push(Object { kind: ObjectKind::Chunk, digest, len, literals_len });
        self.len += self.literals_len + bytes.len();
        for literals in self.literals.drain(..) {
            self.raw.push(literals, &self.archive);
        }
        self.literals_len = 0;
        self.raw.push(bytes.clone(), &self.archive);
        self.chunks.push(bytes);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Bytes from the first chunk to the end of the last.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether it is time to take it as a frame of `frame_bytes`. That which has as much goes on for up
    /// to a quarter of it, if what it lies in ends there: the next one then begins with the next archive.
    pub(super) fn is_full(&self, frame_bytes: usize) -> bool {
        let goes_on = || (1..=frame_bytes / 4).contains(&self.left_in_archive());
        self.len >= frame_bytes && !(self.fits_archive(frame_bytes) && goes_on())
    }

    /// Whether to take it as a frame of `frame_bytes` although there is room for more, at the end of
    /// what it lies in: then it is one piece of memory.
    pub(super) fn is_enough(&self, frame_bytes: usize) -> bool {
        self.fits_archive(frame_bytes) && self.len >= frame_bytes / 4
    }

    /// Whether what is added lies in something that has room for a whole frame: only then is there a
    /// use in frames that end with it.
    fn fits_archive(&self, frame_bytes: usize) -> bool {
        !self.is_empty() && self.archive.len() >= frame_bytes
    }

    /// How many bytes the archive has behind the last chunk; 0 if that does not lie in it.
    fn left_in_archive(&self) -> usize {
        let Some(last) = self.chunks.last() else { return 0 };
        let start = last.as_ptr().addr().wrapping_sub(self.archive.as_ptr().addr());
        self.archive.len().checked_sub(start).map_or(0, |left| left.saturating_sub(last.len()))
    }

    /// The raw bytes of the frame, and what lies in it; the sequence is empty then.
    pub(super) fn take(&mut self) -> (RawFrame, Vec<Object>) {
        let Self { objects, raw, .. } = self.take_all();
        (raw, objects)
    }

    /// The chunks one by one, without literals; the sequence is empty then.
    pub(super) fn take_loose(&mut self) -> impl Iterator<Item = (Object, Bytes)> + use<> {
        let Self { objects, chunks, .. } = self.take_all();
        objects
            .into_iter()
            .zip(chunks)
            .map(|(object, bytes)| (Object { literals_len: 0, ..object }, bytes))
    }

    fn take_all(&mut self) -> Self {
        let archive = self.archive.clone();
        std::mem::replace(self, Self { archive, ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_begins_and_ends_with_a_chunk() {
        let mut sequence = Sequence::default();
        assert!(sequence.put_literals(Bytes::from_static(b"before the first")));
        sequence.push([1; 32], Bytes::from_static(b"one"));
        assert!(sequence.put_literals(Bytes::from_static(b"bet")));
        assert!(sequence.put_literals(Bytes::from_static(b"ween")));
        sequence.push([2; 32], Bytes::from_static(b"two"));
        assert!(sequence.put_literals(Bytes::from_static(b"behind the last")));
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
    fn what_lies_in_one_archive_is_one_piece_of_it() {
        let archive = Bytes::from(b"headonebetweentwo".to_vec());
        let other = Bytes::from(b"behindthree".to_vec());
        let mut sequence = Sequence::default();
        assert!(!sequence.lies_in(&archive));
        sequence.enter(archive.clone());
        assert!(sequence.put_literals(archive.slice(..4)));
        sequence.push([1; 32], archive.slice(4..7));
        assert!(sequence.lies_in(&archive));
        assert!(sequence.put_literals(archive.slice(7..10)));
        assert!(sequence.put_literals(archive.slice(10..14)));
        sequence.push([2; 32], archive.slice(14..));
        let mut buffer = Vec::new();
        let (raw, _) = sequence.take();
        assert_eq!(raw.contiguous(&mut buffer).as_ptr(), archive[4..].as_ptr());
        assert_eq!(raw.contiguous(&mut buffer), b"onebetweentwo");

        // Over the end of one.
        sequence.push([2; 32], archive.slice(14..));
        sequence.enter(other.clone());
        assert!(sequence.put_literals(other.slice(..6)));
        sequence.push([3; 32], other.slice(6..));
        let (raw, _) = sequence.take();
        assert_eq!(raw.contiguous(&mut buffer), b"twobehindthree");
    }

    #[test]
    fn frames_end_with_what_they_lie_in() {
        let archive = Bytes::from(vec![b'x'; 1_100]);
        let mut sequence = Sequence::default();
        sequence.enter(archive.clone());
        // Up to there, and whether it is full, and enough if the archive ended.
        for (end, is_full, is_enough) in
            [(249, false, false), (250, false, true), (999, false, true), (1_000, false, true)]
        {
            sequence.push([1; 32], archive.slice(sequence.len()..end));
            assert_eq!(sequence.is_full(1_000), is_full, "{end}");
            assert_eq!(sequence.is_enough(1_000), is_enough, "{end}");
        }
        // Nothing is left, or nothing is known to be.
        sequence.push([2; 32], archive.slice(1_000..));
        assert!(sequence.is_full(1_000));
        sequence.take();
        sequence.push([3; 32], Bytes::from(vec![b'y'; 1_000]));
        assert!(sequence.is_full(1_000));
        sequence.take();
        // Much is left of a longer one; a shorter one does not matter.
        let longer = Bytes::from(vec![b'x'; 1_300]);
        sequence.enter(longer.clone());
        sequence.push([1; 32], longer.slice(..1_000));
        assert!(sequence.is_full(1_000));
        sequence.take();
        let shorter = Bytes::from(vec![b'x'; 900]);
        sequence.enter(shorter.clone());
        sequence.push([1; 32], shorter.slice(..800));
        assert!(!sequence.is_enough(1_000));
    }

    #[test]
    fn loose_chunks_have_no_literals() {
        let mut sequence = Sequence::default();
        sequence.push([1; 32], Bytes::from_static(b"one"));
        assert!(sequence.put_literals(Bytes::from_static(b"between")));
        sequence.push([2; 32], Bytes::from_static(b"two"));
        let loose: Vec<_> = sequence.take_loose().collect();
        assert!(loose.iter().all(|(object, _)| object.literals_len == 0));
        assert_eq!(loose.iter().map(|(_, bytes)| &bytes[..]).collect::<Vec<_>>(), [b"one", b"two"]);
    }

    #[test]
    fn more_literals_than_a_record_can_say_are_refused() {
        let mut sequence = Sequence::default();
        let most = Bytes::from(vec![b'x'; usize::from(u16::MAX)]);
        sequence.push([1; 32], Bytes::from_static(b"one"));
        assert!(sequence.put_literals(most.clone()));
        sequence.push([2; 32], Bytes::from_static(b"two"));
        assert!(sequence.put_literals(most.clone()));
        assert!(!sequence.put_literals(Bytes::from_static(b"x")));
    }
}

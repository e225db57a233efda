//! A NAR on its way in: read once into pieces that lie in memory, which are hashed while they are taken apart.

use std::{
    io::{self, BufRead, ErrorKind, Read},
    mem,
    ops::Range,
};

use bytes::Bytes;
use granary_castore::Result;
use granary_nix_formats::NarHash;

use crate::{nar_hasher::NarHasher, recycler::Recycler};

/// What a piece has at least of what was not in the one before, unless it is one of the first or the last: a
/// frame, which then is one piece of memory.
const READ_BYTES: usize = 1 << 20;

/// How much is given as it comes: what is no NAR is told from that, however slowly the rest comes.
const EAGER_BYTES: usize = 16 << 10;

/// How many times as much is read at a time as was read before, until that is [`READ_BYTES`]: of most NARs there is
/// less than that in all.
const GROWTH: usize = 4;

/// Room in a buffer beyond that, so that the last read is not of a few bytes: those go through the
/// buffers of whatever they are read from.
const SPARE_BYTES: usize = 64 << 10;

/// A piece that has less than this part of its buffer is copied: whoever keeps it should not keep the buffer,
/// and while it comes byte by byte there are thousands of them.
const MIN_USED_PART: usize = 8;

/// How many buffers that nobody uses are kept for the next reads: about as many as come back
/// together.
const KEPT_BUFFERS: usize = 4;

/// See the module.
pub(crate) struct HashedSource<R> {
    source: R,
    /// It has ended.
    is_at_end: bool,
    hasher: NarHasher,
    /// What is at hand, from `next` on, behind what was.
    piece: Bytes,
    next: usize,
    /// Up to there it was given on.
    done: usize,
    /// What was consumed of pieces before, and not given on.
    left: Vec<(Bytes, Range<usize>)>,
    /// How many bytes were read so far, as far as that matters.
    read_bytes: usize,
    /// What the source failed with behind what is at hand.
    failure: Option<io::Error>,
    /// For the next piece, if the last one was copied.
    buffer: Vec<u8>,
    recycler: Recycler,
}

impl<R: Read> HashedSource<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            is_at_end: false,
            hasher: NarHasher::default(),
            piece: Bytes::new(),
            next: 0,
            done: 0,
            left: Vec::new(),
            read_bytes: 0,
            failure: None,
            buffer: Vec::new(),
            recycler: Recycler::new(KEPT_BUFFERS),
        }
    }

    /// The piece in which the next `len` bytes lie, and where: at its beginning, if the one at hand does not have all of
    /// them. `None` if the source ends or fails before.
    pub(crate) fn in_one_piece(&mut self, len: usize) -> Option<(&Bytes, Range<usize>)> {
        while self.piece.len() - self.next < len {
            match self.read_on(len) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.failure = Some(error);
                    return None;
                }
            }
        }
        Some((&self.piece, self.next..self.next + len))
    }

    /// Gives on what was consumed and was not before: pieces, and where it lies in them, in order.
    pub(crate) fn give<E>(
        &mut self,
        mut take: impl FnMut(&Bytes, Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (piece, range) in self.left.drain(..) {
            take(&piece, range)?;
        }
        let range = mem::replace(&mut self.done, self.next)..self.next;
        if range.is_empty() { Ok(()) } else { take(&self.piece, range) }
    }

    /// Whether more than the piece at hand is kept for what was not [given on](Self::give).
    pub(crate) fn keeps_pieces(&self) -> bool {
        !self.left.is_empty()
    }

    /// What was consumed since is not to be [given on](Self::give).
    pub(crate) fn pass_over(&mut self) {
        self.left.clear();
        self.done = self.next;
    }

    /// The hash of all bytes that were read.
    pub(crate) fn finish(self) -> Result<NarHash> {
        self.hasher.finish()
    }

    /// Begins another piece with what is at hand, and reads on into it, until it has as much as is wanted; false if
    /// nothing comes any more.
    fn read_on(&mut self, wanted: usize) -> io::Result<bool> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.is_at_end {
            return Ok(false);
        }
        let at_hand = self.piece.len() - self.next;
        let at_least = match self.read_bytes {
            0..EAGER_BYTES => 1,
            read => (GROWTH * read).min(READ_BYTES),
        };
        let enough = wanted.max(at_hand + at_least);
        let room = enough + SPARE_BYTES;
        let mut bytes = mem::take(&mut self.buffer);
        if bytes.is_empty() {
            bytes = self.recycler.take();
        }
        if bytes.len() < room {
            // Nobody wants what is in it.
            bytes.clear();
            bytes.reserve_exact(room);
            bytes.resize(room, 0);
        }
        bytes[..at_hand].copy_from_slice(&self.piece[self.next..]);
        let mut len = at_hand;
        while len < enough {
            match self.source.read(&mut bytes[len..room]) {
                Ok(0) => {
                    self.is_at_end = true;
                    break;
                }
                // A source that claims more than there was room for must not make us panic.
                Ok(read) => len = len.saturating_add(read).min(room),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            }
        }
        if len == at_hand {
            self.buffer = bytes;
            return self.failure.take().map_or(Ok(false), Err);
        }
        self.read_bytes = self.read_bytes.saturating_add(len - at_hand).min(READ_BYTES);
        let piece = if len < bytes.len() / MIN_USED_PART {
            let piece = Bytes::copy_from_slice(&bytes[..len]);
            self.buffer = bytes;
            piece
        } else {
            self.recycler.freeze(bytes, len)
        };
        let before = mem::replace(&mut self.piece, piece);
        if self.done < self.next {
            self.left.push((before, self.done..self.next));
        }
        (self.next, self.done) = (0, 0);
        // Comes back in `IngestError::from`.
        self.hasher.update(self.piece.slice(at_hand..)).map_err(io::Error::other)?;
        Ok(true)
    }
}

impl<R: Read> Read for HashedSource<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buf)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: Read> BufRead for HashedSource<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.next == self.piece.len() {
            self.read_on(0)?;
        }
        Ok(&self.piece[self.next..])
    }

    fn consume(&mut self, len: usize) {
        assert!(len <= self.piece.len() - self.next, "no more is consumed than is at hand");
        self.next += len;
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Gives at most so many bytes at a time, then fails if told to.
    struct Pieces<'a> {
        bytes: &'a [u8],
        piece: usize,
        fails: bool,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if self.bytes.is_empty() && self.fails {
                return Err(ErrorKind::ConnectionReset.into());
            }
            let len = buf.len().min(self.piece);
            self.bytes.read(&mut buf[..len])
        }
    }

    fn contents(len: usize) -> Vec<u8> {
        (0..len).map(|at| at.to_le_bytes()[1] ^ at.to_le_bytes()[2]).collect()
    }

    #[test]
    fn every_byte_is_given_and_hashed() {
        let bytes = contents(3 * READ_BYTES + 5);
        for len in [0, 1, READ_BYTES, bytes.len()] {
            for piece in [999, READ_BYTES - 1, 2 * READ_BYTES] {
                let mut source =
                    HashedSource::new(Pieces { bytes: &bytes[..len], piece, fails: false });
                let mut read = Vec::new();
                source.read_to_end(&mut read).expect("it does not fail");
                assert!(read == bytes[..len], "{len} {piece}");
                let hash = NarHash::from_bytes(Sha256::digest(&bytes[..len]).into());
                assert_eq!(source.finish().expect("the thread ended"), hash, "{len} {piece}");
            }
        }
    }

    #[test]
    fn what_came_before_a_failure_is_given_first() {
        let bytes = contents(READ_BYTES / 2);
        let mut source = HashedSource::new(Pieces { bytes: &bytes, piece: 1_000, fails: true });
        let mut read = Vec::new();
        let error = source.read_to_end(&mut read).expect_err("it fails at the end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(read == bytes);
    }

    #[test]
    fn the_first_bytes_are_given_when_they_come() {
        let bytes = contents(3 * READ_BYTES);
        let mut source = HashedSource::new(Pieces { bytes: &bytes, piece: 100, fails: false });
        let mut given = 0_usize;
        while given < EAGER_BYTES {
            assert_eq!(source.fill_buf().expect("it does not fail").len(), 100);
            source.consume(100);
            given += 100;
        }
        let mut lens = Vec::new();
        for _ in 0..3 {
            let len = source.fill_buf().expect("it does not fail").len();
            source.consume(len);
            lens.push(len);
        }
        let next = |len: usize| len.next_multiple_of(100);
        assert_eq!(lens, [next(4 * given), next(20 * given), next(READ_BYTES)]);
    }

    #[test]
    fn bytes_that_come_one_by_one_keep_no_buffers() {
        let bytes = contents(EAGER_BYTES);
        let mut source = HashedSource::new(Pieces { bytes: &bytes, piece: 1, fails: false });
        let mut places = Vec::new();
        while places.len() < 1_000 {
            let place = source.fill_buf().expect("it does not fail").as_ptr();
            let own = source.buffer.as_ptr_range();
            assert!(source.buffer.len() > EAGER_BYTES && !own.contains(&place));
            places.push(own.start);
            source.consume(1);
        }
        assert!(source.keeps_pieces() && source.left.len() < 1_000);
        places.dedup();
        assert_eq!(places.len(), 1, "one buffer was enough");
    }

    #[test]
    fn what_is_wanted_in_one_piece_begins_another_if_it_must() {
        let bytes = contents(4 * READ_BYTES);
        let mut source = HashedSource::new(Pieces { bytes: &bytes, piece: 1_000, fails: false });
        let (mut at, mut moved) = (0, 0);
        // Of such lengths that some fit in one piece and some cross its end.
        for len in [0, 1, 999, 3, EAGER_BYTES, READ_BYTES / 3, READ_BYTES, 5, READ_BYTES / 2, 0] {
            let (before, is_begun) = (source.piece.clone(), source.next < source.piece.len());
            let (piece, range) = source.in_one_piece(len).expect("there are as many");
            assert!(piece[range] == bytes[at..at + len], "{len} at {at}");
            assert!(piece.len() <= 2 * READ_BYTES + SPARE_BYTES, "{}", piece.len());
            moved += usize::from(is_begun && piece.as_ptr() != before.as_ptr());
            source.consume(len);
            at += len;
        }
        assert!(moved >= 3, "{moved} pieces ended within what was wanted");
        assert!(source.in_one_piece(bytes.len()).is_none(), "there are not as many");
        let mut rest = Vec::new();
        source.read_to_end(&mut rest).expect("it does not fail");
        assert!(rest == bytes[at..]);
        let hash = NarHash::from_bytes(Sha256::digest(&bytes).into());
        assert_eq!(source.finish().expect("the thread ended"), hash, "what moved is hashed once");
    }

    #[test]
    fn a_failure_comes_behind_what_is_wanted_before_it() {
        let bytes = contents(50_000);
        let mut source = HashedSource::new(Pieces { bytes: &bytes, piece: 20_000, fails: true });
        assert!(source.in_one_piece(50_001).is_none());
        assert!(source.in_one_piece(50_000).is_some_and(|(piece, range)| piece[range] == bytes));
        let mut read = Vec::new();
        let error = source.read_to_end(&mut read).expect_err("it fails at the end");
        assert_eq!((error.kind(), read), (ErrorKind::ConnectionReset, bytes));
    }

    #[test]
    fn a_source_that_claims_too_much_gives_no_more_than_there_was_room_for() {
        struct Liar;
        impl Read for Liar {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Ok(usize::MAX)
            }
        }
        let mut source = HashedSource::new(Liar);
        assert!(source.in_one_piece(10).is_some_and(|(_, range)| range.len() == 10));
        source.consume(10);
        assert!(
            source.in_one_piece(READ_BYTES).is_some_and(|(_, range)| range.len() == READ_BYTES)
        );
    }

    #[test]
    fn all_that_is_not_passed_over_is_given_on_once() {
        let bytes = contents(3 * READ_BYTES);
        let mut source = HashedSource::new(Pieces { bytes: &bytes, piece: 700, fails: false });
        let (mut given, mut expected, mut at, mut kept) = (Vec::new(), Vec::new(), 0, 0);
        for (step, is_passed_over) in [
            (3, false),
            (2_000, false),
            (20_000, true),
            (READ_BYTES, false),
            (0, true),
            (1, false),
            (READ_BYTES / 2, true),
            (9, false),
        ] {
            io::copy(&mut (&mut source).take(step as u64), &mut io::sink()).expect("as many come");
            kept += usize::from(source.keeps_pieces());
            if is_passed_over {
                source.pass_over();
            } else {
                expected.extend_from_slice(&bytes[at..at + step]);
                let take = |piece: &Bytes, range: Range<usize>| {
                    assert!(!range.is_empty());
                    given.extend_from_slice(&piece[range]);
                    Ok::<_, io::Error>(())
                };
                source.give(take).expect("taken");
            }
            at += step;
            assert!(!source.keeps_pieces() && given == expected, "up to {at}");
        }
        assert!(kept >= 3, "{kept} times, a piece ended in what was given");
    }

    #[test]
    fn memory_is_used_again() {
        let bytes = contents(40 * READ_BYTES);
        let mut source =
            HashedSource::new(Pieces { bytes: &bytes, piece: usize::MAX, fails: false });
        let (kept, range) = source.in_one_piece(1_000).expect("there are as many");
        let kept = kept.slice(range);
        let (mut places, mut pieces) = (std::collections::BTreeSet::new(), 0);
        loop {
            let found = source.fill_buf().expect("it does not fail");
            if found.is_empty() {
                break;
            }
            pieces += 1;
            places.insert(found.as_ptr());
            let len = found.len();
            source.consume(len);
            source.pass_over();
        }
        assert_eq!(kept, bytes[..1_000], "what is kept stays what it is");
        assert!(pieces >= 30 && places.len() < 12, "{pieces} {}", places.len());
    }
}

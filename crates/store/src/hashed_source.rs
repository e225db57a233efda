//! A NAR on its way in: read once into archives, pieces of it in memory, which are hashed while they are taken
//! apart.

use std::{
    io::{self, BufRead, ErrorKind, Read},
    mem,
    ops::Range,
};

use bytes::Bytes;
use granary_castore::Result;
use granary_nix_formats::NarHash;

use crate::{nar_hasher::NarHasher, recycler::Recycler};

/// What an archive has at least of what was not in the one before, unless it is one of the first or the last: a
/// frame, which then is one piece of memory.
const READ_BYTES: usize = 1 << 20;

/// How much is given as it comes: what is no NAR is told from that, however slowly the rest comes.
const EAGER_BYTES: usize = 16 << 10;

/// Room in a buffer beyond that, so that the last read is not of a few bytes: those go through the
/// buffers of whatever they are read from.
const SPARE_BYTES: usize = 64 << 10;

/// How many buffers that nobody uses are kept for the next reads: about as many as come back
/// together.
const KEPT_BUFFERS: usize = 4;

/// See the module.
pub(crate) struct HashedSource<R> {
    source: R,
    hasher: NarHasher,
    /// What is at hand, from `next` on, behind what was.
    archive: Bytes,
    next: usize,
    /// Up to there it was given on.
    done: usize,
    /// What was consumed of archives before, and not given on.
    left: Vec<(Bytes, Range<usize>)>,
    /// How many bytes were read so far, as far as that matters.
    read_bytes: usize,
    /// What the source failed with behind what is at hand.
    failure: Option<io::Error>,
    recycler: Recycler,
}

impl<R: Read> HashedSource<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            hasher: NarHasher::default(),
            archive: Bytes::new(),
            next: 0,
            done: 0,
            left: Vec::new(),
            read_bytes: 0,
            failure: None,
            recycler: Recycler::new(KEPT_BUFFERS),
        }
    }

    /// Where the next `len` bytes lie, at the beginning of another archive if this one does not have all of them.
    /// `None` if the source ends or fails before.
    pub(crate) fn in_one_piece(&mut self, len: usize) -> Option<(&Bytes, Range<usize>)> {
        while self.archive.len() - self.next < len {
            match self.read_on() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.failure = Some(error);
                    return None;
                }
            }
        }
        Some((&self.archive, self.next..self.next + len))
    }

    /// Gives on what was consumed and was not before: archives, and where it lies in them, in order.
    pub(crate) fn give<E>(
        &mut self,
        mut take: impl FnMut(&Bytes, Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (archive, range) in self.left.drain(..) {
            take(&archive, range)?;
        }
        let range = mem::replace(&mut self.done, self.next)..self.next;
        if range.is_empty() { Ok(()) } else { take(&self.archive, range) }
    }

    /// Whether archives are kept for what was not [given on](Self::give).
    pub(crate) fn keeps_archives(&self) -> bool {
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

    /// Begins another archive with what is at hand, and reads on into it; false if nothing comes any more.
    fn read_on(&mut self) -> io::Result<bool> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let at_hand = self.archive.len() - self.next;
        // Many a NAR has not much more than that.
        let is_begun = self.read_bytes >= EAGER_BYTES;
        let enough = at_hand + if is_begun { READ_BYTES } else { EAGER_BYTES };
        let room = enough + SPARE_BYTES;
        let mut bytes = self.recycler.take();
        if bytes.len() < room {
            bytes.resize(room, 0);
        }
        bytes[..at_hand].copy_from_slice(&self.archive[self.next..]);
        let mut len = at_hand;
        while len < enough {
            match self.source.read(&mut bytes[len..room]) {
                Ok(0) => break,
                // A source that claims more than there was room for must not make us panic.
                Ok(read) => len = (len + read).min(room),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if len == at_hand => return Err(error),
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            }
            if !is_begun {
                break;
            }
        }
        if len == at_hand {
            return Ok(false);
        }
        self.read_bytes = self.read_bytes.saturating_add(len - at_hand);
        let archive = mem::replace(&mut self.archive, self.recycler.freeze(bytes, len));
        if self.done < self.next {
            self.left.push((archive, self.done..self.next));
        }
        (self.next, self.done) = (0, 0);
        // Comes back in `IngestError::from`.
        self.hasher.update(self.archive.slice(at_hand..)).map_err(io::Error::other)?;
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
        if self.next == self.archive.len() {
            self.read_on()?;
        }
        Ok(&self.archive[self.next..])
    }

    fn consume(&mut self, len: usize) {
        assert!(len <= self.archive.len() - self.next, "no more is consumed than is at hand");
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
        let bytes = contents(2 * READ_BYTES);
        let mut source = HashedSource::new(Pieces { bytes: &bytes, piece: 100, fails: false });
        let mut given = 0;
        while given < EAGER_BYTES {
            assert_eq!(source.fill_buf().expect("it does not fail").len(), 100);
            source.consume(100);
            given += 100;
        }
        assert_eq!(
            source.fill_buf().expect("it does not fail").len(),
            READ_BYTES.next_multiple_of(100)
        );
    }

    #[test]
    fn what_is_wanted_in_one_piece_begins_an_archive_if_it_must() {
        let bytes = contents(4 * READ_BYTES);
        let mut source = HashedSource::new(Pieces { bytes: &bytes, piece: 1_000, fails: false });
        let mut at = 0;
        let mut archives = std::collections::BTreeSet::new();
        // Of such lengths that they fit in one archive and cross the end of another.
        for len in [0, 1, 999, 3, EAGER_BYTES, READ_BYTES / 3, READ_BYTES, 5, READ_BYTES / 2, 0] {
            let (archive, range) = source.in_one_piece(len).expect("there are as many");
            assert!(archive[range] == bytes[at..at + len], "{len} at {at}");
            assert!(archive.len() <= 2 * READ_BYTES + SPARE_BYTES, "{}", archive.len());
            archives.insert(archive.as_ptr());
            source.consume(len);
            at += len;
        }
        assert!(archives.len() > 3, "no archive ended in what was wanted");
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
        assert!(
            source.in_one_piece(50_000).is_some_and(|(archive, range)| archive[range] == bytes)
        );
        let mut read = Vec::new();
        let error = source.read_to_end(&mut read).expect_err("it fails at the end");
        assert_eq!((error.kind(), read), (ErrorKind::ConnectionReset, bytes));
    }

    #[test]
    fn all_that_is_not_passed_over_is_given_on_once() {
        let bytes = contents(3 * READ_BYTES);
        let mut source = HashedSource::new(Pieces { bytes: &bytes, piece: 700, fails: false });
        let (mut given, mut expected, mut at) = (Vec::new(), Vec::new(), 0);
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
            if is_passed_over {
                source.pass_over();
            } else {
                expected.extend_from_slice(&bytes[at..at + step]);
                let take = |archive: &Bytes, range: Range<usize>| {
                    assert!(!range.is_empty());
                    given.extend_from_slice(&archive[range]);
                    Ok::<_, io::Error>(())
                };
                source.give(take).expect("taken");
            }
            at += step;
            assert!(!source.keeps_archives() && given == expected, "up to {at}");
        }
    }

    #[test]
    fn memory_is_used_again() {
        let bytes = contents(40 * READ_BYTES);
        let mut source =
            HashedSource::new(Pieces { bytes: &bytes, piece: usize::MAX, fails: false });
        let (kept, range) = source.in_one_piece(1_000).expect("there are as many");
        let kept = kept.slice(range);
        let (mut places, mut archives) = (std::collections::BTreeSet::new(), 0);
        loop {
            let found = source.fill_buf().expect("it does not fail");
            if found.is_empty() {
                break;
            }
            archives += 1;
            places.insert(found.as_ptr());
            let len = found.len();
            source.consume(len);
            source.pass_over();
        }
        assert_eq!(kept, bytes[..1_000], "what is kept stays what it is");
        assert!(archives >= 30 && places.len() < 10, "{archives} {}", places.len());
    }
}

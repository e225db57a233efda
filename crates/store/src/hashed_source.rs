//! A NAR on its way in: read once into buffers, which are hashed while they are taken apart.

use std::io::{self, BufRead, ErrorKind, Read};

use bytes::{Buf as _, Bytes};
use granary_castore::Result;
use granary_nix_formats::NarHash;

use crate::{nar_hasher::NarHasher, recycler::Recycler};

/// What a buffer has at least, unless it is one of the first or the last.
const READ_BYTES: usize = 256 << 10;

/// How much is given as it comes: what is no NAR is told from that, however slowly the rest comes.
const EAGER_BYTES: usize = 16 << 10;

/// Room in a buffer beyond that, so that the last read is not of a few bytes: those go through the
/// buffers of whatever they are read from.
const SPARE_BYTES: usize = 64 << 10;

/// What is shorter is copied: whoever keeps it should not keep a whole buffer.
const COPY_BELOW_BYTES: usize = 32 << 10;

/// How many buffers that nobody uses are kept for the next reads: about as many as come back
/// together, when a frame is compressed that was made of them.
const KEPT_BUFFERS: usize = 8;

/// See the module.
pub(crate) struct HashedSource<R> {
    source: R,
    hasher: NarHasher,
    /// What is at hand.
    buffer: Bytes,
    /// How many bytes were read so far, as far as that matters.
    given_bytes: usize,
    /// What the source failed with behind what is at hand.
    failure: Option<io::Error>,
    recycler: Recycler,
}

impl<R: Read> HashedSource<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            hasher: NarHasher::default(),
            buffer: Bytes::new(),
            given_bytes: 0,
            failure: None,
            recycler: Recycler::new(KEPT_BUFFERS),
        }
    }

    /// The first `len` bytes at hand. They may keep a buffer of up to ten times that.
    pub(crate) fn at_hand(&self, len: usize) -> Bytes {
        if len < COPY_BELOW_BYTES {
            return Bytes::copy_from_slice(&self.buffer[..len]);
        }
        self.buffer.slice(..len)
    }

    /// The hash of all bytes that were read.
    pub(crate) fn finish(self) -> Result<NarHash> {
        self.hasher.finish()
    }

    /// Reads the next buffer; an empty one at the end.
    fn read_buffer(&mut self) -> io::Result<Bytes> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let mut bytes = self.recycler.take();
        bytes.resize(READ_BYTES + SPARE_BYTES, 0);
        let mut len = 0;
        while len < READ_BYTES {
            match self.source.read(&mut bytes[len..]) {
                Ok(0) => break,
                // A source that claims more than there was room for must not make us panic.
                Ok(read) => len = (len + read).min(bytes.len()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if len == 0 => return Err(error),
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            }
            if self.given_bytes + len < EAGER_BYTES {
                break;
            }
        }
        self.given_bytes = self.given_bytes.saturating_add(len);
        Ok(self.recycler.freeze(bytes, len))
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
        if self.buffer.is_empty() {
            self.buffer = self.read_buffer()?;
            // Comes back in `IngestError::from`.
            self.hasher.update(self.buffer.clone()).map_err(io::Error::other)?;
        }
        Ok(&self.buffer)
    }

    fn consume(&mut self, len: usize) {
        self.buffer.advance(len);
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
        while given + 100 < EAGER_BYTES {
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
    fn memory_is_used_again_and_bytes_at_hand_keep_it() {
        let bytes = contents(40 * READ_BYTES);
        let mut source =
            HashedSource::new(Pieces { bytes: &bytes, piece: usize::MAX, fails: false });
        source.fill_buf().expect("it does not fail");
        let kept = source.at_hand(COPY_BELOW_BYTES);
        assert_eq!(kept.as_ptr(), source.fill_buf().expect("at hand").as_ptr(), "it is not copied");
        let copied = source.at_hand(10);
        assert_ne!(copied.as_ptr(), kept.as_ptr());
        let (mut places, mut buffers) = (std::collections::BTreeSet::new(), 0);
        loop {
            let found = source.fill_buf().expect("it does not fail");
            if found.is_empty() {
                break;
            }
            buffers += 1;
            places.insert(found.as_ptr());
            let len = found.len();
            source.consume(len);
        }
        assert_eq!((&kept[..], &copied[..]), (&bytes[..COPY_BELOW_BYTES], &bytes[..10]));
        assert!(buffers >= 30 && places.len() < 10, "{buffers} {}", places.len());
    }
}

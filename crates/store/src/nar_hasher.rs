//! The hash of a NAR, on a thread of its own.

use std::{
    mem,
    sync::mpsc::{Receiver, SyncSender, channel, sync_channel},
    thread::{self, JoinHandle},
};

use granary_castore::{Error, Result};
use granary_nix_formats::NarHash;
use sha2::{Digest, Sha256};

/// Bytes that are handed over at a time. A NAR that has no more is hashed where it is read.
const BUFFER_BYTES: usize = 256 << 10;

/// Buffers that may wait to be hashed.
const QUEUED_BUFFERS: usize = 4;

/// Hashes what it is given, beside whoever gives it: SHA-256 takes as long as everything else
/// that is done with the bytes of a NAR on one thread.
#[derive(Default)]
pub(crate) struct NarHasher {
    /// What was not handed over yet.
    buffer: Vec<u8>,
    thread: Option<HashThread>,
}

struct HashThread {
    sender: SyncSender<Vec<u8>>,
    /// Buffers that were hashed, to be filled again: the memory of buffers that one thread takes
    /// and another gives back is slow to come back to the first.
    hashed: Receiver<Vec<u8>>,
    handle: JoinHandle<Sha256>,
}

impl NarHasher {
    /// Takes the next bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) -> Result<()> {
        loop {
            let taken = bytes.len().min(BUFFER_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if bytes.is_empty() {
                return Ok(());
            }
            self.hand_over()?;
        }
    }

    /// The hash of all bytes.
    pub(crate) fn finish(self) -> Result<NarHash> {
        let mut hasher = match self.thread {
            None => Sha256::new(),
            Some(HashThread { sender, handle, .. }) => {
                drop(sender);
                handle.join().map_err(|_| ended())?
            }
        };
        hasher.update(&self.buffer);
        Ok(NarHash::from_bytes(hasher.finalize().into()))
    }

    fn hand_over(&mut self) -> Result<()> {
        let thread = match &self.thread {
            Some(thread) => thread,
            None => self.thread.insert(HashThread::start()?),
        };
        let next = thread.hashed.try_recv();
        let next = next.unwrap_or_else(|_| Vec::with_capacity(BUFFER_BYTES));
        let buffer = mem::replace(&mut self.buffer, next);
        thread.sender.send(buffer).map_err(|_| ended())
    }
}

impl HashThread {
    fn start() -> Result<Self> {
        let (sender, buffers) = sync_channel::<Vec<u8>>(QUEUED_BUFFERS);
        let (give_back, hashed) = channel();
        let hash = move || {
            let mut hasher = Sha256::new();
            for mut buffer in buffers {
                hasher.update(&buffer);
                buffer.clear();
                // At the end nobody wants it.
                drop(give_back.send(buffer));
            }
            hasher
        };
        let handle = thread::Builder::new()
            .name("nar-hash".to_owned())
            .spawn(hash)
            .map_err(|cause| Error::unavailable("cannot start a thread").because(cause))?;
        Ok(Self { sender, hashed, handle })
    }
}

fn ended() -> Error {
    Error::unavailable("the hashing thread panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_whatever_the_pieces() {
        let bytes: Vec<u8> = (0..3 * BUFFER_BYTES + 5).map(|at| at.to_le_bytes()[1]).collect();
        for len in [0, 1, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, bytes.len()] {
            for piece in [1_000, BUFFER_BYTES - 1, BUFFER_BYTES, 2 * BUFFER_BYTES + 1] {
                let mut hasher = NarHasher::default();
                for bytes in bytes[..len].chunks(piece) {
                    hasher.update(bytes).expect("the thread runs");
                }
                let expected = NarHash::from_bytes(Sha256::digest(&bytes[..len]).into());
                assert_eq!(hasher.finish().expect("the thread ended"), expected, "{len} {piece}");
            }
        }
    }
}

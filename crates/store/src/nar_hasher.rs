//! The hash of a NAR, on a thread of its own.

use std::{
    sync::mpsc::{SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use granary_castore::{Error, Result};
use granary_nix_formats::NarHash;
use sha2::{Digest, Sha256};

/// What is shorter is hashed where it is read, until there is a thread.
const SHORT_BYTES: usize = 128 << 10;

/// Buffers that may wait to be hashed.
const QUEUED_BUFFERS: usize = 2;

/// Hashes what it is given, beside whoever gives it: SHA-256 takes as long as everything else
/// that is done with the bytes of a NAR on one thread.
pub(crate) struct NarHasher(Hashing);

enum Hashing {
    Here(Sha256),
    There { sender: SyncSender<Bytes>, handle: JoinHandle<Sha256> },
}

impl Default for NarHasher {
    fn default() -> Self {
        Self(Hashing::Here(Sha256::new()))
    }
}

impl NarHasher {
    /// Takes the next bytes. They may be kept for a while.
    pub(crate) fn update(&mut self, bytes: Bytes) -> Result<()> {
        match &mut self.0 {
            Hashing::Here(hasher) if bytes.len() < SHORT_BYTES => hasher.update(&bytes),
            Hashing::Here(hasher) => {
                self.0 = Hashing::start(std::mem::take(hasher))?;
                return self.update(bytes);
            }
            Hashing::There { sender, .. } => sender.send(bytes).map_err(|_| ended())?,
        }
        Ok(())
    }

    /// The hash of all bytes.
    pub(crate) fn finish(self) -> Result<NarHash> {
        let hasher = match self.0 {
            Hashing::Here(hasher) => hasher,
            Hashing::There { sender, handle } => {
                drop(sender);
                handle.join().map_err(|_| ended())?
            }
        };
        Ok(NarHash::from_bytes(hasher.finalize().into()))
    }
}

impl Hashing {
    /// Goes on on a thread.
    fn start(mut hasher: Sha256) -> Result<Self> {
        let (sender, buffers) = sync_channel::<Bytes>(QUEUED_BUFFERS);
        let hash = move || {
            for buffer in buffers {
                hasher.update(&buffer);
            }
            hasher
        };
        let handle = thread::Builder::new()
            .name("nar-hash".to_owned())
            .spawn(hash)
            .map_err(|cause| Error::unavailable("cannot start a thread").because(cause))?;
        Ok(Self::There { sender, handle })
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
        let bytes: Vec<u8> = (0..3 * SHORT_BYTES + 5).map(|at| at.to_le_bytes()[1]).collect();
        for len in [0, 1, SHORT_BYTES - 1, SHORT_BYTES, SHORT_BYTES + 1, bytes.len()] {
            for piece in [1_000, SHORT_BYTES - 1, SHORT_BYTES, 2 * SHORT_BYTES + 1] {
                let mut hasher = NarHasher::default();
                for bytes in bytes[..len].chunks(piece) {
                    hasher.update(Bytes::copy_from_slice(bytes)).expect("the thread runs");
                }
                let expected = NarHash::from_bytes(Sha256::digest(&bytes[..len]).into());
                assert_eq!(hasher.finish().expect("the thread ended"), expected, "{len} {piece}");
            }
        }
    }
}

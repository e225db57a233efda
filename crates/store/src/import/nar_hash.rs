//! The hash of the NAR of a walk.

use granary_nix_formats::NarHash;
use sha2::{Digest, Sha256};

use super::step::Packet;
use crate::NarDigest;

/// Hashes the NAR in the packets of a walk.
#[derive(Default)]
pub(super) struct NarHasher {
    hasher: Sha256,
    nar_size: u64,
}

impl NarHasher {
    pub(super) fn packet(&mut self, packet: &Packet) {
        self.hasher.update(&packet.nar);
        self.nar_size += packet.nar.len() as u64;
    }

    pub(super) fn finish(self) -> NarDigest {
        let nar_hash = NarHash::from_bytes(self.hasher.finalize().into());
        NarDigest { nar_size: self.nar_size, nar_hash }
    }
}

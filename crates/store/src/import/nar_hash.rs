//! The hash of the NAR of a walk.

use std::sync::{Arc, mpsc::Receiver};

use granary_nix_formats::NarHash;
use sha2::{Digest, Sha256};

use super::step::Packet;
use crate::NarDigest;

/// Hashes the NAR in the packets of a walk, up to the end of the queue. Of a walk that did not come to
/// its end it is the hash of a part; `TreeBuilder::finish` finds out, which gets the steps of the same
/// packets.
pub(super) fn hash(packets: &Receiver<Arc<Packet>>) -> NarDigest {
    let mut hasher = Sha256::new();
    let mut nar_size = 0;
    for packet in packets {
        hasher.update(&packet.nar);
        nar_size += packet.nar.len() as u64;
    }
    NarDigest { nar_size, nar_hash: NarHash::from_bytes(hasher.finalize().into()) }
}

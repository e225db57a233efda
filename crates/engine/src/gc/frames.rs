//! What objects take on disk.

use crate::{engine::Inner, index::Location};

/// What the record of an object takes in its segment.
pub(super) const OBJECT_RECORD_BYTES: u64 = 39;

/// Tells what part of its frame an object takes. Remembers the last frame: objects that belong
/// together lie together.
#[derive(Debug, Default)]
pub(super) struct FrameShares {
    last: Option<((u32, u32), u64)>,
}

impl FrameShares {
    /// Bytes on disk of an object; of one in a frame that cannot be read, those of the frame.
    pub(super) fn stored_bytes(&mut self, engine: &Inner, location: &Location) -> u64 {
        let frame = (location.pack, location.frame_offset);
        let raw_len = match self.last {
            Some((last, raw_len)) if last == frame => raw_len,
            _ => {
                let raw_len = engine.packs.frame_raw_len(location).unwrap_or(0);
                self.last = Some((frame, raw_len));
                raw_len
            }
        };
        share(location.frame_len.into(), location.len.into(), raw_len) + OBJECT_RECORD_BYTES
    }
}

/// The part of `stored` bytes that `len` of `raw_len` bytes take.
pub(super) fn share(stored: u64, len: u64, raw_len: u64) -> u64 {
    // Neither has more than 32 bits.
    stored.saturating_mul(len).checked_div(raw_len).unwrap_or(stored)
}

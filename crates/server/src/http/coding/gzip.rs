//! A gzip member that stores: deflate blocks without compression (RFC 1951 and 1952), so
//! that its length follows from the length of its contents.

use flate2::Crc;

/// Magic, deflate, no flags, no time, no hint, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
const TRAILER_BYTES: u64 = 8;

/// Most bytes that a deflate block can store.
const BLOCK_BYTES: u64 = 65_535;
const BLOCK_HEADER_BYTES: u64 = 5;

/// Length of the member that stores `len` bytes, if it fits.
pub(super) fn encoded_len(len: u64) -> Option<u64> {
    // Even an empty member has a last block.
    let blocks = len.div_ceil(BLOCK_BYTES).max(1);
    (blocks * BLOCK_HEADER_BYTES + HEADER.len() as u64 + TRAILER_BYTES).checked_add(len)
}

/// Writes the member.
pub(super) struct StoredGzip {
    len: u64,
    written: u64,
    crc: Crc,
}

impl StoredGzip {
    /// A member that will store `len` bytes; `None` if its length passes a u64.
    pub(super) fn new(len: u64) -> Option<Self> {
        encoded_len(len)?;
        Some(Self { len, written: 0, crc: Crc::new() })
    }

    /// Appends `piece`. The pieces must not pass the declared length together.
    pub(super) fn push(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        if piece.is_empty() {
            return;
        }
        if self.written == 0 {
            out.extend_from_slice(&HEADER);
        }
        self.crc.update(piece);
        while !piece.is_empty() {
            let in_block = self.written % BLOCK_BYTES;
            if in_block == 0 {
                self.push_block_header(out);
            }
            let left = usize::try_from(BLOCK_BYTES - in_block).unwrap_or(usize::MAX);
            let (now, later) = piece.split_at(piece.len().min(left));
            out.extend_from_slice(now);
            self.written += now.len() as u64;
            piece = later;
        }
    }

    /// Begins a block. All blocks but the last are full, so where one begins is known.
    fn push_block_header(&self, out: &mut Vec<u8>) {
        let left = self.len - self.written;
        let is_last = left <= BLOCK_BYTES;
        let [low, high, ..] = left.min(BLOCK_BYTES).to_le_bytes();
        out.extend_from_slice(&[u8::from(is_last), low, high, !low, !high]);
    }

    /// Appends what stands behind the last block.
    pub(super) fn finish(self, out: &mut Vec<u8>) {
        if self.written == 0 {
            out.extend_from_slice(&HEADER);
            self.push_block_header(out);
        }
        out.extend_from_slice(&self.crc.sum().to_le_bytes());
        // The length modulo 2^32 is what the format asks for.
        out.extend_from_slice(&self.len.to_le_bytes()[..4]);
    }
}

//! An xz stream that stores: LZMA2 chunks without compression, so that its length follows
//! from the length of its contents.
//!
//! After *The .xz File Format*, version 1.2.1: a stream header, one block, the index, the
//! stream footer; the check is CRC32.

use flate2::Crc;

const STREAM_MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
const FOOTER_MAGIC: [u8; 2] = *b"YZ";

/// Stream flags: the check of a block is its CRC32.
const STREAM_FLAGS: [u8; 2] = [0, 1];
const CHECK_BYTES: u64 = 4;

/// Block header: its size in words less one, no sizes and one filter, LZMA2 with a
/// dictionary of 64 KiB, padding. Its CRC32 follows.
const BLOCK_HEADER: [u8; 8] = [2, 0, 0x21, 1, 8, 0, 0, 0];
const BLOCK_HEADER_BYTES: u64 = BLOCK_HEADER.len() as u64 + 4;

/// Most bytes that an LZMA2 chunk can store.
const CHUNK_BYTES: u64 = 64 * 1024;
const CHUNK_HEADER_BYTES: u64 = 3;

/// Controls of an LZMA2 chunk that is stored: with the dictionary reset, as the first has
/// to be, and without.
const STORED_FIRST: u8 = 1;
const STORED: u8 = 2;
const LZMA2_END: u8 = 0;

const STREAM_HEADER_BYTES: u64 = 12;
const STREAM_FOOTER_BYTES: u64 = 12;

/// Length of the stream that stores `len` bytes, if it fits.
pub(super) fn encoded_len(len: u64) -> Option<u64> {
    let unpadded = unpadded_bytes(len)?;
    unpadded
        .checked_next_multiple_of(4)?
        .checked_add(STREAM_HEADER_BYTES + STREAM_FOOTER_BYTES)?
        .checked_add(index(unpadded, len).len() as u64)
}

/// Length of the block without its padding.
fn unpadded_bytes(len: u64) -> Option<u64> {
    let chunks = len.div_ceil(CHUNK_BYTES);
    (chunks * CHUNK_HEADER_BYTES + 1 + BLOCK_HEADER_BYTES + CHECK_BYTES).checked_add(len)
}

/// The index of the one block, its CRC32 included.
fn index(unpadded_bytes: u64, len: u64) -> Vec<u8> {
    let mut index = vec![0, 1];
    push_varint(&mut index, unpadded_bytes);
    push_varint(&mut index, len);
    index.resize(index.len().next_multiple_of(4), 0);
    let crc = crc32(&index);
    index.extend_from_slice(&crc);
    index
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

/// Writes the stream.
pub(super) struct StoredXz {
    len: u64,
    unpadded_bytes: u64,
    written: u64,
    crc: Crc,
}

impl StoredXz {
    /// A stream that will store `len` bytes; `None` if its length passes a u64.
    pub(super) fn new(len: u64) -> Option<Self> {
        encoded_len(len)?;
        let unpadded_bytes = unpadded_bytes(len)?;
        Some(Self { len, unpadded_bytes, written: 0, crc: Crc::new() })
    }

    /// What stands before all chunks.
    fn push_start(out: &mut Vec<u8>) {
        out.extend_from_slice(&STREAM_MAGIC);
        out.extend_from_slice(&STREAM_FLAGS);
        out.extend_from_slice(&crc32(&STREAM_FLAGS));
        out.extend_from_slice(&BLOCK_HEADER);
        out.extend_from_slice(&crc32(&BLOCK_HEADER));
    }

    /// Appends `piece`. The pieces must not pass the declared length together.
    pub(super) fn push(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        if piece.is_empty() {
            return;
        }
        if self.written == 0 {
            Self::push_start(out);
        }
        self.crc.update(piece);
        while !piece.is_empty() {
            let in_chunk = self.written % CHUNK_BYTES;
            if in_chunk == 0 {
                let control = if self.written == 0 { STORED_FIRST } else { STORED };
                let chunk = CHUNK_BYTES.min(self.len - self.written);
                // A chunk's length stands in it less one, high byte first.
                let [.., high, low] = (chunk - 1).to_be_bytes();
                out.extend_from_slice(&[control, high, low]);
            }
            let left = usize::try_from(CHUNK_BYTES - in_chunk).unwrap_or(usize::MAX);
            let (now, later) = piece.split_at(piece.len().min(left));
            out.extend_from_slice(now);
            self.written += now.len() as u64;
            piece = later;
        }
    }

    /// Appends what stands behind the last chunk.
    pub(super) fn finish(self, out: &mut Vec<u8>) {
        if self.written == 0 {
            Self::push_start(out);
        }
        out.push(LZMA2_END);
        let padding = self.unpadded_bytes.wrapping_neg() % 4;
        out.extend((0..padding).map(|_| 0));
        out.extend_from_slice(&self.crc.sum().to_le_bytes());
        let index = index(self.unpadded_bytes, self.len);
        out.extend_from_slice(&index);
        let mut footer = Vec::with_capacity(6);
        // The length of the index in words, less one.
        let words = u32::try_from(index.len() / 4).expect("an index of one block is short");
        footer.extend_from_slice(&(words - 1).to_le_bytes());
        footer.extend_from_slice(&STREAM_FLAGS);
        out.extend_from_slice(&crc32(&footer));
        out.extend_from_slice(&footer);
        out.extend_from_slice(&FOOTER_MAGIC);
    }
}

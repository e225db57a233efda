//! Frames of zstd that do not compress: for bytes that would not become shorter, and go to
//! somebody who expects zstd. The layout is that of RFC 8878.

use super::cursor::len_u32;

const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// A content size of four bytes, a window as long as the contents, no checksum.
const DESCRIPTOR: u8 = 0b1010_0000;

const FRAME_HEADER_BYTES: usize = 9;

const BLOCK_HEADER_BYTES: usize = 3;

/// No block is longer.
pub(super) const MAX_BLOCK_BYTES: usize = 128 << 10;

/// Length of the frame of `raw_len` bytes.
pub(super) fn frame_len(raw_len: usize) -> usize {
    FRAME_HEADER_BYTES + block_count(raw_len) * BLOCK_HEADER_BYTES + raw_len
}

fn block_count(raw_len: usize) -> usize {
    raw_len.div_ceil(MAX_BLOCK_BYTES).max(1)
}

/// Makes `frame`, which has the right length, the frame of `raw_len` bytes, but for these: they
/// belong into the places that this gives, in order.
pub(super) fn lay_out(frame: &mut [u8], raw_len: usize) -> Vec<&mut [u8]> {
    let mut places = Vec::with_capacity(block_count(raw_len));
    let (header, mut rest) = frame.split_at_mut(FRAME_HEADER_BYTES);
    header[..4].copy_from_slice(&MAGIC);
    header[4] = DESCRIPTOR;
    header[5..].copy_from_slice(&len_u32(raw_len).to_le_bytes());
    let mut left = raw_len;
    loop {
        let len = left.min(MAX_BLOCK_BYTES);
        left -= len;
        let (header, behind) = rest.split_at_mut(BLOCK_HEADER_BYTES);
        // The type, 0 for a raw block, lies between the bit of the last one and the length.
        let fields = len_u32(len) << 3 | u32::from(left == 0);
        header.copy_from_slice(&fields.to_le_bytes()[..BLOCK_HEADER_BYTES]);
        let (place, behind) = behind.split_at_mut(len);
        places.push(place);
        if left == 0 {
            return places;
        }
        rest = behind;
    }
}

/// One frame with its content size, whose blocks are `raw` as it is.
pub(super) fn frame(raw: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; frame_len(raw.len())];
    for (place, block) in
        lay_out(&mut frame, raw.len()).into_iter().zip(raw.chunks(MAX_BLOCK_BYTES))
    {
        place.copy_from_slice(block);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_reads_them() {
        for len in [0, 1, 255, 65_792, MAX_BLOCK_BYTES, MAX_BLOCK_BYTES + 1, 1_000_000] {
            let raw: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[at % 3]).collect();
            let frame = frame(&raw);
            assert!(zstd::bulk::decompress(&frame, len).expect("a frame") == raw, "{len}");
            let declared = zstd::zstd_safe::get_frame_content_size(&frame).ok().flatten();
            assert_eq!(declared, Some(len as u64));
            assert_eq!(zstd::zstd_safe::find_frame_compressed_size(&frame), Ok(frame.len()));
        }
    }
}

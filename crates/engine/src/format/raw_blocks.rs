//! Frames of zstd that do not compress: for bytes that would not become shorter, and go to
//! somebody who expects zstd. The layout is that of RFC 8878.

use super::cursor::len_u32;

const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// A content size of four bytes, a window as long as the contents, no checksum.
const DESCRIPTOR: u8 = 0b1010_0000;

const FRAME_HEADER_BYTES: usize = 9;

const BLOCK_HEADER_BYTES: usize = 3;

/// No block is longer.
const MAX_BLOCK_BYTES: usize = 128 << 10;

/// One frame with its content size, whose blocks are `raw` as it is.
pub(crate) fn frame(raw: &[u8]) -> Vec<u8> {
    let blocks = raw.len().div_ceil(MAX_BLOCK_BYTES).max(1);
    let mut frame =
        Vec::with_capacity(FRAME_HEADER_BYTES + blocks * BLOCK_HEADER_BYTES + raw.len());
    frame.extend_from_slice(&MAGIC);
    frame.push(DESCRIPTOR);
    frame.extend_from_slice(&len_u32(raw.len()).to_le_bytes());
    let mut rest = raw;
    loop {
        let (block, behind) = rest.split_at(rest.len().min(MAX_BLOCK_BYTES));
        let is_last = behind.is_empty();
        // The type, 0 for a raw block, lies between that bit and the length.
        let header = len_u32(block.len()) << 3 | u32::from(is_last);
        frame.extend_from_slice(&header.to_le_bytes()[..BLOCK_HEADER_BYTES]);
        frame.extend_from_slice(block);
        if is_last {
            return frame;
        }
        rest = behind;
    }
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

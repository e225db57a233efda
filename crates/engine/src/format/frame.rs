//! Frames: stored bytes that are read, checked and decompressed as one.

use bytes::Bytes;

use super::{
    checksum,
    cursor::{Cursor, Malformed, len_u32},
};

pub(crate) const FRAME_HEADER_BYTES: usize = 24;

/// Most bytes in a frame before compression: the largest directory that is accepted.
pub(crate) const MAX_FRAME_RAW_BYTES: usize = 64 << 20;

/// How the bytes of a frame are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// As they are: compression would not have made them smaller.
    Raw,
    /// One zstd frame, with its content size.
    Zstd,
}

/// What stands before the stored bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    pub(crate) codec: Codec,
}

/// A frame as it goes into a segment: header and stored bytes.
#[derive(Debug, Clone)]
pub(crate) struct StoredFrame {
    pub(crate) bytes: Vec<u8>,
}

impl StoredFrame {
    /// Compresses `raw`, or takes it as it is if that is not worth it.
    pub(crate) fn compress(raw: &[u8], compressor: &mut zstd::bulk::Compressor<'_>) -> Self {
        let mut packed = Vec::with_capacity(zstd::zstd_safe::compress_bound(raw.len()));
        // The buffer has zstd's own bound, so an error means that memory is short; storing
        // the bytes as they are is right then too.
        let compressed = compressor.compress_to_buffer(raw, &mut packed).is_ok();
        // Saving less than a sixteenth is not worth decompressing for.
        let (codec, stored) = if compressed && packed.len() + raw.len() / 16 < raw.len() {
            (Codec::Zstd, packed.as_slice())
        } else {
            (Codec::Raw, raw)
        };
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + stored.len());
        bytes.resize(FRAME_HEADER_BYTES, 0);
        bytes.extend_from_slice(stored);
        let stored_len = len_u32(bytes.len() - FRAME_HEADER_BYTES);
        bytes[..4].copy_from_slice(&stored_len.to_le_bytes());
        bytes[4..8].copy_from_slice(&len_u32(raw.len()).to_le_bytes());
        bytes[8] = codec.id();
        let sum = checksum(&[&bytes[..16], &bytes[FRAME_HEADER_BYTES..]]);
        bytes[16..FRAME_HEADER_BYTES].copy_from_slice(&sum);
        Self { bytes }
    }
}

impl Codec {
    fn id(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }
}

impl FrameHeader {
    /// Reads the header of the frame that `bytes` begin with, whose stored bytes may be
    /// cut off. Checks what can be checked without them.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let (stored_len, raw_len) = (cursor.u32()?, cursor.u32()?);
        let codec = match cursor.array::<8>()? {
            [0, 0, 0, 0, 0, 0, 0, 0] => Codec::Raw,
            [1, 0, 0, 0, 0, 0, 0, 0] => Codec::Zstd,
            _ => return Err(Malformed("the frame has an unknown codec")),
        };
        if raw_len as usize > MAX_FRAME_RAW_BYTES || stored_len > raw_len {
            return Err(Malformed("the frame is larger than frames may be"));
        }
        Ok(Self { stored_len, raw_len, codec })
    }

    /// Header and stored bytes together.
    pub(crate) fn frame_len(&self) -> usize {
        FRAME_HEADER_BYTES + self.stored_len as usize
    }
}

/// Checks a whole stored frame, `bytes` being header and stored bytes and nothing else.
pub(crate) fn check(bytes: &[u8]) -> Result<FrameHeader, Malformed> {
    let header = FrameHeader::decode(bytes)?;
    if header.frame_len() != bytes.len() {
        return Err(Malformed("the frame is cut off"));
    }
    if checksum(&[&bytes[..16], &bytes[FRAME_HEADER_BYTES..]]) != bytes[16..FRAME_HEADER_BYTES] {
        return Err(Malformed("the checksum of the frame is wrong"));
    }
    Ok(header)
}

/// Checks a whole stored frame and gives its raw bytes.
pub(crate) fn unpack(bytes: &Bytes) -> Result<Bytes, Malformed> {
    let header = check(bytes)?;
    let stored = bytes.slice(FRAME_HEADER_BYTES..);
    match header.codec {
        Codec::Raw if header.stored_len == header.raw_len => Ok(stored),
        Codec::Raw => Err(Malformed("the frame has two lengths")),
        Codec::Zstd => {
            let raw = zstd::bulk::decompress(&stored, header.raw_len as usize)
                .map_err(|_| Malformed("the frame does not decompress"))?;
            if raw.len() != header.raw_len as usize {
                return Err(Malformed("the frame decompresses to another length"));
            }
            Ok(raw.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(raw: &[u8]) -> Vec<u8> {
        let mut compressor = zstd::bulk::Compressor::new(3).expect("a valid level");
        StoredFrame::compress(raw, &mut compressor).bytes
    }

    #[test]
    fn raw_frame_is_golden() {
        let bytes = stored(b"abc");
        let mut expected = vec![3, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut hashed = expected.clone();
        hashed.extend(b"abc");
        expected.extend(&blake3::hash(&hashed).as_bytes()[..8]);
        expected.extend(b"abc");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn round_trips() {
        let long = b"granary ".repeat(5000);
        let noise: Vec<u8> =
            (0..9000_u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        for raw in [&b""[..], b"a", &long, &noise] {
            let bytes = stored(raw);
            assert_eq!(unpack(&bytes.into()).as_deref(), Ok(raw));
        }
        assert!(stored(&long).len() < long.len() / 10);
        assert_eq!(stored(&noise).len(), noise.len() + FRAME_HEADER_BYTES);
    }

    #[test]
    fn stored_bytes_are_one_zstd_frame_with_its_size() {
        let long = b"granary ".repeat(5000);
        let bytes = stored(&long);
        let size = zstd::zstd_safe::get_frame_content_size(&bytes[FRAME_HEADER_BYTES..]);
        assert_eq!(size.ok().flatten(), Some(long.len() as u64));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = stored(&b"granary ".repeat(50));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unpack(&damaged.into()).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(unpack(&Bytes::copy_from_slice(&bytes[..len])).is_err(), "length {len}");
        }
    }
}

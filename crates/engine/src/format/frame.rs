//! Frames: stored bytes that are read, checked and decompressed as one.

use std::{cell::RefCell, hash::Hasher as _, io};

use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::{
    cursor::{Cursor, Malformed, len_u32},
    raw_blocks,
    record::Object,
};
use crate::compression::Compressor;

pub(crate) const FRAME_HEADER_BYTES: usize = 24;

/// Where in the header the checksum stands.
const CHECKSUM_START: usize = 16;

/// Stored bytes that go to somebody as they are stored are read so many at a time. Blocks of zstd
/// have no more.
const READ_STEP_BYTES: usize = raw_blocks::MAX_BLOCK_BYTES;

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
    /// What lies in it, see [`contents_tag`].
    pub(crate) contents_tag: ContentsTag,
}

/// Says what lies in a frame: the first bytes of the BLAKE3 of the digests of its objects and
/// literals, in order.
///
/// Whoever knows the digests can tell with it, and the checksum, that a frame holds just
/// those, without decompressing it.
pub(crate) type ContentsTag = [u8; 7];

pub(crate) fn contents_tag(digests: impl Iterator<Item = [u8; 32]>) -> ContentsTag {
    let mut hasher = blake3::Hasher::new();
    for digest in digests {
        hasher.update(&digest);
    }
    let mut tag = ContentsTag::default();
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..7]);
    tag
}

/// The digests that the tag of a frame is made of: for each object that of the literals before
/// it, if there are any, and its own.
fn digests<'a>(raw: &'a [u8], objects: &'a [Object]) -> impl Iterator<Item = [u8; 32]> + 'a {
    let mut offset = 0;
    objects.iter().flat_map(move |object| {
        let literals = &raw[offset..offset + usize::from(object.literals_len)];
        offset += literals.len() + object.len as usize;
        let of_literals = (!literals.is_empty()).then(|| *blake3::hash(literals).as_bytes());
        of_literals.into_iter().chain([object.digest])
    })
}

/// A frame as it goes into a segment: header and stored bytes.
#[derive(Debug, Clone)]
pub(crate) struct StoredFrame {
    pub(crate) bytes: Vec<u8>,
}

impl StoredFrame {
    /// Compresses `raw`, in which `objects` lie, or takes it as it is if that is not worth it.
    pub(crate) fn compress(raw: &[u8], objects: &[Object], compressor: &mut Compressor) -> Self {
        let (codec, stored) = match compressor.compress(raw) {
            Some(packed) => (Codec::Zstd, packed),
            None => (Codec::Raw, raw),
        };
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + stored.len());
        bytes.resize(FRAME_HEADER_BYTES, 0);
        bytes.extend_from_slice(stored);
        let stored_len = len_u32(bytes.len() - FRAME_HEADER_BYTES);
        bytes[..4].copy_from_slice(&stored_len.to_le_bytes());
        bytes[4..8].copy_from_slice(&len_u32(raw.len()).to_le_bytes());
        bytes[8] = codec.id();
        bytes[9..16].copy_from_slice(&contents_tag(digests(raw, objects)));
        let sum = frame_checksum(&bytes[..CHECKSUM_START], &bytes[FRAME_HEADER_BYTES..]);
        bytes[CHECKSUM_START..FRAME_HEADER_BYTES].copy_from_slice(&sum);
        Self { bytes }
    }
}

/// Finds out whether the stored bytes of a frame are what its checksum was made of: XXH3 of the
/// header before the checksum, and the stored bytes. It is several times as fast as BLAKE3, and
/// often the only thing that is done to what is sent as it is stored.
pub(crate) struct FrameCheck {
    hasher: XxHash3_64,
    checksum: [u8; 8],
    /// How many stored bytes are to come.
    left: usize,
}

impl FrameCheck {
    /// Of the frame with that header.
    pub(crate) fn begin(header: &[u8]) -> Result<(FrameHeader, Self), Malformed> {
        let decoded = FrameHeader::decode(header)?;
        let (hashed, checksum) = header.split_at(CHECKSUM_START);
        let checksum = checksum.try_into().map_err(|_| Malformed("the frame is cut off"))?;
        let (mut hasher, left) = (XxHash3_64::new(), decoded.stored_len as usize);
        hasher.write(hashed);
        Ok((decoded, Self { hasher, checksum, left }))
    }

    /// Adds the next of the stored bytes.
    pub(crate) fn add(&mut self, stored: &[u8]) {
        self.hasher.write(stored);
        // More than there are have another checksum, but for chance.
        self.left = self.left.checked_sub(stored.len()).unwrap_or(usize::MAX);
    }

    /// Whether all of them were added, and are right.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.left != 0 {
            return Err(Malformed("the frame is cut off"));
        }
        if self.hasher.finish().to_le_bytes() != self.checksum {
            return Err(Malformed("the checksum of the frame is wrong"));
        }
        Ok(())
    }
}

/// What a [`FrameCheck`] holds a frame against.
fn frame_checksum(header: &[u8], stored: &[u8]) -> [u8; 8] {
    let mut hasher = XxHash3_64::new();
    hasher.write(header);
    hasher.write(stored);
    hasher.finish().to_le_bytes()
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
        let codec = match cursor.u8()? {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            _ => return Err(Malformed("the frame has an unknown codec")),
        };
        let contents_tag = cursor.array()?;
        if raw_len as usize > MAX_FRAME_RAW_BYTES || stored_len > raw_len {
            return Err(Malformed("the frame is larger than frames may be"));
        }
        Ok(Self { stored_len, raw_len, codec, contents_tag })
    }

    /// Whether it is compressed: what is not is handed on as it is stored.
    pub(crate) fn is_compressed(&self) -> bool {
        self.codec == Codec::Zstd
    }

    /// Header and stored bytes together.
    pub(crate) fn frame_len(&self) -> usize {
        FRAME_HEADER_BYTES + self.stored_len as usize
    }

    /// Length of its raw bytes as one frame of zstd.
    pub(crate) fn zstd_len(&self) -> usize {
        match self.codec {
            Codec::Raw => raw_blocks::frame_len(self.raw_len as usize),
            Codec::Zstd => self.stored_len as usize,
        }
    }

    /// Where the stored bytes belong, in order, so that `buffer`, which has that length, becomes
    /// that frame of zstd. What zstd has between bytes that do not compress is written: to put
    /// them apart when they are there would be to copy them.
    pub(crate) fn zstd_places<'a>(&self, buffer: &'a mut [u8]) -> Vec<&'a mut [u8]> {
        match self.codec {
            Codec::Raw => raw_blocks::lay_out(buffer, self.raw_len as usize),
            Codec::Zstd => buffer.chunks_mut(READ_STEP_BYTES).collect(),
        }
    }

    /// The raw bytes of a frame that begins with this header.
    fn unpack(&self, stored: Bytes) -> Result<Bytes, Malformed> {
        match self.codec {
            Codec::Raw if self.stored_len == self.raw_len => Ok(stored),
            Codec::Raw => Err(Malformed("the frame has two lengths")),
            Codec::Zstd => {
                let raw = decompress(&stored, self.raw_len as usize)
                    .map_err(|_| Malformed("the frame does not decompress"))?;
                if raw.len() != self.raw_len as usize {
                    return Err(Malformed("the frame decompresses to another length"));
                }
                Ok(raw.into())
            }
        }
    }
}

thread_local! {
    /// Kept, since making one takes as long as decompressing a small frame.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
        const { RefCell::new(None) };
}

/// What the frame of zstd `stored` gives, at most `raw_len` bytes.
fn decompress(stored: &[u8], raw_len: usize) -> io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            none => none.insert(zstd::bulk::Decompressor::new()?),
        };
        decompressor.decompress(stored, raw_len)
    })
}

/// Checks a whole stored frame, `bytes` being header and stored bytes and nothing else.
pub(crate) fn check(bytes: &[u8]) -> Result<FrameHeader, Malformed> {
    let (header, stored) = bytes.split_at(bytes.len().min(FRAME_HEADER_BYTES));
    let (header, mut check) = FrameCheck::begin(header)?;
    check.add(stored);
    check.end()?;
    Ok(header)
}

/// A whole stored frame that was checked, and not decompressed.
#[derive(Debug, Clone)]
pub(crate) struct PackedFrame {
    header: FrameHeader,
    bytes: Bytes,
}

impl PackedFrame {
    pub(crate) fn check(bytes: Bytes) -> Result<Self, Malformed> {
        Ok(Self { header: check(&bytes)?, bytes })
    }

    /// Header and stored bytes.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Length of its raw bytes.
    pub(crate) fn raw_len(&self) -> u64 {
        self.header.raw_len.into()
    }

    /// What says which objects and literals lie in it.
    pub(crate) fn tag(&self) -> ContentsTag {
        self.header.contents_tag
    }

    /// Length of its stored bytes.
    pub(crate) fn stored_len(&self) -> u64 {
        self.header.stored_len.into()
    }

    /// Whether its tag is that of `objects`, which lie in its raw bytes.
    pub(crate) fn is_tagged(&self, raw: &[u8], objects: &[Object]) -> bool {
        contents_tag(digests(raw, objects)) == self.tag()
    }

    /// Its raw bytes as one zstd frame: the stored one, or one that does not compress.
    pub(crate) fn zstd(&self) -> Bytes {
        let stored = self.bytes.slice(FRAME_HEADER_BYTES..);
        match self.header.codec {
            Codec::Raw => raw_blocks::frame(&stored).into(),
            Codec::Zstd => stored,
        }
    }

    /// Its raw bytes.
    pub(crate) fn unpack(&self) -> Result<Bytes, Malformed> {
        self.header.unpack(self.bytes.slice(FRAME_HEADER_BYTES..))
    }
}

#[cfg(test)]
mod tests {
    use granary_testkit::Random;

    use super::*;
    use crate::{compression::Compression, format::ObjectKind};

    fn stored(raw: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::new(Compression::default()).expect("valid");
        let (kind, len) = (ObjectKind::Chunk, len_u32(raw.len()));
        let object = Object { kind, digest: [7; 32], len, literals_len: 0 };
        StoredFrame::compress(raw, &[object], &mut compressor).bytes
    }

    fn unpack(bytes: &Bytes) -> Result<Bytes, Malformed> {
        PackedFrame::check(bytes.clone())?.unpack()
    }

    /// `frame` as it is read to be sent as zstd, into a buffer that was used before.
    fn read_as_zstd(frame: &[u8]) -> Result<Vec<u8>, Malformed> {
        let (header, mut rest) = frame.split_at(FRAME_HEADER_BYTES);
        let (header, mut check) = FrameCheck::begin(header)?;
        let mut zstd = vec![0xa5; header.zstd_len()];
        for place in header.zstd_places(&mut zstd) {
            assert!(place.len() <= READ_STEP_BYTES);
            let (part, behind) = rest.split_at_checked(place.len()).ok_or(Malformed("short"))?;
            place.copy_from_slice(part);
            check.add(place);
            rest = behind;
        }
        check.end().map(|()| zstd)
    }

    #[test]
    fn what_is_read_as_zstd_is_what_was_stored() {
        let mut random = Random::new(1);
        for len in [1, 100_000, READ_STEP_BYTES, READ_STEP_BYTES + 1, 700_000] {
            for raw in [random.incompressible(len), random.compressible(len)] {
                let frame = stored(&raw);
                let zstd = read_as_zstd(&frame).expect("whole");
                assert!(zstd::bulk::decompress(&zstd, len).expect("a frame") == raw);
                let packed = PackedFrame::check(frame.into()).expect("whole");
                assert!(packed.zstd() == zstd);
            }
        }
    }

    #[test]
    fn damage_is_found_while_it_is_read_as_zstd() {
        let mut random = Random::new(2);
        for raw in [random.incompressible(300_000), random.compressible(300_000)] {
            let good = stored(&raw);
            for _ in 0..200 {
                let mut bad = good.clone();
                // The header as often as what is behind.
                let reach = if random.one_in(2) { FRAME_HEADER_BYTES } else { bad.len() };
                bad[random.below(reach)] ^= 1 << random.below(8);
                assert!(read_as_zstd(&bad).is_err());
            }
        }
    }

    #[test]
    fn another_number_of_stored_bytes_is_refused() {
        let frame = stored(&Random::new(3).compressible(1000));
        let (header, stored) = frame.split_at(FRAME_HEADER_BYTES);
        let check = |parts: &[&[u8]]| {
            let (_, mut check) = FrameCheck::begin(header).expect("whole");
            for part in parts {
                check.add(part);
            }
            check.end()
        };
        assert_eq!(check(&[&stored[..9], &stored[9..]]), Ok(()));
        for parts in [&[][..], &[&stored[1..]], &[stored, b"x"], &[stored, stored]] {
            assert!(check(parts).is_err());
        }
    }

    #[test]
    fn raw_frame_is_golden() {
        let bytes = stored(b"abc");
        let mut expected = vec![3, 0, 0, 0, 3, 0, 0, 0, 0];
        expected.extend(&blake3::hash(&[7; 32]).as_bytes()[..7]);
        let mut hashed = expected.clone();
        hashed.extend(b"abc");
        expected.extend(XxHash3_64::oneshot(&hashed).to_le_bytes());
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
    fn the_tag_covers_objects_and_literals() {
        let mut compressor = Compressor::new(Compression::default()).expect("valid");
        let object = |len, literals_len| {
            let kind = ObjectKind::Chunk;
            Object { kind, digest: [7; 32], len, literals_len }
        };
        let objects = [object(3, 0), object(2, 4)];
        let frame = StoredFrame::compress(b"abclitsde", &objects, &mut compressor);
        let frame = PackedFrame::check(frame.bytes.into()).expect("just made");
        let literals = *blake3::hash(b"lits").as_bytes();
        let holds = |digests: &[[u8; 32]]| frame.tag() == contents_tag(digests.iter().copied());
        assert!(holds(&[[7; 32], literals, [7; 32]]));
        let others = *blake3::hash(b"list").as_bytes();
        assert!(!holds(&[[7; 32], others, [7; 32]]));
        assert!(!holds(&[[7; 32], [7; 32]]));
    }

    #[test]
    fn what_is_stored_raw_can_be_had_as_zstd() {
        let noise: Vec<u8> =
            (0..9000_u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        let frame = PackedFrame::check(stored(&noise).into()).expect("just made");
        assert_eq!(frame.header.codec, Codec::Raw);
        let raw = zstd::bulk::decompress(&frame.zstd(), noise.len()).expect("a frame");
        assert!(raw == noise);
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

//! Segments: what one append writes, and what is valid or lost as a whole.

use std::collections::HashMap;

use super::{
    checksum,
    cursor::{Cursor, Malformed, len_u32},
    frame::{self, FrameHeader, MAX_FRAME_RAW_BYTES, StoredFrame},
    header::StoreId,
    record::{BLOB_ENTRY_BYTES, BlobRecord, FrameObjects, Object, Place, Record, ValueRecord},
};

pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;

/// No segment is longer: what is one claims to be is not read.
pub(crate) const MAX_SEGMENT_BYTES: u64 = 256 << 20;

const MAGIC: &[u8; 8] = b"GRANSEGM";

/// Who wrote a segment, and when in the order of all segments.
pub(crate) type Stamp = Place;

/// The first bytes of a segment. Frames follow it, then records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) stamp: Stamp,
    pub(crate) frames_len: u32,
    pub(crate) records_len: u32,
    records_checksum: [u8; 8],
}

impl SegmentHeader {
    fn encode(&self, store_id: StoreId) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.stamp.epoch.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.stamp.writer.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.stamp.sequence.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.frames_len.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.records_len.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.records_checksum);
        let sum = checksum(&[&store_id.0, &bytes[..56]]);
        bytes[56..].copy_from_slice(&sum);
        bytes
    }

    /// Reads and checks the header that `bytes` begin with.
    ///
    /// IMPORTANT: the checksum covers the id of the store too. Recovery looks for segments
    /// behind damage, and what lies there may be the contents of a blob: without the id,
    /// whoever can upload could make up segments.
    pub(crate) fn decode(bytes: &[u8], store_id: StoreId) -> Result<Self, Malformed> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(Malformed("it is cut off"))?;
        if &bytes[..8] != MAGIC {
            return Err(Malformed("no segment begins here"));
        }
        if checksum(&[&store_id.0, &bytes[..56]]) != bytes[56..] {
            return Err(Malformed("the checksum of the segment header is wrong"));
        }
        let mut cursor = Cursor::new(&bytes[8..]);
        let stamp = Stamp::decode(&mut cursor)?;
        let (frames_len, records_len) = (cursor.u32()?, cursor.u32()?);
        cursor.u32()?;
        Ok(Self { stamp, frames_len, records_len, records_checksum: cursor.array()? })
    }

    /// Where a segment might begin in `bytes`, at or behind `from`: a place with the magic,
    /// to be tried with [`decode`](Self::decode).
    pub(crate) fn find(bytes: &[u8], from: usize) -> Option<usize> {
        let haystack = bytes.get(from..)?;
        haystack.windows(MAGIC.len()).position(|window| window == MAGIC).map(|at| from + at)
    }

    /// Length of the whole segment, this header included.
    pub(crate) fn segment_len(&self) -> u64 {
        SEGMENT_HEADER_BYTES as u64 + u64::from(self.frames_len) + u64::from(self.records_len)
    }

    /// Where the records begin, counted from the first byte of the segment.
    pub(crate) fn records_offset(&self) -> u64 {
        SEGMENT_HEADER_BYTES as u64 + u64::from(self.frames_len)
    }

    /// Checks the bytes of the records, and decodes them.
    pub(crate) fn records(&self, bytes: &[u8]) -> Result<Vec<Record>, Malformed> {
        if bytes.len() != self.records_len as usize {
            return Err(Malformed("the records are cut off"));
        }
        if checksum(&[bytes]) != self.records_checksum {
            return Err(Malformed("the checksum of the records is wrong"));
        }
        let mut cursor = Cursor::new(bytes);
        let mut records = Vec::new();
        while !cursor.is_empty() {
            let record = Record::decode(&mut cursor)?;
            if let Record::Frame(frame) = &record {
                self.check_frame_record(frame)?;
            }
            records.push(record);
        }
        Ok(records)
    }
}

impl SegmentHeader {
    fn check_frame_record(&self, frame: &FrameObjects) -> Result<(), Malformed> {
        if u64::from(frame.offset) + u64::from(frame.frame_len) > u64::from(self.frames_len) {
            return Err(Malformed("a frame lies outside of its segment"));
        }
        let raw_len = |object: &Object| u64::from(object.literals_len) + u64::from(object.len);
        let raw_len: u64 = frame.objects.iter().map(raw_len).sum();
        if raw_len > MAX_FRAME_RAW_BYTES as u64 {
            return Err(Malformed("the objects of a frame are larger than a frame"));
        }
        Ok(())
    }
}

/// Checks each frame of a segment, `bytes` being all of its frames.
pub(crate) fn check_frames(bytes: &[u8]) -> Result<(), Malformed> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let frame_len = FrameHeader::decode(rest)?.frame_len();
        let (frame, behind) =
            rest.split_at_checked(frame_len).ok_or(Malformed("a frame is cut off"))?;
        frame::check(frame)?;
        rest = behind;
    }
    Ok(())
}

/// A segment being put together.
#[derive(Debug, Default)]
pub(crate) struct SegmentBuilder {
    frames: Vec<StoredFrame>,
    frames_len: usize,
    records: Vec<Record>,
    /// Of variable parts of the records.
    record_bytes: usize,
    /// Where in `records` the value of a key stands.
    values: HashMap<(u8, Vec<u8>), usize>,
}

impl SegmentBuilder {
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes in frames and records so far, about.
    pub(crate) fn len(&self) -> usize {
        SEGMENT_HEADER_BYTES + self.frames_len + self.record_bytes
    }

    pub(crate) fn record_count(&self) -> usize {
        self.records.len()
    }

    /// Adds a frame and what lies in it.
    pub(crate) fn push_frame(&mut self, frame: StoredFrame, objects: Vec<Object>) {
        let offset = len_u32(self.frames_len);
        let frame_len = len_u32(frame.bytes.len());
        self.frames_len += frame.bytes.len();
        self.frames.push(frame);
        self.record_bytes += objects.len() * size_of::<Object>();
        self.records.push(Record::Frame(FrameObjects { offset, frame_len, objects }));
    }

    pub(crate) fn push_blob(&mut self, blob: BlobRecord) {
        self.record_bytes += blob.entries.len() * BLOB_ENTRY_BYTES;
        self.records.push(Record::Blob(blob));
    }

    /// Adds a value, in the place of an earlier one of the same key: within a segment all
    /// values have the same place in the order, so there may be only one for a key.
    pub(crate) fn set_value(&mut self, value: ValueRecord) {
        self.record_bytes += value.key.len() + value.value.as_ref().map_or(0, Vec::len);
        let at = *self.values.entry((value.kind, value.key.clone())).or_insert(self.records.len());
        if at == self.records.len() {
            self.records.push(Record::Value(value));
        } else {
            self.records[at] = Record::Value(value);
        }
    }

    /// The segment, and its records.
    pub(crate) fn finish(self, stamp: Stamp, store_id: StoreId) -> (Segment, Vec<Record>) {
        let mut records = Vec::new();
        for record in &self.records {
            record.encode(&mut records);
        }
        let header = SegmentHeader {
            stamp,
            frames_len: len_u32(self.frames_len),
            records_len: len_u32(records.len()),
            records_checksum: checksum(&[&records]),
        };
        let header = header.encode(store_id);
        (Segment { header, frames: self.frames, records }, self.records)
    }
}

/// A segment as it is written.
#[derive(Debug)]
pub(crate) struct Segment {
    header: [u8; SEGMENT_HEADER_BYTES],
    frames: Vec<StoredFrame>,
    records: Vec<u8>,
}

impl Segment {
    /// Its bytes, each frame where it was compressed: put together, they would be copied once more.
    pub(crate) fn pieces(&self) -> Vec<&[u8]> {
        let frames = self.frames.iter().map(|frame| &frame.bytes[..]);
        [&self.header[..]].into_iter().chain(frames).chain([&self.records[..]]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compression::{Compression, Compressor},
        format::ObjectKind,
    };

    const STORE: StoreId = StoreId([6; 16]);
    const STAMP: Stamp = Stamp { epoch: 1, writer: 2, sequence: 3 };

    fn segment() -> Vec<u8> {
        let mut builder = SegmentBuilder::default();
        let mut compressor = Compressor::new(Compression::default()).expect("valid");
        assert!(builder.is_empty());
        for raw in [&b"one"[..], b"three"] {
            let digest = *blake3::hash(raw).as_bytes();
            let (kind, len) = (ObjectKind::Chunk, len_u32(raw.len()));
            let object = Object { kind, digest, len, literals_len: 0 };
            let frame = StoredFrame::compress(raw, &[object], &mut compressor);
            builder.push_frame(frame, vec![object]);
        }
        let value = ValueRecord { place: STAMP, kind: 1, key: b"k".to_vec(), value: None };
        let older = ValueRecord { value: Some(b"older".to_vec()), ..value.clone() };
        builder.set_value(older);
        builder.set_value(value);
        builder.finish(STAMP, STORE).0.pieces().concat()
    }

    fn check(bytes: &[u8]) -> Result<Vec<Record>, Malformed> {
        let header = SegmentHeader::decode(bytes, STORE)?;
        let records_at = usize::try_from(header.records_offset()).expect("small");
        let frames = bytes.get(SEGMENT_HEADER_BYTES..records_at);
        check_frames(frames.ok_or(Malformed("cut off"))?)?;
        header.records(&bytes[records_at..])
    }

    #[test]
    fn header_is_golden() {
        let bytes = segment();
        let mut expected = b"GRANSEGM".to_vec();
        expected.extend([1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([24 + 3 + 24 + 5, 0, 0, 0]);
        expected.extend([52 + 52 + 32, 0, 0, 0]);
        expected.extend([0; 4]);
        assert_eq!(bytes[..40], expected);
        assert_eq!(bytes[48..56], [0; 8]);
        let sum = blake3::hash(&[&STORE.0, &bytes[..56]].concat());
        assert_eq!(bytes[56..64], sum.as_bytes()[..8]);
        assert_eq!(bytes.len(), 64 + 56 + 136);
    }

    #[test]
    fn round_trips() {
        let bytes = segment();
        let header = SegmentHeader::decode(&bytes, STORE).expect("valid");
        assert_eq!(header.stamp, STAMP);
        assert_eq!(header.segment_len(), bytes.len() as u64);
        let records = check(&bytes).expect("valid");
        assert_eq!(records.len(), 3);
        assert!(matches!(&records[1], Record::Frame(frame) if frame.offset == 27));
    }

    #[test]
    fn segments_of_other_stores_are_none() {
        assert!(SegmentHeader::decode(&segment(), StoreId([7; 16])).is_err());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = segment();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(check(&bytes[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn finds_where_segments_begin() {
        let bytes = [b"noise", &segment()[..], b"GRANSEGM"].concat();
        assert_eq!(SegmentHeader::find(&bytes, 0), Some(5));
        assert_eq!(SegmentHeader::find(&bytes, 6), Some(bytes.len() - 8));
        assert_eq!(SegmentHeader::find(&bytes, bytes.len() - 7), None);
        assert_eq!(SegmentHeader::find(&bytes, bytes.len() + 1), None);
    }
}

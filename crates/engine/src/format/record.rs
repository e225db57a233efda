//! Records: what a segment says about its frames, and what it says besides.

use super::cursor::{Cursor, Malformed, len_u32};

/// A record, decoded. Each begins with a type byte and the length of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// The objects in one frame of this segment.
    Frame(FrameObjects),
    /// A blob of several chunks.
    Blob(BlobRecord),
    /// The newest value of a key, or that it has none.
    Value(ValueRecord),
}

const FRAME: u8 = 1;
const BLOB: u8 = 2;
const VALUE: u8 = 3;

/// What an object in a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ObjectKind {
    /// A piece of a blob, or a whole small one.
    Chunk,
    /// A directory in canonical encoding.
    Directory,
    /// A part of a long blob's list of chunks: entries as in a [`BlobRecord`].
    ChunkList,
    /// Bytes of an object that was stored elsewhere already when its frame was written.
    Duplicate,
    /// What makes a chunk of a base: [`Patches`](super::Patches).
    Patch,
    /// What patches are applied to: a chunk without hashes. It has a name of its own, since the
    /// same bytes may have come as a chunk that is itself patched.
    Base,
}

/// One object in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: ObjectKind,
    /// BLAKE3 of its bytes; of the chunk that it makes, if it is a patch.
    pub(crate) digest: [u8; 32],
    /// Its length.
    pub(crate) len: u32,
    /// How many bytes lie in the frame between the object before, or the start, and this one
    /// that belong to none: literals, those that stand between two files in a NAR.
    pub(crate) literals_len: u16,
}

impl Object {
    /// Whether `bytes` are those that its digest names. Those of a patch it does not name.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        self.kind == ObjectKind::Patch || blake3::hash(bytes) == self.digest
    }
}

const OBJECT_BYTES: usize = 39;

/// See [`Record::Frame`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameObjects {
    /// Where the frame's header begins, counted from the first frame of the segment.
    pub(crate) offset: u32,
    /// Header and stored bytes.
    pub(crate) frame_len: u32,
    /// What lies in its raw bytes, in order; they end with the last one.
    pub(crate) objects: Vec<Object>,
}

/// A piece of a blob: a chunk, or (in a long blob) a list of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobEntry {
    pub(crate) digest: [u8; 32],
    /// How many bytes of the blob it covers.
    pub(crate) size_bytes: u64,
}

pub(crate) const BLOB_ENTRY_BYTES: usize = 40;

/// See [`Record::Blob`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobRecord {
    pub(crate) digest: [u8; 32],
    /// Whether the entries are lists of chunks, rather than chunks.
    pub(crate) lists: bool,
    pub(crate) entries: Vec<BlobEntry>,
}

/// The place of a value in the order of all writes: the greatest wins. It stays with the
/// value when the value is copied into another pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    pub(crate) epoch: u32,
    pub(crate) writer: u64,
    pub(crate) sequence: u64,
}

/// See [`Record::Value`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ValueRecord {
    pub(crate) place: Place,
    pub(crate) kind: u8,
    pub(crate) key: Vec<u8>,
    /// `None` is a tombstone.
    pub(crate) value: Option<Vec<u8>>,
}

impl ObjectKind {
    pub(super) fn id(self) -> u8 {
        match self {
            Self::Chunk => 0,
            Self::Directory => 1,
            Self::ChunkList => 2,
            Self::Duplicate => 3,
            Self::Patch => 4,
            Self::Base => 5,
        }
    }

    pub(super) fn from_id(id: u8) -> Result<Self, Malformed> {
        match id {
            0 => Ok(Self::Chunk),
            1 => Ok(Self::Directory),
            2 => Ok(Self::ChunkList),
            3 => Ok(Self::Duplicate),
            4 => Ok(Self::Patch),
            5 => Ok(Self::Base),
            _ => Err(Malformed("an object has an unknown kind")),
        }
    }
}

impl Place {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.writer.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
    }

    pub(crate) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(Self { epoch: cursor.u32()?, writer: cursor.u64()?, sequence: cursor.u64()? })
    }
}

impl BlobEntry {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.digest);
        out.extend_from_slice(&self.size_bytes.to_le_bytes());
    }

    /// Reads entries up to the end of `bytes`.
    pub(crate) fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let mut entries = Vec::with_capacity(bytes.len() / BLOB_ENTRY_BYTES);
        while !cursor.is_empty() {
            entries.push(Self { digest: cursor.array()?, size_bytes: cursor.u64()? });
        }
        Ok(entries)
    }
}

impl Record {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (type_id, length_at) = (self.type_id(), out.len() + 1);
        out.push(type_id);
        out.extend_from_slice(&[0; 4]);
        match self {
            Self::Frame(frame) => frame.encode_body(out),
            Self::Blob(blob) => blob.encode_body(out),
            Self::Value(value) => value.encode_body(out),
        }
        let body_len = len_u32(out.len() - length_at - 4);
        out[length_at..length_at + 4].copy_from_slice(&body_len.to_le_bytes());
    }

    fn type_id(&self) -> u8 {
        match self {
            Self::Frame(_) => FRAME,
            Self::Blob(_) => BLOB,
            Self::Value(_) => VALUE,
        }
    }

    pub(crate) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let type_id = cursor.u8()?;
        let mut body = Cursor::new(cursor.sized()?);
        match type_id {
            FRAME => FrameObjects::decode_body(&mut body).map(Self::Frame),
            BLOB => BlobRecord::decode_body(&mut body).map(Self::Blob),
            VALUE => ValueRecord::decode_body(&mut body).map(Self::Value),
            _ => Err(Malformed("a record has an unknown type")),
        }
    }
}

impl FrameObjects {
    fn encode_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.frame_len.to_le_bytes());
        for object in &self.objects {
            out.push(object.kind.id());
            out.extend_from_slice(&object.digest);
            out.extend_from_slice(&object.len.to_le_bytes());
            out.extend_from_slice(&object.literals_len.to_le_bytes());
        }
    }

    fn decode_body(body: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let (offset, frame_len) = (body.u32()?, body.u32()?);
        let mut objects = Vec::with_capacity(body.remaining() / OBJECT_BYTES);
        while !body.is_empty() {
            let kind = ObjectKind::from_id(body.u8()?)?;
            objects.push(Object {
                kind,
                digest: body.array()?,
                len: body.u32()?,
                literals_len: body.u16()?,
            });
        }
        Ok(Self { offset, frame_len, objects })
    }
}

impl BlobRecord {
    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.digest);
        out.push(u8::from(self.lists));
        for entry in &self.entries {
            entry.encode(out);
        }
    }

    pub(crate) fn decode_body(body: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let digest = body.array()?;
        let lists = match body.u8()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("a blob has an unknown depth")),
        };
        let entries = BlobEntry::decode_all(body.take(body.remaining())?)?;
        Ok(Self { digest, lists, entries })
    }

    /// Length of the blob; `None` if it passes a `u64`.
    pub(crate) fn size_bytes(&self) -> Option<u64> {
        self.entries.iter().try_fold(0_u64, |sum, entry| sum.checked_add(entry.size_bytes))
    }
}

impl ValueRecord {
    fn encode_body(&self, out: &mut Vec<u8>) {
        self.place.encode(out);
        out.push(self.kind);
        out.push(u8::from(self.value.is_some()));
        out.extend_from_slice(&len_u32(self.key.len()).to_le_bytes());
        out.extend_from_slice(&self.key);
        if let Some(value) = &self.value {
            out.extend_from_slice(value);
        }
    }

    fn decode_body(body: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let place = Place::decode(body)?;
        let kind = body.u8()?;
        let has_value = body.u8()?;
        let key = body.sized()?.to_vec();
        let value = match has_value {
            0 if body.is_empty() => None,
            1 => Some(body.take(body.remaining())?.to_vec()),
            _ => return Err(Malformed("a value is neither there nor a tombstone")),
        };
        Ok(Self { place, kind, key, value })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn place() -> impl Strategy<Value = Place> {
        (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(epoch, writer, sequence)| Place {
            epoch,
            writer,
            sequence,
        })
    }

    fn object() -> impl Strategy<Value = Object> {
        let kind = prop_oneof![
            Just(ObjectKind::Chunk),
            Just(ObjectKind::Directory),
            Just(ObjectKind::ChunkList),
            Just(ObjectKind::Duplicate),
            Just(ObjectKind::Patch),
            Just(ObjectKind::Base)
        ];
        (kind, any::<[u8; 32]>(), any::<u32>(), any::<u16>()).prop_map(
            |(kind, digest, len, literals_len)| Object { kind, digest, len, literals_len },
        )
    }

    fn record() -> impl Strategy<Value = Record> {
        let entry = (any::<[u8; 32]>(), any::<u64>())
            .prop_map(|(digest, size_bytes)| BlobEntry { digest, size_bytes });
        prop_oneof![
            (any::<u32>(), any::<u32>(), vec(object(), 0..5)).prop_map(
                |(offset, frame_len, objects)| {
                    Record::Frame(FrameObjects { offset, frame_len, objects })
                }
            ),
            (any::<[u8; 32]>(), any::<bool>(), vec(entry, 0..5)).prop_map(
                |(digest, lists, entries)| Record::Blob(BlobRecord { digest, lists, entries })
            ),
            (
                place(),
                any::<u8>(),
                vec(any::<u8>(), 0..9),
                proptest::option::of(vec(any::<u8>(), 0..9))
            )
                .prop_map(|(place, kind, key, value)| {
                    Record::Value(ValueRecord { place, kind, key, value })
                }),
        ]
    }

    proptest! {
        #[test]
        fn round_trips(records in vec(record(), 0..5)) {
            let mut bytes = Vec::new();
            for record in &records {
                record.encode(&mut bytes);
            }
            let mut cursor = Cursor::new(&bytes);
            let mut read = Vec::new();
            while !cursor.is_empty() {
                read.push(Record::decode(&mut cursor)?);
            }
            prop_assert_eq!(read, records);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in vec(any::<u8>(), 0..200)) {
            let mut cursor = Cursor::new(&bytes);
            while Record::decode(&mut cursor).is_ok() {}
        }
    }

    #[test]
    fn golden_bytes() {
        let golden = |record: Record| {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            bytes
        };
        let kind = ObjectKind::Directory;
        let object = Object { kind, digest: [9; 32], len: 5, literals_len: 0x0304 };
        let frame = FrameObjects { offset: 1, frame_len: 2, objects: vec![object] };
        let mut expected = vec![1, 47, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1];
        expected.extend([9; 32]);
        expected.extend([5, 0, 0, 0, 4, 3]);
        assert_eq!(golden(Record::Frame(frame)), expected);

        let entries = vec![BlobEntry { digest: [5; 32], size_bytes: 6 }];
        let mut expected = vec![2, 73, 0, 0, 0];
        expected.extend([4; 32]);
        expected.push(0);
        expected.extend([5; 32]);
        expected.extend([6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            golden(Record::Blob(BlobRecord { digest: [4; 32], lists: false, entries })),
            expected
        );

        let place = Place { epoch: 1, writer: 2, sequence: 3 };
        let value = Some(b"v".to_vec());
        let value = ValueRecord { place, kind: 7, key: b"k".to_vec(), value };
        let expected = [
            &[3, 28, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 7, 1][..],
            &[1, 0, 0, 0, b'k', b'v'],
        ];
        assert_eq!(golden(Record::Value(value)), expected.concat());
        let tombstone = ValueRecord { place, kind: 7, key: b"k".to_vec(), value: None };
        let expected = [
            &[3, 27, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 7, 0][..],
            &[1, 0, 0, 0, b'k'],
        ];
        assert_eq!(golden(Record::Value(tombstone)), expected.concat());
    }
}

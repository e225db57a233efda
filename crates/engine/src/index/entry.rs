//! Keys and values of the index.
//!
//! Integers that stand in the values of objects and blobs are short where they are small, for
//! there are many of them.
//!
//! The index is derived, so this layout is not part of the store's format: [`State`] carries
//! a version of its own, and an index of another version is built anew.

use super::integer;
use crate::{
    format::{BlobEntry, BlobRecord, Cursor, Malformed, ObjectKind, Place, StoreId},
    object_key::ObjectKey,
};

/// Tags of all keys that have a digest: those of objects that refer to others first.
pub(super) static DIGEST_TAGS: [[u8; 1]; 5] =
    [[DIRECTORY_TAG], [BLOB_TAG], [CHUNK_LIST_TAG], [CHUNK_TAG], [BASE_TAG]];

const CHUNK_TAG: u8 = b'c';
const BASE_TAG: u8 = b'n';
const DIRECTORY_TAG: u8 = b'd';
const CHUNK_LIST_TAG: u8 = b'l';
const BLOB_TAG: u8 = b'b';
const VALUE_TAG: u8 = b'v';
pub(super) const PACK_TAG: u8 = b'p';
pub(super) const STATE_KEY: [u8; 1] = *b"s";

const LAYOUT_VERSION: u32 = 4;

/// A key of a tag and a digest.
pub(super) type DigestKey = [u8; 33];

/// The key of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    Digest(DigestKey),
    /// That of a value, a pack or the state.
    Other(Box<[u8]>),
}

/// A key and its value; none if it is to be removed.
pub(super) type Entry = (Key, Option<Box<[u8]>>);

pub(super) fn object_key(kind: ObjectKind, digest: &[u8; 32]) -> DigestKey {
    let tag = match kind {
        ObjectKind::Chunk | ObjectKind::Patch => CHUNK_TAG,
        ObjectKind::Base => BASE_TAG,
        ObjectKind::Directory => DIRECTORY_TAG,
        ObjectKind::ChunkList => CHUNK_LIST_TAG,
        ObjectKind::Duplicate => unreachable!("duplicates are never looked up nor indexed"),
    };
    tagged(tag, digest)
}

pub(super) fn blob_key(digest: &[u8; 32]) -> DigestKey {
    tagged(BLOB_TAG, digest)
}

pub(super) fn digest_key(key: &ObjectKey) -> DigestKey {
    match key {
        ObjectKey::Object(kind, digest) => object_key(*kind, digest),
        ObjectKey::Blob(digest) => blob_key(digest),
    }
}

/// What a key stands for; `None` if it is not one with a digest.
pub(super) fn key_of_digest(key: &[u8]) -> Option<ObjectKey> {
    let (tag, digest) = key.split_first()?;
    let digest = digest.try_into().ok()?;
    Some(match *tag {
        CHUNK_TAG => ObjectKey::Object(ObjectKind::Chunk, digest),
        BASE_TAG => ObjectKey::Object(ObjectKind::Base, digest),
        DIRECTORY_TAG => ObjectKey::Object(ObjectKind::Directory, digest),
        CHUNK_LIST_TAG => ObjectKey::Object(ObjectKind::ChunkList, digest),
        BLOB_TAG => ObjectKey::Blob(digest),
        _ => return None,
    })
}

fn tagged(tag: u8, digest: &[u8; 32]) -> DigestKey {
    let mut key = [tag; 33];
    key[1..].copy_from_slice(digest);
    key
}

pub(super) fn value_key(kind: u8, key: &[u8]) -> Vec<u8> {
    let mut tagged = Vec::with_capacity(key.len() + 2);
    tagged.extend_from_slice(&[VALUE_TAG, kind]);
    tagged.extend_from_slice(key);
    tagged
}

/// Big-endian, so that packs come in the order of their handles.
pub(super) fn pack_key(handle: u32) -> [u8; 5] {
    let mut key = [PACK_TAG; 5];
    key[1..].copy_from_slice(&handle.to_be_bytes());
    key
}

pub(super) fn pack_handle(key: &[u8]) -> Result<u32, Malformed> {
    let bytes = key.get(1..).and_then(|bytes| bytes.try_into().ok());
    Ok(u32::from_be_bytes(bytes.ok_or(Malformed("a pack key has the wrong length"))?))
}

/// Where an object lies in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    /// Local handle of the pack.
    pub(crate) pack: u32,
    /// Where the frame's header begins in the pack.
    pub(crate) frame_offset: u32,
    /// Header and stored bytes of the frame.
    pub(crate) frame_len: u32,
    /// Where the object begins in the raw bytes of the frame.
    pub(crate) offset: u32,
    /// Length of the object.
    pub(crate) len: u32,
}

/// How an object is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Located {
    /// In a frame.
    Frame(Location),
    /// A chunk as another one and what to replace in it: where the patch lies that says so.
    Patched(Location),
}

impl Located {
    /// Where the object lies, or its patch.
    pub(crate) fn location(&self) -> &Location {
        match self {
            Self::Frame(location) | Self::Patched(location) => location,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (is_patched, location) = match *self {
            Self::Frame(location) => (false, location),
            Self::Patched(location) => (true, location),
        };
        let Location { pack, frame_offset, frame_len, offset, len } = location;
        let mut value = Vec::with_capacity(24);
        integer::put(&mut value, (u64::from(pack) << 1) | u64::from(is_patched));
        for field in [frame_offset, frame_len, offset, len] {
            integer::put(&mut value, field.into());
        }
        value
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(value);
        let pack_and_kind = integer::take(&mut cursor)?;
        let mut field = || integer::narrow(integer::take(&mut cursor)?);
        let location = Location {
            pack: integer::narrow(pack_and_kind >> 1)?,
            frame_offset: field()?,
            frame_len: field()?,
            offset: field()?,
            len: field()?,
        };
        let is_patched = pack_and_kind & 1 != 0;
        Ok(if is_patched { Self::Patched(location) } else { Self::Frame(location) })
    }
}

/// The blob's record, and the pack that it stands in. The digest is in the key.
pub(super) fn encode_blob(pack: u32, blob: &BlobRecord) -> Vec<u8> {
    let mut value = Vec::with_capacity(6 + 36 * blob.entries.len());
    integer::put(&mut value, (u64::from(pack) << 1) | u64::from(blob.lists));
    for BlobEntry { digest, size_bytes } in &blob.entries {
        value.extend_from_slice(digest);
        integer::put(&mut value, *size_bytes);
    }
    value
}

pub(super) fn decode_blob(digest: &[u8; 32], value: &[u8]) -> Result<(u32, BlobRecord), Malformed> {
    let mut cursor = Cursor::new(value);
    let pack_and_lists = integer::take(&mut cursor)?;
    let lists = pack_and_lists & 1 != 0;
    let mut entries = Vec::with_capacity(cursor.remaining() / 33);
    while !cursor.is_empty() {
        let (digest, size_bytes) = (cursor.array()?, integer::take(&mut cursor)?);
        entries.push(BlobEntry { digest, size_bytes });
    }
    let pack = integer::narrow(pack_and_lists >> 1)?;
    Ok((pack, BlobRecord { digest: *digest, lists, entries }))
}

/// The pack that the value of a key with a digest says.
pub(super) fn decode_pack(value: &[u8]) -> Result<u32, Malformed> {
    // Both begin with the handle and a bit.
    integer::narrow(integer::take(&mut Cursor::new(value))? >> 1)
}

pub(super) fn encode_value(place: Place, value: Option<&[u8]>) -> Vec<u8> {
    let mut encoded = Vec::new();
    place.encode(&mut encoded);
    encoded.push(u8::from(value.is_some()));
    encoded.extend_from_slice(value.unwrap_or_default());
    encoded
}

pub(super) fn decode_value(encoded: &[u8]) -> Result<(Place, Option<Vec<u8>>), Malformed> {
    let mut cursor = Cursor::new(encoded);
    let place = Place::decode(&mut cursor)?;
    let value = match cursor.u8()? {
        0 => None,
        1 => Some(cursor.take(cursor.remaining())?.to_vec()),
        _ => return Err(Malformed("a value is neither there nor a tombstone")),
    };
    Ok((place, value))
}

/// What the index knows of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackEntry {
    pub(crate) id: [u8; 16],
    /// Whether nothing will be appended any more.
    pub(crate) sealed: bool,
}

impl PackEntry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = self.id.to_vec();
        value.push(u8::from(self.sealed));
        value
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(value);
        Ok(Self { id: cursor.array()?, sealed: cursor.u8()? != 0 })
    }
}

/// How far the index has followed the packs: everything before it is in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Watermark {
    pub(crate) pack: u32,
    pub(crate) offset: u64,
    /// Stamp of the last segment before it.
    pub(crate) stamp: Place,
}

/// Sums over all objects in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// Distinct chunks.
    pub(crate) chunks: u64,
    /// Their bytes, before compression.
    pub(crate) chunk_bytes: u64,
    /// Distinct chunks that are others with some bytes replaced; not among `chunks`.
    pub(crate) patched_chunks: u64,
    /// Distinct blobs of several chunks.
    pub(crate) divided_blobs: u64,
    /// Distinct directories.
    pub(crate) directories: u64,
    /// Their bytes in canonical encoding, before compression.
    pub(crate) directory_bytes: u64,
}

impl Totals {
    /// Adds an object that lies in a frame.
    pub(crate) fn add(&mut self, kind: ObjectKind, len: u32) {
        let len = u64::from(len);
        self.add_all(&match kind {
            ObjectKind::Chunk | ObjectKind::Base => {
                Self { chunks: 1, chunk_bytes: len, ..Self::default() }
            }
            ObjectKind::Directory => {
                Self { directories: 1, directory_bytes: len, ..Self::default() }
            }
            ObjectKind::Patch => Self { patched_chunks: 1, ..Self::default() },
            ObjectKind::ChunkList | ObjectKind::Duplicate => Self::default(),
        });
    }

    /// Adds what is in `other`. An index that says something else than the packs may already be
    /// at the end.
    pub(crate) fn add_all(&mut self, other: &Self) {
        self.chunks = self.chunks.saturating_add(other.chunks);
        self.chunk_bytes = self.chunk_bytes.saturating_add(other.chunk_bytes);
        self.patched_chunks = self.patched_chunks.saturating_add(other.patched_chunks);
        self.divided_blobs = self.divided_blobs.saturating_add(other.divided_blobs);
        self.directories = self.directories.saturating_add(other.directories);
        self.directory_bytes = self.directory_bytes.saturating_add(other.directory_bytes);
    }

    /// Takes away what is in `other`.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.chunks = self.chunks.saturating_sub(other.chunks);
        self.chunk_bytes = self.chunk_bytes.saturating_sub(other.chunk_bytes);
        self.patched_chunks = self.patched_chunks.saturating_sub(other.patched_chunks);
        self.divided_blobs = self.divided_blobs.saturating_sub(other.divided_blobs);
        self.directories = self.directories.saturating_sub(other.directories);
        self.directory_bytes = self.directory_bytes.saturating_sub(other.directory_bytes);
    }
}

/// What the index was built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) store_id: StoreId,
    pub(crate) watermark: Watermark,
    pub(crate) totals: Totals,
    /// The list of dead objects that it has followed; 0 if there was none.
    pub(crate) dead_generation: u64,
}

impl State {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = LAYOUT_VERSION.to_le_bytes().to_vec();
        value.extend_from_slice(&self.store_id.0);
        value.extend_from_slice(&self.watermark.pack.to_le_bytes());
        value.extend_from_slice(&self.watermark.offset.to_le_bytes());
        self.watermark.stamp.encode(&mut value);
        let Totals {
            chunks,
            chunk_bytes,
            patched_chunks,
            divided_blobs,
            directories,
            directory_bytes,
        } = self.totals;
        let totals =
            [chunks, chunk_bytes, patched_chunks, divided_blobs, directories, directory_bytes];
        for total in totals {
            value.extend_from_slice(&total.to_le_bytes());
        }
        value.extend_from_slice(&self.dead_generation.to_le_bytes());
        value
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(value);
        if cursor.u32()? != LAYOUT_VERSION {
            return Err(Malformed("the index has another layout"));
        }
        Ok(Self {
            store_id: StoreId(cursor.array()?),
            watermark: Watermark {
                pack: cursor.u32()?,
                offset: cursor.u64()?,
                stamp: Place::decode(&mut cursor)?,
            },
            totals: Totals {
                chunks: cursor.u64()?,
                chunk_bytes: cursor.u64()?,
                patched_chunks: cursor.u64()?,
                divided_blobs: cursor.u64()?,
                directories: cursor.u64()?,
                directory_bytes: cursor.u64()?,
            },
            dead_generation: cursor.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BlobEntry;

    #[test]
    fn round_trips() {
        let location = Location { pack: 1, frame_offset: 2, frame_len: 3, offset: 4, len: 5 };
        let far = Location {
            pack: u32::MAX,
            frame_offset: u32::MAX,
            frame_len: 1 << 20,
            offset: 127,
            len: 128,
        };
        for location in [location, far] {
            for located in [Located::Frame(location), Located::Patched(location)] {
                assert_eq!(Located::decode(&located.encode()), Ok(located));
                assert_eq!(decode_pack(&located.encode()), Ok(location.pack));
            }
        }
        let entries = [9, u64::MAX].map(|size_bytes| BlobEntry { digest: [1; 32], size_bytes });
        let blob = BlobRecord { digest: [2; 32], lists: true, entries: entries.into() };
        assert_eq!(decode_pack(&encode_blob(u32::MAX, &blob)), Ok(u32::MAX));
        assert_eq!(decode_blob(&blob.digest, &encode_blob(7, &blob)), Ok((7, blob)));
        let place = Place { epoch: 1, writer: 2, sequence: 3 };
        for value in [None, Some(b"".to_vec()), Some(b"x".to_vec())] {
            assert_eq!(decode_value(&encode_value(place, value.as_deref())), Ok((place, value)));
        }
        let pack = PackEntry { id: [4; 16], sealed: true };
        assert_eq!(PackEntry::decode(&pack.encode()), Ok(pack));
        assert_eq!(pack_handle(&pack_key(77)), Ok(77));
        let state = State {
            store_id: StoreId([5; 16]),
            watermark: Watermark { pack: 6, offset: 7, stamp: place },
            totals: Totals {
                chunks: 1,
                chunk_bytes: 2,
                patched_chunks: 6,
                divided_blobs: 3,
                directories: 4,
                directory_bytes: 5,
            },
            dead_generation: 8,
        };
        assert_eq!(State::decode(&state.encode()), Ok(state));
    }
}

//! The list of dead objects: what lies in packs and counts as not stored.

use super::{
    checksum,
    cursor::{Cursor, Malformed, len_u32},
    header::{FORMAT_VERSION, StoreId},
    record::ObjectKind,
};
use crate::object_key::ObjectKey;

pub(crate) const DEAD_LIST_HEADER_BYTES: usize = 64;

/// A section without its keys: pack id, number of keys, checksum.
pub(crate) const DEAD_SECTION_BYTES: usize = 28;

pub(crate) const DEAD_KEY_BYTES: usize = 33;

const MAGIC: &[u8; 8] = b"GRANDEAD";

/// What stands for a blob of several chunks where an object has its kind.
const BLOB: u8 = 255;

/// The first bytes of a list of dead objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeadListHeader {
    /// Each list has a greater one than the list before it, from 1 on.
    pub(crate) generation: u64,
    /// How many sections follow.
    pub(crate) section_count: u32,
}

impl DeadListHeader {
    pub(crate) fn encode(&self, store_id: StoreId) -> [u8; DEAD_LIST_HEADER_BYTES] {
        let mut bytes = [0; DEAD_LIST_HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.generation.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.section_count.to_le_bytes());
        let sum = checksum(&[&store_id.0, &bytes[..56]]);
        bytes[56..].copy_from_slice(&sum);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], store_id: StoreId) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let start = cursor.take(56)?;
        if cursor.array::<8>()? != checksum(&[&store_id.0, start]) {
            return Err(Malformed("the checksum of its header is wrong"));
        }
        let mut cursor = Cursor::new(start);
        if cursor.array::<8>()? != *MAGIC {
            return Err(Malformed("it is no list of dead objects"));
        }
        if cursor.u32()? != FORMAT_VERSION {
            return Err(Malformed("it has another format version"));
        }
        Ok(Self { generation: cursor.u64()?, section_count: cursor.u32()? })
    }
}

/// The dead objects of one pack, as they stand in the list.
pub(crate) fn encode_section(store_id: StoreId, pack_id: [u8; 16], keys: &[ObjectKey]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(DEAD_SECTION_BYTES + keys.len() * DEAD_KEY_BYTES);
    bytes.extend_from_slice(&pack_id);
    bytes.extend_from_slice(&len_u32(keys.len()).to_le_bytes());
    for key in keys {
        bytes.push(match key {
            ObjectKey::Object(kind, _) => kind.id(),
            ObjectKey::Blob(_) => BLOB,
        });
        bytes.extend_from_slice(key.digest());
    }
    let sum = checksum(&[&store_id.0, &bytes]);
    bytes.extend_from_slice(&sum);
    bytes
}

/// The first bytes of a section: its pack, and how long the whole section is.
pub(crate) fn section_start(bytes: &[u8]) -> Result<([u8; 16], u64), Malformed> {
    let mut cursor = Cursor::new(bytes);
    let (pack_id, count) = (cursor.array()?, cursor.u32()?);
    Ok((pack_id, DEAD_SECTION_BYTES as u64 + u64::from(count) * DEAD_KEY_BYTES as u64))
}

/// Reads a whole section.
pub(crate) fn decode_section(bytes: &[u8], store_id: StoreId) -> Result<Vec<ObjectKey>, Malformed> {
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or(Malformed("a section is cut off"))?;
    if *sum != checksum(&[&store_id.0, body]) {
        return Err(Malformed("the checksum of a section is wrong"));
    }
    let mut cursor = Cursor::new(body.get(20..).ok_or(Malformed("a section is cut off"))?);
    let mut keys = Vec::with_capacity(cursor.remaining() / DEAD_KEY_BYTES);
    while !cursor.is_empty() {
        let (kind, digest) = (cursor.u8()?, cursor.array()?);
        keys.push(match kind {
            BLOB => ObjectKey::Blob(digest),
            kind => match ObjectKind::from_id(kind)? {
                ObjectKind::Patch | ObjectKind::Duplicate => {
                    return Err(Malformed("an object of this kind has no name of its own"));
                }
                kind => ObjectKey::Object(kind, digest),
            },
        });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId([6; 16]);

    fn keys() -> [ObjectKey; 2] {
        [ObjectKey::Object(ObjectKind::Directory, [1; 32]), ObjectKey::Blob([2; 32])]
    }

    #[test]
    fn the_header_is_golden() {
        let header = DeadListHeader { generation: 7, section_count: 2 };
        let bytes = header.encode(STORE);
        let mut expected = b"GRANDEAD".to_vec();
        expected.extend([4, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
        expected.extend([0; 32]);
        assert_eq!(bytes[..56], expected);
        let sum = blake3::hash(&[&STORE.0, &bytes[..56]].concat());
        assert_eq!(bytes[56..], sum.as_bytes()[..8]);
        assert_eq!(DeadListHeader::decode(&bytes, STORE), Ok(header));
        assert!(DeadListHeader::decode(&bytes, StoreId([7; 16])).is_err());
    }

    #[test]
    fn a_section_is_golden() {
        let bytes = encode_section(STORE, [9; 16], &keys());
        let expected = [&[9; 16][..], &[2, 0, 0, 0], &[1], &[1; 32], &[255], &[2; 32]].concat();
        assert_eq!(bytes[..expected.len()], expected);
        assert_eq!(section_start(&bytes), Ok(([9; 16], bytes.len() as u64)));
        assert_eq!(decode_section(&bytes, STORE), Ok(keys().to_vec()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let section = encode_section(STORE, [9; 16], &keys());
        let header = DeadListHeader { generation: 7, section_count: 2 }.encode(STORE);
        for bit in 0..section.len() * 8 {
            let mut damaged = section.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_section(&damaged, STORE).is_err(), "bit {bit}");
        }
        for bit in 0..header.len() * 8 {
            let mut damaged = header;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(DeadListHeader::decode(&damaged, STORE).is_err(), "bit {bit}");
        }
        for len in 0..section.len() {
            assert!(decode_section(&section[..len], STORE).is_err(), "length {len}");
        }
        for len in 0..header.len() {
            assert!(DeadListHeader::decode(&header[..len], STORE).is_err(), "length {len}");
        }
    }
}

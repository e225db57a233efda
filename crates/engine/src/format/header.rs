//! The header of the store and the header of a pack.

use super::{checksum, cursor::Cursor};

/// Version of everything in this module. A binary reads exactly its own.
pub const FORMAT_VERSION: u32 = 4;

pub(crate) const STORE_HEADER_BYTES: usize = 64;
pub(crate) const PACK_HEADER_BYTES: usize = 64;

const STORE_MAGIC: &[u8; 8] = b"GRANSTOR";
const PACK_MAGIC: &[u8; 8] = b"GRANPACK";

/// Identifies a store: random, and known only to who can read its data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StoreId(pub(crate) [u8; 16]);

/// Why a header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VersionProblem {
    #[error("it is cut off or damaged")]
    Damaged,
    #[error(
        "it has format version {found}, this granary reads version {FORMAT_VERSION}: \
         use the granary that wrote it, or export from it and import anew"
    )]
    OtherVersion { found: u32 },
    #[error(
        "it was chunked or normalised by rules (ids {chunker} and {normaliser}) that this \
         granary does not know: use the granary that wrote it"
    )]
    OtherRules { chunker: u32, normaliser: u32 },
}

/// The file `store`: what holds for all packs of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreHeader {
    pub(crate) store_id: StoreId,
    /// Which chunker cuts new blobs; another would make nothing unreadable, but would end
    /// deduplication against what is there.
    pub(crate) chunker: u32,
    /// Which rules take references out before chunking; 0 for none.
    pub(crate) normaliser: u32,
    /// What the chunker aims at, in bytes.
    pub(crate) average_chunk_bytes: u32,
    /// Who writes: part of each record's place in the order.
    pub(crate) writer: u64,
}

impl StoreHeader {
    pub(crate) fn encode(&self) -> [u8; STORE_HEADER_BYTES] {
        let mut bytes = [0; STORE_HEADER_BYTES];
        bytes[..8].copy_from_slice(STORE_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.chunker.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.normaliser.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.average_chunk_bytes.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.store_id.0);
        bytes[40..48].copy_from_slice(&self.writer.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, VersionProblem> {
        let mut cursor = open(bytes, *STORE_MAGIC)?;
        let mut read = || {
            let header = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
            Ok::<_, super::Malformed>((header, StoreId(cursor.array()?), cursor.u64()?))
        };
        let ((chunker, normaliser, average_chunk_bytes), store_id, writer) =
            read().map_err(|_| VersionProblem::Damaged)?;
        Ok(Self { store_id, chunker, normaliser, average_chunk_bytes, writer })
    }
}

/// The first bytes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackHeader {
    pub(crate) pack_id: [u8; 16],
    /// The store it belongs to.
    pub(crate) store_id: StoreId,
}

impl PackHeader {
    pub(crate) fn encode(&self) -> [u8; PACK_HEADER_BYTES] {
        let mut bytes = [0; PACK_HEADER_BYTES];
        bytes[..8].copy_from_slice(PACK_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..28].copy_from_slice(&self.pack_id);
        bytes[28..44].copy_from_slice(&self.store_id.0);
        seal(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, VersionProblem> {
        let mut cursor = open(bytes, *PACK_MAGIC)?;
        let mut read = || Ok::<_, super::Malformed>((cursor.array()?, StoreId(cursor.array()?)));
        let (pack_id, store_id) = read().map_err(|_| VersionProblem::Damaged)?;
        Ok(Self { pack_id, store_id })
    }
}

/// Writes the checksum into the last 8 bytes.
fn seal(bytes: &mut [u8; 64]) {
    let sum = checksum(&[&bytes[..56]]);
    bytes[56..].copy_from_slice(&sum);
}

/// Checks magic, version and checksum; the cursor stands behind the version.
fn open(bytes: &[u8], magic: [u8; 8]) -> Result<Cursor<'_>, VersionProblem> {
    if bytes.len() < 64 || bytes[..8] != magic {
        return Err(VersionProblem::Damaged);
    }
    let mut cursor = Cursor::new(&bytes[8..64]);
    let found = cursor.u32().map_err(|_| VersionProblem::Damaged)?;
    // The version comes before the checksum: another version may keep its checksum elsewhere.
    if found != FORMAT_VERSION {
        return Err(VersionProblem::OtherVersion { found });
    }
    if checksum(&[&bytes[..56]]) != bytes[56..64] {
        return Err(VersionProblem::Damaged);
    }
    Ok(cursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_header_is_golden() {
        let header = StoreHeader {
            store_id: StoreId([7; 16]),
            chunker: 1,
            normaliser: 1,
            average_chunk_bytes: 65_536,
            writer: 0x0102_0304,
        };
        let bytes = header.encode();
        let mut expected = b"GRANSTOR".to_vec();
        expected.extend([4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]);
        expected.extend([7; 16]);
        expected.extend([4, 3, 2, 1, 0, 0, 0, 0]);
        expected.extend([0; 8]);
        assert_eq!(bytes[..56], expected);
        assert_eq!(StoreHeader::decode(&bytes), Ok(header));
    }

    #[test]
    fn pack_header_is_golden() {
        let header = PackHeader { pack_id: [1; 16], store_id: StoreId([2; 16]) };
        let bytes = header.encode();
        let mut expected = b"GRANPACK".to_vec();
        expected.extend([4, 0, 0, 0]);
        expected.extend([1; 16]);
        expected.extend([2; 16]);
        expected.extend([0; 12]);
        assert_eq!(bytes[..56], expected);
        assert_eq!(PackHeader::decode(&bytes), Ok(header));
    }

    #[test]
    fn other_versions_and_damage_are_told_apart() {
        let mut bytes = PackHeader { pack_id: [1; 16], store_id: StoreId([2; 16]) }.encode();
        bytes[8] = 1;
        assert_eq!(PackHeader::decode(&bytes), Err(VersionProblem::OtherVersion { found: 1 }));
        bytes[8] = 4;
        for position in (0..8).chain(12..64) {
            let mut damaged = bytes;
            damaged[position] ^= 0x10;
            assert_eq!(PackHeader::decode(&damaged), Err(VersionProblem::Damaged), "{position}");
        }
        assert_eq!(PackHeader::decode(&bytes[..63]), Err(VersionProblem::Damaged));
    }
}

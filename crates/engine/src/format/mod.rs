//! The bytes of a pack. `docs/pack-format.md` is their one description; the golden tests in
//! this module pin it.
//!
//! Reading here never trusts: lengths are checked before anything is allocated, checksums
//! before anything is parsed.

mod cursor;

mod raw_blocks;

mod frame;
mod header;
mod patch;
mod record;

mod footer;
mod segment;

mod dead_list;

pub(crate) use cursor::{Cursor, Malformed};
pub(crate) use dead_list::{
    DEAD_LIST_HEADER_BYTES, DEAD_SECTION_BYTES, DeadListHeader, decode_section, encode_section,
    section_start,
};
pub(crate) use footer::{FOOTER_TAIL_BYTES, Footer};
pub(crate) use frame::{
    ContentsTag, FRAME_HEADER_BYTES, FrameCheck, FrameHeader, MAX_FRAME_RAW_BYTES, PackedFrame,
    StoredFrame, contents_tag,
};
pub use header::FORMAT_VERSION;
pub(crate) use header::{
    PACK_HEADER_BYTES, PackHeader, STORE_HEADER_BYTES, StoreHeader, StoreId, VersionProblem,
};
pub(crate) use patch::{Patch, Patches};
pub(crate) use record::{
    BLOB_ENTRY_BYTES, BlobEntry, BlobRecord, FrameObjects, Object, ObjectKind, Place, Record,
    ValueRecord,
};
pub(crate) use segment::{
    MAX_SEGMENT_BYTES, SEGMENT_HEADER_BYTES, Segment, SegmentBuilder, SegmentHeader, Stamp,
    check_frames,
};

/// The checksum of stored bytes: the first 8 bytes of their BLAKE3.
///
/// It is there to notice damage, not malice; whoever can write to the pack could as well
/// write the digests.
pub(crate) fn checksum(parts: &[&[u8]]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut checksum = [0; 8];
    checksum.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    checksum
}

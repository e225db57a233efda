//! The kinds of records that this crate keeps. They are part of the store's format: a
//! number keeps its meaning for ever, and one that is given up is not used again.
//!
//! | kind | key | value |
//! |---|---|---|
//! | 1 path info | hash part of the store path, 20 bytes | JSON, see [`path_info_record`](crate::path_info_record) |
//! | 2 NAR digest | identity of a node, 41 bytes: `d`, `f` or `x` (directory, file, executable file), its digest, its size as a little-endian u64 | JSON, see [`nar_digest_record`](crate::nar_digest_record) |
//! | 3 uploaded NAR | its file name, without `nar/` | JSON, see [`upload`](crate::upload) |
//! | 4 document | one byte for the sort of document, then its name | JSON, see [`document`](crate::document) |
//!
//! Every value is a JSON object with a version under `v`. A version that is not known is
//! refused, never guessed at.

use granary_castore::RecordKind;

/// Path infos, by the hash part of their store path.
pub const PATH_INFO: RecordKind = RecordKind(1);

/// Size and hash of NARs, by the identity of their root.
pub const NAR_DIGEST: RecordKind = RecordKind(2);

/// NARs that were uploaded over HTTP, by file name.
pub const UPLOADED_NAR: RecordKind = RecordKind(3);

/// Logs, debug information, realisations and uploaded listings, by sort and name.
pub const DOCUMENT: RecordKind = RecordKind(4);

/// Longest key of a record, in bytes: what [`granary_castore::RecordWrite`] allows.
pub(crate) const MAX_KEY_BYTES: usize = 255;

//! The kinds of records that this crate keeps, and what is in them. All of it is part of
//! the store's format: a number keeps its meaning for ever, and one that is given up is not
//! used again.
//!
//! | kind | key |
//! |---|---|
//! | 1 path info | hash part of the store path, 20 bytes |
//! | 2 NAR digest | identity of a node, 41 bytes: `d`, `f` or `x` (directory, file, executable file), its digest, its size as a little-endian u64 |
//! | 3 uploaded NAR | its file name, without `nar/` |
//! | 4 document | a byte for its sort (`l` log, `d` debug information, `r` realisation, `s` listing), then its name |
//! | 5 pin | its name |
//! | 6 last use | hash part of the store path, 20 bytes |
//!
//! Kind 255 is the engine's own: leases.
//!
//! Every value is a JSON object with its version under `v`, so far always 1. A version that
//! is not known is refused, never guessed at. The fields are, in this order:
//!
//! ```text
//! 1: {"v":1, "path":BASE_NAME, "node":NODE, "references":[HASH_PART…],
//!     "nar":{"size":…, "sha256":BASE64, "signatures":[{"name":…, "data":BASE64}…],
//!            "reference_names":[BASE_NAME…], "deriver":BASE_NAME|null,
//!            "ca":"fixed:r:sha256:…"|null}|null}
//! 2: {"v":1, "nar_size":…, "nar_sha256":BASE64}
//! 3: {"v":1, "node":NODE, "nar":{"nar_size":…, "nar_sha256":BASE64},
//!     "file_sha256":BASE64, "file_size":…, "compression":"none"|"xz"|…,
//!     "touched_unix_s":…}
//! 4: {"v":1, "digest":BASE64, "size":…, "content_type":…, "put_unix_s":…}
//! 5: {"v":1, "target":{"path":BASE_NAME} | {"blob":BASE64} | {"directory":BASE64},
//!     "created_unix_s":…, "expires_unix_s":…|null}
//! 6: {"v":1, "used_unix_s":…}
//!
//! NODE = {"directory":{"digest":BASE64, "size":…}}
//!      | {"file":{"digest":BASE64, "size":…, "executable":…}}
//!      | {"symlink":{"target":BASE64}}
//! ```
//!
//! `HASH_PART` is 32 characters of nixbase32, `BASE_NAME` that, a dash and a name; sizes are
//! in bytes, but that of a directory, which counts entries.

use granary_castore::RecordKind;

/// Path infos, by the hash part of their store path.
pub const PATH_INFO: RecordKind = RecordKind(1);

/// Size and hash of NARs, by the identity of their root.
pub const NAR_DIGEST: RecordKind = RecordKind(2);

/// NARs that were uploaded over HTTP, by file name.
pub const UPLOADED_NAR: RecordKind = RecordKind(3);

/// Logs, debug information, realisations and uploaded listings, by sort and name.
pub const DOCUMENT: RecordKind = RecordKind(4);

/// What is kept because somebody said so, by name.
pub const PIN: RecordKind = RecordKind(5);

/// When paths were used last, by the hash part of their store path.
pub const LAST_USE: RecordKind = RecordKind(6);

/// Longest key of a record, in bytes: what [`granary_castore::RecordWrite`] allows.
pub(crate) const MAX_KEY_BYTES: usize = 255;

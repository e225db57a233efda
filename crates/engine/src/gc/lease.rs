//! Leases: what was put and nothing leads to yet is kept for a time.
//!
//! A lease is a value like others, of a kind that only the engine uses: its key names an object,
//! its value says until when.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use granary_castore::{BlobDigest, DirectoryDigest, RecordKind, RecordWrite, Root};

use crate::format::ValueRecord;

/// The kind of the records of leases. No other crate may use it.
pub(crate) const LEASE_KIND: RecordKind = RecordKind(255);

const BLOB: u8 = b'b';
const DIRECTORY: u8 = b'd';

/// The write that keeps `root` until then, in seconds since 1970.
pub(crate) fn write(root: &Root, until_s: u64) -> RecordWrite {
    let (class, digest) = match root {
        Root::Blob(digest) => (BLOB, digest.as_bytes()),
        Root::Directory(digest) => (DIRECTORY, digest.as_bytes()),
    };
    let mut key = vec![class];
    key.extend_from_slice(digest);
    let value = Some(Bytes::copy_from_slice(&until_s.to_le_bytes()));
    RecordWrite { kind: LEASE_KIND, key: key.into(), value }
}

/// What a lease keeps, and until when; `None` if that is no lease.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Option<(Root, u64)> {
    let (class, digest) = key.split_first()?;
    let digest: [u8; 32] = digest.try_into().ok()?;
    let root = match *class {
        BLOB => Root::Blob(BlobDigest::from_bytes(digest)),
        DIRECTORY => Root::Directory(DirectoryDigest::from_bytes(digest)),
        _ => return None,
    };
    Some((root, u64::from_le_bytes(value.try_into().ok()?)))
}

/// Whether a value is a lease that is over.
pub(crate) fn is_expired(value: &ValueRecord, now_s: u64) -> bool {
    value.kind == LEASE_KIND.0
        && value
            .value
            .as_ref()
            .and_then(|lease| decode(&value.key, lease))
            .is_none_or(|(_, until_s)| until_s < now_s)
}

pub(crate) fn now_s() -> u64 {
    // A clock before 1970 is as good as 1970: no lease is over then.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Place;

    #[test]
    fn round_trips_and_ends() {
        let root = Root::Directory(DirectoryDigest::from_bytes([7; 32]));
        let write = write(&root, 1000);
        let value = write.value.expect("a lease has a value");
        assert_eq!(decode(&write.key, &value), Some((root, 1000)));
        assert_eq!(decode(b"x", &value), None);
        let value = ValueRecord {
            place: Place::default(),
            kind: write.kind.0,
            key: write.key.to_vec(),
            value: Some(value.to_vec()),
        };
        assert!(!is_expired(&value, 1000) && is_expired(&value, 1001));
        assert!(!is_expired(&ValueRecord { kind: 1, ..value }, 1001), "it is no lease");
    }
}

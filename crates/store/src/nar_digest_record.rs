//! NAR digests as records; [`kinds`] has their form.

use bytes::Bytes;
use granary_castore::{RecordWrite, Result};
use granary_nix_formats::NarHash;
use serde::{Deserialize, Serialize};

use crate::{
    NarDigest, kinds,
    node_record::NodeKey,
    record_value::{self, base64},
};

#[derive(Serialize, Deserialize)]
pub(crate) struct NarDigestRecord {
    nar_size: u64,
    #[serde(with = "base64")]
    nar_sha256: [u8; 32],
}

impl From<&NarDigest> for NarDigestRecord {
    fn from(nar: &NarDigest) -> Self {
        Self { nar_size: nar.nar_size, nar_sha256: *nar.nar_hash.as_bytes() }
    }
}

impl From<NarDigestRecord> for NarDigest {
    fn from(record: NarDigestRecord) -> Self {
        Self { nar_size: record.nar_size, nar_hash: NarHash::from_bytes(record.nar_sha256) }
    }
}

/// The write that remembers the NAR of a node.
pub(crate) fn write(key: &NodeKey, nar: &NarDigest) -> RecordWrite {
    RecordWrite {
        kind: kinds::NAR_DIGEST,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(record_value::encode(&NarDigestRecord::from(nar))),
    }
}

/// Reads what [`write`] wrote.
pub(crate) fn decode(value: &[u8]) -> Result<NarDigest> {
    let record: NarDigestRecord =
        record_value::decode(|| "the record of a NAR's hash".to_owned(), value)?;
    Ok(record.into())
}

#[cfg(test)]
mod tests {
    use granary_castore::{DirectoryDigest, Node};

    use super::*;

    /// The whole record: what is in stores must stay readable.
    #[test]
    fn golden_record() {
        let node = Node::Directory { digest: DirectoryDigest::from_bytes([6; 32]), size: 0x0102 };
        let key = NodeKey::of(&node).expect("a directory has one");
        let nar = NarDigest { nar_size: 120, nar_hash: NarHash::from_bytes([1; 32]) };
        let written = write(&key, &nar);
        let expected_key = [&b"d"[..], &[6; 32], &[2, 1, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!((written.kind.0, &written.key[..]), (2, &expected_key[..]));
        let value = written.value.expect("a value");
        let expected =
            r#"{"v":1,"nar_size":120,"nar_sha256":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}"#;
        assert_eq!(String::from_utf8(value.to_vec()).expect("JSON"), expected);
        assert_eq!(decode(&value).expect("just written"), nar);
    }
}

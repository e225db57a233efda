//! Path infos as records; [`kinds`] has their form.

use bytes::Bytes;
use granary_castore::{Error, RecordWrite, Result};
use granary_nix_formats::{ContentAddress, NarHash, Signature, StorePath, StorePathHash};
use serde::{Deserialize, Serialize};

use crate::{
    NarFacts, PathInfo, kinds,
    node_record::NodeRecord,
    record_value::{self, base64},
};

#[derive(Serialize, Deserialize)]
struct PathInfoRecord {
    path: String,
    node: NodeRecord,
    references: Vec<String>,
    nar: Option<NarFactsRecord>,
}

#[derive(Serialize, Deserialize)]
struct NarFactsRecord {
    size: u64,
    #[serde(with = "base64")]
    sha256: [u8; 32],
    signatures: Vec<SignatureRecord>,
    reference_names: Vec<String>,
    deriver: Option<String>,
    ca: Option<String>,
}

/// In two fields, since the name of a signature from the wire may be any text.
#[derive(Serialize, Deserialize)]
struct SignatureRecord {
    name: String,
    #[serde(with = "base64")]
    data: [u8; 64],
}

/// The write that keeps `path_info`.
pub(crate) fn write(path_info: &PathInfo) -> RecordWrite {
    let record = PathInfoRecord {
        path: path_info.store_path.base_name(),
        node: NodeRecord::from(&path_info.node),
        references: path_info.references.iter().map(ToString::to_string).collect(),
        nar: path_info.nar.as_ref().map(NarFactsRecord::from),
    };
    RecordWrite {
        kind: kinds::PATH_INFO,
        key: Bytes::copy_from_slice(path_info.store_path.hash().as_bytes()),
        value: Some(record_value::encode(&record)),
    }
}

/// Reads what [`write`] wrote under `key`.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<PathInfo> {
    let what = || match StorePathHash::try_from(key) {
        Ok(hash) => format!("the path info of {hash}"),
        Err(_) => format!("the path info under the key {}", key.escape_ascii()),
    };
    let record: PathInfoRecord = record_value::decode(what, value)?;
    let path_info = record.check().ok_or_else(|| record_value::damaged(&what))?;
    if path_info.store_path.hash().as_bytes() == key {
        Ok(path_info)
    } else {
        Err(Error::corrupt(format!("{} is that of {}", what(), path_info.store_path)))
    }
}

impl PathInfoRecord {
    fn check(self) -> Option<PathInfo> {
        let references = self.references.iter().map(|text| StorePathHash::parse(text).ok());
        Some(PathInfo {
            store_path: StorePath::from_base_name(&self.path).ok()?,
            node: self.node.check()?,
            references: references.collect::<Option<_>>()?,
            nar: match self.nar {
                Some(nar) => Some(nar.check()?),
                None => None,
            },
        })
    }
}

impl From<&NarFacts> for NarFactsRecord {
    fn from(nar: &NarFacts) -> Self {
        let signatures = nar.signatures.iter().map(|signature| SignatureRecord {
            name: signature.name.clone(),
            data: signature.bytes,
        });
        Self {
            size: nar.nar_size,
            sha256: *nar.nar_hash.as_bytes(),
            signatures: signatures.collect(),
            reference_names: nar.reference_names.iter().map(StorePath::base_name).collect(),
            deriver: nar.deriver.as_ref().map(StorePath::base_name),
            ca: nar.ca.as_ref().map(ToString::to_string),
        }
    }
}

impl NarFactsRecord {
    fn check(self) -> Option<NarFacts> {
        let names = self.reference_names.iter().map(|name| StorePath::from_base_name(name).ok());
        let signatures = self
            .signatures
            .into_iter()
            .map(|SignatureRecord { name, data }| Signature { name, bytes: data });
        Some(NarFacts {
            nar_size: self.size,
            nar_hash: NarHash::from_bytes(self.sha256),
            signatures: signatures.collect(),
            reference_names: names.collect::<Option<_>>()?,
            deriver: match self.deriver {
                Some(name) => Some(StorePath::from_base_name(&name).ok()?),
                None => None,
            },
            ca: match self.ca {
                Some(text) => Some(ContentAddress::parse(&text).ok()?),
                None => None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use granary_castore::{BlobDigest, Node, SymlinkTarget};

    use super::*;

    fn path(byte: u8, name: &str) -> StorePath {
        StorePath::new(StorePathHash::from_bytes([byte; 20]), name).expect("a valid name")
    }

    fn full() -> PathInfo {
        PathInfo {
            store_path: path(1, "hello-2.12"),
            node: Node::File { digest: BlobDigest::of(b"x"), size_bytes: 1, executable: true },
            references: vec![*path(2, "glibc").hash(), *path(1, "hello-2.12").hash()],
            nar: Some(NarFacts {
                nar_size: 120,
                nar_hash: NarHash::from_bytes([9; 32]),
                signatures: vec![Signature { name: "odd: \n\"name".into(), bytes: [3; 64] }],
                reference_names: vec![path(2, "glibc"), path(1, "hello-2.12")],
                deriver: Some(path(4, "hello-2.12.drv")),
                ca: Some(ContentAddress::Text { digest: [5; 32] }),
            }),
        }
    }

    #[test]
    fn round_trips() {
        let target = SymlinkTarget::new(&b"\xff\xfe"[..]).expect("valid");
        let bare = PathInfo {
            store_path: path(7, "link"),
            node: Node::Symlink { target },
            references: Vec::new(),
            nar: None,
        };
        for path_info in [full(), bare] {
            let written = write(&path_info);
            let value = written.value.expect("a value");
            assert_eq!(decode(&written.key, &value).expect("just written"), path_info);
        }
    }

    /// The whole text: what is in stores must stay readable.
    #[test]
    fn golden_value() {
        let written = write(&full());
        assert_eq!(&written.key[..], [1; 20]);
        let value = written.value.expect("a value");
        let expected = concat!(
            r#"{"v":1,"path":"040h2081040h2081040h2081040h2081-hello-2.12","#,
            r#""node":{"file":{"digest":"OufYBfZ4mmQCrLcK1AlqhaVr9oBOryXASTrGl1SNMLU=","#,
            r#""size":1,"executable":true}},"#,
            r#""references":["081040h2081040h2081040h2081040h2","#,
            r#""040h2081040h2081040h2081040h2081"],"#,
            r#""nar":{"size":120,"sha256":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=","#,
            r#""signatures":[{"name":"odd: \n\"name","data":"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD"#,
            r#"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw=="}],"#,
            r#""reference_names":["081040h2081040h2081040h2081040h2-glibc","#,
            r#""040h2081040h2081040h2081040h2081-hello-2.12"],"#,
            r#""deriver":"0h2081040h2081040h2081040h208104-hello-2.12.drv","#,
            r#""ca":"text:sha256:01850l2ha1850l2ha1850l2ha1850l2ha1850l2ha1850l2ha185"}}"#,
        );
        assert_eq!(String::from_utf8(value.to_vec()).expect("JSON"), expected);
    }

    #[test]
    fn refuses_the_record_of_another_path() {
        let value = write(&full()).value.expect("a value");
        let error = decode(&[8; 20], &value).expect_err("another key");
        assert!(matches!(error, Error::Corrupt(_)), "{error}");
        assert!(matches!(decode(b"short", &value), Err(Error::Corrupt(_))));
    }
}

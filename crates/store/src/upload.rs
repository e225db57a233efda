//! NARs that Nix uploads, under file names. Narinfos come later and refer to them.

use bytes::Bytes;
use granary_castore::{Error, Node, RecordWrite, Result, WriteBatch};
use granary_nix_formats::NarHash;
use serde::{Deserialize, Serialize};

use crate::{
    NarDigest, Store, kinds,
    nar_digest_record::NarDigestRecord,
    node_record::NodeRecord,
    record_value::{self, base64},
    store::nar_digest_write,
    uses::unix_now_s,
};

/// How old the time of last use may be before it is written anew, in seconds.
pub const TOUCH_INTERVAL_S: u64 = 60 * 60;

/// How long a NAR is kept that was uploaded or asked for and that no path leads to, in seconds.
pub(crate) const UNCLAIMED_S: u64 = 24 * 60 * 60;

/// A NAR that was uploaded to `nar/<name>`, and what it was in that form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadedNar {
    /// Root of what was in it.
    pub node: Node,
    /// Size and hash of the NAR, uncompressed.
    pub nar: NarDigest,
    /// SHA-256 of the file as it was uploaded.
    pub file_hash: NarHash,
    /// Length of the file as it was uploaded, in bytes.
    pub file_size: u64,
    /// How the file was compressed, as a narinfo says it: `none`, `xz`, `zstd`, …
    pub compression: String,
    /// When it was uploaded or last asked for, in seconds since 1970.
    pub touched_unix_s: u64,
}

#[derive(Serialize, Deserialize)]
struct UploadedNarRecord {
    node: NodeRecord,
    nar: NarDigestRecord,
    #[serde(with = "base64")]
    file_sha256: [u8; 32],
    file_size: u64,
    compression: String,
    touched_unix_s: u64,
}

impl Store {
    /// Commits the contents of what was uploaded to `nar/<name>`, and remembers it and the NAR of
    /// its node with them. [`UploadedNar::touched_unix_s`] becomes now.
    ///
    /// The node must have been put in this batch, if it is no symlink, and the caller must
    /// have [held](granary_castore::Castore::hold) since before the batch began.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the name is empty or over 255 bytes; or if it could not be made
    /// durable.
    pub fn commit_uploaded_nar(
        &self,
        batch: Box<dyn WriteBatch>,
        name: &str,
        uploaded: &UploadedNar,
    ) -> Result<()> {
        self.commit_uploaded_nar_at(batch, name, uploaded, unix_now_s())
    }

    fn commit_uploaded_nar_at(
        &self,
        batch: Box<dyn WriteBatch>,
        name: &str,
        uploaded: &UploadedNar,
        now_s: u64,
    ) -> Result<()> {
        check_name(name)?;
        // Over all of the commit: of what the batch brings, the last frames and what waited for
        // them.
        let _writing = self.writing();
        let mut writes = vec![write(name, uploaded, now_s)];
        writes.extend(nar_digest_write(&uploaded.node, &uploaded.nar));
        self.records().commit_with_records(batch, writes)
    }

    /// What was uploaded to `nar/<name>`; `None` if nothing was.
    ///
    /// # Errors
    ///
    /// If what is stored is damaged, or the store cannot tell.
    pub fn uploaded_nar(&self, name: &str) -> Result<Option<UploadedNar>> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        let value = self.records().record(kinds::UPLOADED_NAR, name.as_bytes())?;
        value.map(|value| decode(name, &value)).transpose()
    }

    /// As [`uploaded_nar`](Self::uploaded_nar), if its contents are still there, and notes that
    /// it was asked for, so that they stay: at most once in [`TOUCH_INTERVAL_S`], so that asking does not cost a write each time.
    ///
    /// # Errors
    ///
    /// If what is stored is damaged, or the note could not be made durable.
    pub fn touch_uploaded_nar(&self, name: &str) -> Result<Option<UploadedNar>> {
        self.touch_uploaded_nar_at(name, unix_now_s())
    }

    fn touch_uploaded_nar_at(&self, name: &str, now_s: u64) -> Result<Option<UploadedNar>> {
        // IMPORTANT: before it is looked up, so that it cannot go in between.
        let _hold = self.castore().hold();
        let _writing = self.writing();
        let Some(mut uploaded) = self.uploaded_nar(name)? else { return Ok(None) };
        if !self.touch_node(&uploaded.node)? {
            return Ok(None);
        }
        if now_s.saturating_sub(uploaded.touched_unix_s) >= TOUCH_INTERVAL_S {
            self.records().write_records(vec![write(name, &uploaded, now_s)])?;
            uploaded.touched_unix_s = now_s;
        }
        Ok(Some(uploaded))
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > kinds::MAX_KEY_BYTES {
        return Err(Error::invalid(format!(
            "the file name of a NAR has 1 to {} bytes, this one {}",
            kinds::MAX_KEY_BYTES,
            name.len()
        )));
    }
    Ok(())
}

fn write(name: &str, uploaded: &UploadedNar, touched_unix_s: u64) -> RecordWrite {
    let record = UploadedNarRecord {
        node: NodeRecord::from(&uploaded.node),
        nar: NarDigestRecord::from(&uploaded.nar),
        file_sha256: *uploaded.file_hash.as_bytes(),
        file_size: uploaded.file_size,
        compression: uploaded.compression.clone(),
        touched_unix_s,
    };
    RecordWrite {
        kind: kinds::UPLOADED_NAR,
        key: Bytes::copy_from_slice(name.as_bytes()),
        value: Some(record_value::encode(&record)),
    }
}

fn decode(name: &str, value: &[u8]) -> Result<UploadedNar> {
    let what = || format!("the record of the uploaded NAR {name:?}");
    let record: UploadedNarRecord = record_value::decode(what, value)?;
    Ok(UploadedNar {
        node: record.node.check().ok_or_else(|| record_value::damaged(&what))?,
        nar: record.nar.into(),
        file_hash: NarHash::from_bytes(record.file_sha256),
        file_size: record.file_size,
        compression: record.compression,
        touched_unix_s: record.touched_unix_s,
    })
}

/// A record as it is found.
pub(crate) fn decode_record(key: &[u8], value: &[u8]) -> Result<UploadedNar> {
    decode(&String::from_utf8_lossy(key), value)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use granary_castore::{BlobDigest, MemoryStore, RecordStore};

    use super::*;
    use crate::{PathInfoService, StoreOptions};

    fn uploaded() -> UploadedNar {
        UploadedNar {
            node: Node::File { digest: BlobDigest::of(b"x"), size_bytes: 1, executable: false },
            nar: NarDigest { nar_size: 112, nar_hash: NarHash::from_bytes([1; 32]) },
            file_hash: NarHash::from_bytes([2; 32]),
            file_size: 99,
            compression: "xz".to_owned(),
            touched_unix_s: 0,
        }
    }

    fn store() -> (Store, MemoryStore) {
        let memory = MemoryStore::default();
        let store =
            Store::new(Arc::new(memory.clone()), Arc::new(memory.clone()), StoreOptions::default());
        (store, memory)
    }

    #[test]
    fn is_remembered_with_its_nar() {
        let (store, _) = store();
        assert_eq!(store.uploaded_nar("a.nar.xz").expect("memory"), None);
        store
            .commit_uploaded_nar(store.castore().batch().expect("memory"), "a.nar.xz", &uploaded())
            .expect("memory");
        let found = store.uploaded_nar("a.nar.xz").expect("memory").expect("it was put");
        assert!(found.touched_unix_s > 1_600_000_000, "it says when it came");
        assert_eq!(UploadedNar { touched_unix_s: 0, ..found }, uploaded());
        let nar = store.calculate_nar(&uploaded().node).expect("memory");
        assert_eq!(nar, Some(uploaded().nar), "known without reading the contents");
        for name in [String::new(), "n".repeat(256)] {
            assert!(matches!(
                store.commit_uploaded_nar(
                    store.castore().batch().expect("memory"),
                    &name,
                    &uploaded()
                ),
                Err(Error::Invalid(_))
            ));
            assert_eq!(store.uploaded_nar(&name).expect("memory"), None);
        }
    }

    #[test]
    fn is_touched_at_most_once_an_hour() {
        let (store, memory) = store();
        let stored =
            || memory.record(kinds::UPLOADED_NAR, b"a.nar").expect("memory").expect("it was put");
        store
            .commit_uploaded_nar_at(
                store.castore().batch().expect("memory"),
                "a.nar",
                &uploaded(),
                1_000,
            )
            .expect("memory");
        let gone = store.touch_uploaded_nar_at("a.nar", 1_000).expect("memory");
        assert_eq!(gone, None, "its contents are not there");
        let mut batch = store.castore().batch().expect("memory");
        batch.put_blob(Bytes::from_static(b"x")).expect("memory");
        batch.commit().expect("memory");
        let first = stored();
        for now_s in [0, 1_000, 1_000 + TOUCH_INTERVAL_S - 1] {
            let found = store.touch_uploaded_nar_at("a.nar", now_s).expect("memory");
            assert_eq!(found.map(|found| found.touched_unix_s), Some(1_000));
            assert_eq!(stored(), first);
        }
        let later = 1_000 + TOUCH_INTERVAL_S;
        let found = store.touch_uploaded_nar_at("a.nar", later).expect("memory");
        assert_eq!(found.map(|found| found.touched_unix_s), Some(later));
        assert_eq!(decode("a.nar", &stored()).expect("just written").touched_unix_s, later);
        assert_eq!(store.touch_uploaded_nar_at("b.nar", later).expect("memory"), None);
    }

    /// The whole text: what is in stores must stay readable.
    #[test]
    fn golden_value() {
        let value = write("a", &uploaded(), 7).value.expect("a value");
        let expected = concat!(
            r#"{"v":1,"node":{"file":{"digest":"OufYBfZ4mmQCrLcK1AlqhaVr9oBOryXASTrGl1SNMLU=","#,
            r#""size":1,"executable":false}},"nar":{"nar_size":112,"#,
            r#""nar_sha256":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="},"#,
            r#""file_sha256":"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=","#,
            r#""file_size":99,"compression":"xz","touched_unix_s":7}"#,
        );
        assert_eq!(String::from_utf8(value.to_vec()).expect("JSON"), expected);
    }
}

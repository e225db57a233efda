//! Documents: small bodies that Nix keeps beside the paths, under names of their own.

use bytes::{Bytes, BytesMut};
use granary_castore::{BlobDigest, Error, RecordWrite, Result, Root, Touch};
use serde::{Deserialize, Serialize};

use crate::{
    Store, kinds,
    record_value::{self, base64},
    uses::unix_now_s,
};

/// What sort of document it is. Names are unique within a sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentKind {
    /// A build log, `log/<derivation>`.
    Log,
    /// An index of debug information, `debuginfo/<build id>`.
    DebugInfo,
    /// A realisation, `realisations/<id>.doi` or one of the newer build traces.
    Realisation,
    /// A listing that was uploaded, `<hash>.ls`.
    Listing,
}

impl DocumentKind {
    /// The byte in front of the name, part of the store's format.
    const fn tag(self) -> u8 {
        match self {
            Self::Log => b'l',
            Self::DebugInfo => b'd',
            Self::Realisation => b'r',
            Self::Listing => b's',
        }
    }
}

/// Where the body of a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The blob with the body.
    pub digest: BlobDigest,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Its media type, as whoever uploaded it said.
    pub content_type: String,
}

#[derive(Serialize, Deserialize)]
struct DocumentRecord {
    #[serde(with = "base64")]
    digest: [u8; 32],
    size: u64,
    content_type: String,
    #[serde(default)]
    put_unix_s: u64,
}

/// A document, and when it was put.
pub(crate) struct StoredDocument {
    pub(crate) document: Document,
    /// In seconds since 1970.
    pub(crate) put_unix_s: u64,
}

impl Store {
    /// Keeps a document, whose body is committed, in the place of an older one.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the name is empty or over 254 bytes, or the body is not stored;
    /// or if it could not be made durable.
    pub fn put_document(&self, kind: DocumentKind, name: &[u8], document: &Document) -> Result<()> {
        let key = key(kind, name)?;
        let _hold = self.castore().hold();
        let _writing = self.writing();
        self.castore().touch(&Root::Blob(document.digest), Touch::Hold)?;
        let stored = self.blobs().stat(&document.digest)?;
        if stored.map(|stat| stat.size_bytes) != Some(document.size_bytes) {
            return Err(Error::invalid(format!(
                "blob {} with the {} bytes of a document is not stored",
                document.digest, document.size_bytes
            )));
        }
        let value = record_value::encode(&DocumentRecord {
            digest: *document.digest.as_bytes(),
            size: document.size_bytes,
            content_type: document.content_type.clone(),
            put_unix_s: unix_now_s(),
        });
        self.records().write_records(vec![RecordWrite {
            kind: kinds::DOCUMENT,
            key,
            value: Some(value),
        }])
    }

    /// The document of that name; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If what is stored is damaged, or the store cannot tell.
    pub fn document(&self, kind: DocumentKind, name: &[u8]) -> Result<Option<Document>> {
        let Ok(key) = key(kind, name) else { return Ok(None) };
        let Some(value) = self.records().record(kinds::DOCUMENT, &key)? else { return Ok(None) };
        decode(&key, &value).map(|stored| Some(stored.document))
    }
}

/// A record as it is found.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<StoredDocument> {
    let what = || format!("the record of {}", describe(key));
    let record: DocumentRecord = record_value::decode(what, value)?;
    let document = Document {
        digest: BlobDigest::from_bytes(record.digest),
        size_bytes: record.size,
        content_type: record.content_type,
    };
    Ok(StoredDocument { document, put_unix_s: record.put_unix_s })
}

/// Names the document under `key`.
pub(crate) fn describe(key: &[u8]) -> String {
    format!("document \"{}\"", key.get(1..).unwrap_or_default().escape_ascii())
}

/// Sort and name that stand in a key.
pub(crate) fn split_key(key: &[u8]) -> Option<(DocumentKind, &[u8])> {
    let (tag, name) = key.split_first()?;
    let kinds = [
        DocumentKind::Log,
        DocumentKind::DebugInfo,
        DocumentKind::Realisation,
        DocumentKind::Listing,
    ];
    kinds.into_iter().find(|kind| kind.tag() == *tag).map(|kind| (kind, name))
}

fn key(kind: DocumentKind, name: &[u8]) -> Result<Bytes> {
    let max_bytes = kinds::MAX_KEY_BYTES - 1;
    if name.is_empty() || name.len() > max_bytes {
        return Err(Error::invalid(format!(
            "the name of a document has 1 to {max_bytes} bytes, this one {}",
            name.len()
        )));
    }
    let mut key = BytesMut::with_capacity(1 + name.len());
    key.extend_from_slice(&[kind.tag()]);
    key.extend_from_slice(name);
    Ok(key.freeze())
}

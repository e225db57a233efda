//! Pins: what is kept because somebody said so.

use bytes::Bytes;
use granary_castore::{BlobDigest, DirectoryDigest, Error, RecordWrite, Result, Root, Touch};
use granary_nix_formats::StorePath;
use serde::{Deserialize, Serialize};

use crate::{
    PathInfoService as _, Store, kinds,
    record_value::{self, base64},
    uses::unix_now_s,
};

/// Longest name of a pin, in bytes.
pub const MAX_PIN_NAME_BYTES: usize = kinds::MAX_KEY_BYTES;

/// Pins that are read at a time.
const PAGE: usize = 1_000;

/// Something that is kept under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Its name: 1 to [`MAX_PIN_NAME_BYTES`] bytes without control characters.
    pub name: String,
    /// What is kept.
    pub target: PinTarget,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: u64,
    /// When it ends, in seconds since 1970, if it does.
    pub expires_unix_s: Option<u64>,
}

/// What a pin keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinTarget {
    /// A store path and all that it refers to.
    Path(StorePath),
    /// A directory or a blob that no path info leads to.
    Root(Root),
}

impl Pin {
    /// Whether it keeps anything any more.
    pub fn is_expired(&self, now_unix_s: u64) -> bool {
        self.expires_unix_s.is_some_and(|expires| expires <= now_unix_s)
    }
}

#[derive(Serialize, Deserialize)]
struct PinRecord {
    target: TargetRecord,
    created_unix_s: u64,
    expires_unix_s: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TargetRecord {
    Path(String),
    Blob(#[serde(with = "base64")] [u8; 32]),
    Directory(#[serde(with = "base64")] [u8; 32]),
}

pub(super) fn add(store: &Store, pin: &Pin) -> Result<()> {
    check_name(&pin.name)?;
    // IMPORTANT: before it is looked at, so that it cannot go in between.
    let _hold = store.castore().hold();
    let _writing = store.writing();
    let target = match &pin.target {
        PinTarget::Path(path) => {
            let is_there = store.uses().note(path.hash());
            let found = if is_there { store.path_info(path.hash())? } else { None };
            let Some(found) = found.filter(|found| found.store_path == *path) else {
                return Err(Error::invalid(format!(
                    "{path} cannot be pinned: it is not in the store"
                )));
            };
            store.touch_node(&found.node)?;
            TargetRecord::Path(path.base_name())
        }
        PinTarget::Root(root) => {
            if !store.castore().touch(root, Touch::Hold)? {
                return Err(Error::invalid(format!(
                    "{root} cannot be pinned: it is not in the store"
                )));
            }
            match root {
                Root::Blob(digest) => TargetRecord::Blob(*digest.as_bytes()),
                Root::Directory(digest) => TargetRecord::Directory(*digest.as_bytes()),
            }
        }
    };
    let record = PinRecord {
        target,
        created_unix_s: pin.created_unix_s,
        expires_unix_s: pin.expires_unix_s,
    };
    store.records().write_records(vec![RecordWrite {
        kind: kinds::PIN,
        key: Bytes::copy_from_slice(pin.name.as_bytes()),
        value: Some(record_value::encode(&record)),
    }])
}

pub(super) fn remove(store: &Store, name: &str) -> Result<bool> {
    if check_name(name).is_err() || store.records().record(kinds::PIN, name.as_bytes())?.is_none() {
        return Ok(false);
    }
    store.records().write_records(vec![removal(name)])?;
    Ok(true)
}

/// The write that removes a pin.
pub(super) fn removal(name: &str) -> RecordWrite {
    let key = Bytes::copy_from_slice(name.as_bytes());
    RecordWrite { kind: kinds::PIN, key, value: None }
}

pub(super) fn list(store: &Store) -> Result<Vec<Pin>> {
    let mut pins = Vec::new();
    let mut after: Option<Bytes> = None;
    loop {
        let page = store.records().scan_records(kinds::PIN, after.as_deref(), PAGE)?;
        for (key, value) in &page {
            pins.push(decode(key, value)?);
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => after = Some(key.clone()),
            _ => return Ok(pins),
        }
    }
}

/// Pins that have not expired.
pub(super) fn valid(store: &Store) -> Result<Vec<Pin>> {
    let now = unix_now_s();
    let mut pins = list(store)?;
    pins.retain(|pin| !pin.is_expired(now));
    Ok(pins)
}

fn decode(key: &[u8], value: &[u8]) -> Result<Pin> {
    let what = || format!("the record of pin \"{}\"", key.escape_ascii());
    let record: PinRecord = record_value::decode(what, value)?;
    let target = match record.target {
        TargetRecord::Path(base_name) => {
            let path = StorePath::from_base_name(&base_name)
                .map_err(|problem| record_value::damaged(&what).because(problem))?;
            PinTarget::Path(path)
        }
        TargetRecord::Blob(digest) => PinTarget::Root(Root::Blob(BlobDigest::from_bytes(digest))),
        TargetRecord::Directory(digest) => {
            PinTarget::Root(Root::Directory(DirectoryDigest::from_bytes(digest)))
        }
    };
    Ok(Pin {
        name: String::from_utf8(key.to_vec())
            .map_err(|problem| record_value::damaged(&what).because(problem))?,
        target,
        created_unix_s: record.created_unix_s,
        expires_unix_s: record.expires_unix_s,
    })
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_PIN_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "{name:?} is no name for a pin: it has 1 to {MAX_PIN_NAME_BYTES} bytes without \
             control characters"
        )));
    }
    Ok(())
}

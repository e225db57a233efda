//! Going through everything that the index knows.

use super::{
    Index, IndexError,
    entry::{self, Located},
};
use crate::format::{BlobRecord, Malformed, ObjectKind, ValueRecord};

/// How many entries are looked at together.
const PAGE_ENTRIES: usize = 1_024;

/// An object, and where the index says that it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexedObject {
    /// As it was asked for: a chunk, though it may be patched.
    pub(crate) kind: ObjectKind,
    pub(crate) digest: [u8; 32],
    pub(crate) located: Located,
}

/// Some entries, and where those behind them begin, if there may be any.
pub(crate) type Page<T> = (Vec<T>, Option<Vec<u8>>);

impl Index {
    /// Some objects of a kind from `start` on, or from the first.
    pub(crate) fn scan_objects(
        &self,
        kind: ObjectKind,
        start: Option<&[u8]>,
    ) -> Result<Page<IndexedObject>, IndexError> {
        let prefix = &entry::object_key(kind, &[0; 32])[..1];
        let (page, next) = self.page(start.unwrap_or(prefix), prefix, PAGE_ENTRIES)?;
        let objects = page.iter().map(|(key, value)| {
            Ok(IndexedObject { kind, digest: digest(key)?, located: Located::decode(value)? })
        });
        Ok((objects.collect::<Result<_, IndexError>>()?, next))
    }

    /// Some blobs of several chunks from `start` on, or from the first.
    pub(crate) fn scan_blobs(&self, start: Option<&[u8]>) -> Result<Page<BlobRecord>, IndexError> {
        let prefix = &entry::blob_key(&[0; 32])[..1];
        let (page, next) = self.page(start.unwrap_or(prefix), prefix, PAGE_ENTRIES)?;
        let blobs = page.iter().map(|(key, value)| Ok(entry::decode_blob(&digest(key)?, value)?.1));
        Ok((blobs.collect::<Result<_, IndexError>>()?, next))
    }
}

impl Index {
    /// Some values, or their tombstones, from `start` on, or from the first.
    pub(crate) fn scan_placed_values(
        &self,
        start: Option<&[u8]>,
    ) -> Result<Page<ValueRecord>, IndexError> {
        let prefix = &entry::value_key(0, &[])[..1];
        let (page, next) = self.page(start.unwrap_or(prefix), prefix, PAGE_ENTRIES)?;
        let values = page.iter().map(|(key, value)| {
            let (place, value) = entry::decode_value(value)?;
            let [_, kind, key @ ..] = &key[..] else {
                return Err(Malformed("a key of the index is cut off").into());
            };
            Ok(ValueRecord { place, kind: *kind, key: key.to_vec(), value })
        });
        Ok((values.collect::<Result<_, IndexError>>()?, next))
    }
}

fn digest(key: &[u8]) -> Result<[u8; 32], Malformed> {
    let digest = key.get(1..).and_then(|digest| digest.try_into().ok());
    digest.ok_or(Malformed("a key of the index has the wrong length"))
}

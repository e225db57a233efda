//! Records: small values under keys, whose meaning is not this crate's business.

use bytes::Bytes;

use crate::{batch::WriteBatch, error::Result};

/// A namespace of records. Which number means what is fixed by the crate that writes the
/// records, and part of the store's format: a number is never used for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKind(pub u8);

/// One change to the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordWrite {
    /// Namespace of the key.
    pub kind: RecordKind,
    /// The key: at most 255 bytes.
    pub key: Bytes,
    /// The new value, or `None` to delete the record.
    pub value: Option<Bytes>,
}

/// Keyed records beside the blobs and directories: path infos, NAR hashes and the like.
/// The newest value of a key wins.
pub trait RecordStore: Send + Sync {
    /// The newest value of `key`; `None` if there is none or it was deleted.
    ///
    /// # Errors
    ///
    /// If the store cannot tell.
    fn record(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Bytes>>;

    /// Makes all of `writes` durable and visible, together, and returns when they are. Of
    /// several writes to one key the last wins.
    ///
    /// # Errors
    ///
    /// If they could not be made durable.
    fn write_records(&self, writes: Vec<RecordWrite>) -> Result<()>;

    /// Commits `batch`, and makes `writes` durable and visible, which are never without what is in
    /// the batch. A store that has both may spare itself the second wait for the disk.
    ///
    /// # Errors
    ///
    /// If the batch or the records could not be made durable.
    fn commit_with_records(
        &self,
        batch: Box<dyn WriteBatch>,
        writes: Vec<RecordWrite>,
    ) -> Result<()> {
        batch.commit()?;
        self.write_records(writes)
    }

    /// Up to `limit` records of a kind in key order, beginning behind the key `after`, or
    /// with the first. Fewer than `limit` means that there are no more.
    ///
    /// # Errors
    ///
    /// If the store cannot tell.
    fn scan_records(
        &self,
        kind: RecordKind,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>>;
}

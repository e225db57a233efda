//! Readers of blobs.

use std::sync::Arc;

use bytes::Bytes;
use granary_castore::{BlobDigest, BlobReader, Error, Result};

use crate::{
    engine::Inner,
    format::{BlobEntry, BlobRecord, ObjectKind},
};

/// Reads a blob that is one chunk.
pub(crate) struct ChunkReader {
    pub(crate) engine: Arc<Inner>,
    pub(crate) digest: [u8; 32],
    pub(crate) size_bytes: u64,
    /// The chunk, once it was read.
    pub(crate) chunk: Option<Bytes>,
}

impl BlobReader for ChunkReader {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&mut self, offset: u64, max_bytes: usize) -> Result<Bytes> {
        let chunk = match &self.chunk {
            Some(chunk) => chunk,
            None => self.chunk.insert(self.engine.chunk(&self.digest)?),
        };
        Ok(window(chunk, offset, max_bytes))
    }
}

/// Up to `max_bytes` of `chunk` from `offset` on.
fn window(chunk: &Bytes, offset: u64, max_bytes: usize) -> Bytes {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(chunk.len());
    let end = start.saturating_add(max_bytes).min(chunk.len());
    chunk.slice(start..end)
}

/// Entries of a blob or of a list, with where each begins in the blob.
struct Entries {
    starts: Vec<u64>,
    entries: Vec<BlobEntry>,
}

impl Entries {
    fn new(entries: Vec<BlobEntry>, first_start: u64) -> Self {
        let mut starts = Vec::with_capacity(entries.len());
        let mut start = first_start;
        for entry in &entries {
            starts.push(start);
            start = start.saturating_add(entry.size_bytes);
        }
        Self { starts, entries }
    }

    /// The entry that holds the byte at `offset`, and where it begins.
    fn at(&self, offset: u64) -> Option<(u64, BlobEntry)> {
        let position = self.starts.partition_point(|start| *start <= offset).checked_sub(1)?;
        let (start, entry) = (self.starts[position], self.entries[position]);
        (offset - start < entry.size_bytes).then_some((start, entry))
    }
}

/// Reads a blob of several chunks. Holds one chunk and one list of chunks at a time.
pub(crate) struct DividedReader {
    engine: Arc<Inner>,
    digest: [u8; 32],
    size_bytes: u64,
    lists: bool,
    entries: Entries,
    /// The last list that was read, and where it begins.
    list: Option<(u64, Entries)>,
    /// The last chunk that was read, and where it begins.
    chunk: Option<(u64, Bytes)>,
}

impl DividedReader {
    pub(crate) fn new(engine: Arc<Inner>, record: BlobRecord) -> Result<Self> {
        let size_bytes = blob_len(&record)?;
        let BlobRecord { digest, lists, entries } = record;
        let entries = Entries::new(entries, 0);
        Ok(Self { engine, digest, size_bytes, lists, entries, list: None, chunk: None })
    }

    fn chunk_at(&mut self, offset: u64) -> Result<(u64, Bytes)> {
        let missing = |digest: &[u8; 32]| {
            let digest = BlobDigest::from_bytes(*digest);
            Error::corrupt(format!("blob {digest}: its list of chunks has a hole at {offset}"))
        };
        let (mut start, mut entry) =
            self.entries.at(offset).ok_or_else(|| missing(&self.digest))?;
        if self.lists {
            if self.list.as_ref().is_none_or(|(list_start, _)| *list_start != start) {
                let list = list_entries(&self.engine, &entry.digest)?;
                self.list = Some((start, Entries::new(list, start)));
            }
            let list = self.list.as_ref().and_then(|(_, list)| list.at(offset));
            (start, entry) = list.ok_or_else(|| missing(&self.digest))?;
        }
        let chunk = self.engine.chunk(&entry.digest)?;
        if chunk.len() as u64 == entry.size_bytes {
            Ok((start, chunk))
        } else {
            Err(missing(&self.digest))
        }
    }
}

impl BlobReader for DividedReader {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&mut self, offset: u64, max_bytes: usize) -> Result<Bytes> {
        if offset >= self.size_bytes {
            return Ok(Bytes::new());
        }
        let (start, chunk) = match &self.chunk {
            Some((start, chunk)) if offset >= *start && offset - start < chunk.len() as u64 => {
                (*start, chunk)
            }
            _ => {
                let read = self.chunk_at(offset)?;
                let (start, chunk) = self.chunk.insert(read);
                (*start, &*chunk)
            }
        };
        Ok(window(chunk, offset - start, max_bytes))
    }
}

/// Length of a blob by its record.
pub(crate) fn blob_len(record: &BlobRecord) -> Result<u64> {
    record.size_bytes().ok_or_else(|| {
        let digest = BlobDigest::from_bytes(record.digest);
        Error::corrupt(format!("blob {digest}: its chunks are longer than a blob can be"))
    })
}

/// The entries of a list of chunks.
pub(crate) fn list_entries(engine: &Inner, digest: &[u8; 32]) -> Result<Vec<BlobEntry>> {
    let digest_text = BlobDigest::from_bytes(*digest);
    let bytes = engine
        .object(ObjectKind::ChunkList, digest)?
        .ok_or_else(|| Error::corrupt(format!("chunk list {digest_text} is missing")))?;
    BlobEntry::decode_all(&bytes).map_err(|problem| {
        Error::corrupt(format!("chunk list {digest_text} is malformed")).because(problem)
    })
}

impl Inner {
    /// The bytes of a chunk that something refers to.
    pub(crate) fn chunk(&self, digest: &[u8; 32]) -> Result<Bytes> {
        self.object(ObjectKind::Chunk, digest)?.ok_or_else(|| {
            let digest = BlobDigest::from_bytes(*digest);
            let error = Error::corrupt(format!("chunk {digest} is missing"));
            self.note_damage(&error);
            error
        })
    }
}

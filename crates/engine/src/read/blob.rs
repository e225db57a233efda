//! Readers of blobs.

use std::sync::Arc;

use bytes::Bytes;
use granary_castore::{BlobDigest, BlobExtent, BlobReader, Error, ExtentAt, NextBlob, Result};

use super::extent::{FrameExtent, MAX_EXTENT_BYTES, PatchedExtent};
use crate::{
    engine::Inner,
    format::{BlobEntry, BlobRecord, ObjectKind},
    index::Located,
};

/// Reads a blob that is one chunk.
pub(crate) struct ChunkReader {
    engine: Arc<Inner>,
    digest: [u8; 32],
    located: Located,
    size_bytes: u64,
    /// How many collections had ended when it was looked up.
    ended: u64,
    /// The chunk, once it was read.
    chunk: Option<Bytes>,
}

impl ChunkReader {
    pub(crate) fn new(
        engine: Arc<Inner>,
        digest: [u8; 32],
        located: Located,
        ended: u64,
    ) -> Result<Self> {
        let size_bytes = engine.chunk_len(&digest, &located)?;
        Ok(Self { engine, digest, located, size_bytes, ended, chunk: None })
    }

    /// The extent of the chunk and what lies behind it.
    fn extent(&self, behind: &mut dyn Iterator<Item = NextBlob>) -> Result<Box<dyn BlobExtent>> {
        let (engine, digest) = (Arc::clone(&self.engine), self.digest);
        Ok(match self.located {
            Located::Frame(location) => {
                let mut extent = FrameExtent::new(engine, digest, location, self.ended);
                self.engine.extend(&mut extent, behind)?;
                Box::new(extent)
            }
            Located::Patched(patches) => {
                let (size_bytes, ended) = (self.size_bytes, self.ended);
                Box::new(PatchedExtent::new(engine, digest, size_bytes, patches, ended))
            }
        })
    }
}

impl BlobReader for ChunkReader {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&mut self, offset: u64, max_bytes: usize) -> Result<Bytes> {
        let chunk = match &self.chunk {
            Some(chunk) => chunk,
            None => self.chunk.insert(self.extent(&mut std::iter::empty())?.read()?),
        };
        Ok(window(chunk, offset, max_bytes))
    }

    fn extent_at(
        &mut self,
        offset: u64,
        behind: &mut dyn Iterator<Item = NextBlob>,
    ) -> Result<Option<ExtentAt>> {
        if offset >= self.size_bytes {
            return Ok(None);
        }
        Ok(Some(ExtentAt { start: 0, extent: self.extent(behind)? }))
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

    /// Position of the entry that holds the byte at `offset`.
    fn position(&self, offset: u64) -> Option<usize> {
        let position = self.starts.partition_point(|start| *start <= offset).checked_sub(1)?;
        let (start, entry) = (self.starts[position], self.entries[position]);
        (offset - start < entry.size_bytes).then_some(position)
    }
}

/// Reads a blob of several chunks. Holds one extent and one list of chunks at a time.
pub(crate) struct DividedReader {
    engine: Arc<Inner>,
    digest: [u8; 32],
    size_bytes: u64,
    lists: bool,
    /// How many collections had ended when it was looked up.
    ended: u64,
    entries: Entries,
    /// The last list that was read, and where it begins.
    list: Option<(u64, Entries)>,
    /// The extent that was read last, and where it begins.
    current: Option<(u64, Bytes)>,
    /// The chunk that was looked up last, which may be the first of the next extent.
    last_located: Option<([u8; 32], Located)>,
}

impl DividedReader {
    pub(crate) fn new(engine: Arc<Inner>, record: BlobRecord, ended: u64) -> Result<Self> {
        let size_bytes = blob_len(&record)?;
        let BlobRecord { digest, lists, entries } = record;
        let entries = Entries::new(entries, 0);
        Ok(Self {
            engine,
            digest,
            size_bytes,
            lists,
            ended,
            entries,
            list: None,
            current: None,
            last_located: None,
        })
    }

    fn hole(&self, offset: u64) -> Error {
        let digest = BlobDigest::from_bytes(self.digest);
        Error::corrupt(format!("blob {digest}: its list of chunks has a hole at {offset}"))
    }

    fn locate(&mut self, digest: &[u8; 32]) -> Result<Located> {
        if let Some((last, located)) = &self.last_located
            && last == digest
        {
            return Ok(*located);
        }
        let located = self.engine.chunk_location(digest, self.ended)?;
        self.last_located = Some((*digest, located));
        Ok(located)
    }

    /// Reads the list that holds `offset`, if the blob has lists.
    fn load_list(&mut self, offset: u64) -> Result<()> {
        if !self.lists {
            return Ok(());
        }
        let position = self.entries.position(offset).ok_or_else(|| self.hole(offset))?;
        let start = self.entries.starts[position];
        if self.list.as_ref().is_none_or(|(list_start, _)| *list_start != start) {
            let BlobEntry { digest, size_bytes } = self.entries.entries[position];
            let list = list_entries(&self.engine, &digest, self.ended)?;
            let sum = list.iter().try_fold(0_u64, |sum, entry| sum.checked_add(entry.size_bytes));
            if sum != Some(size_bytes) {
                return Err(self.hole(offset));
            }
            self.list = Some((start, Entries::new(list, start)));
        }
        Ok(())
    }

    /// The entries of chunks: those of the list that was read last, if the blob has lists.
    fn chunks(&self) -> &Entries {
        match &self.list {
            Some((_, list)) if self.lists => list,
            _ => &self.entries,
        }
    }

    /// The chunk that holds `offset`, if it is among those.
    fn entry_at(&self, offset: u64) -> Option<BlobEntry> {
        let entries = self.chunks();
        entries.position(offset).map(|position| entries.entries[position])
    }

    fn entry(&self, offset: u64, distance: isize) -> Result<Option<(u64, BlobEntry)>> {
        let entries = self.chunks();
        let position = entries.position(offset).ok_or_else(|| self.hole(offset))?;
        let found = position.checked_add_signed(distance);
        Ok(found
            .and_then(|found| Some((*entries.starts.get(found)?, *entries.entries.get(found)?))))
    }

    /// Where the extent begins that holds `offset`: as far back as chunks lie in the same
    /// frame, one behind the other.
    fn extent_start(&mut self, offset: u64) -> Result<u64> {
        let Some((mut start, entry)) = self.entry(offset, 0)? else { return Ok(offset) };
        let Located::Frame(mut first) = self.locate(&entry.digest)? else { return Ok(start) };
        let end = start + entry.size_bytes;
        while first.offset > 0 {
            let Some((before, entry)) = self.entry(start, -1)? else { break };
            let Located::Frame(location) = self.engine.chunk_location(&entry.digest, self.ended)?
            else {
                break;
            };
            let is_before = (location.pack, location.frame_offset)
                == (first.pack, first.frame_offset)
                && before < start
                && u64::from(location.len) == entry.size_bytes
                && location.offset.checked_add(location.len) == Some(first.offset);
            if !is_before || end - before > MAX_EXTENT_BYTES {
                break;
            }
            (start, first) = (before, location);
        }
        Ok(start)
    }
}

impl BlobReader for DividedReader {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&mut self, offset: u64, max_bytes: usize) -> Result<Bytes> {
        if let Some((start, bytes)) = &self.current
            && offset >= *start
            && offset - start < bytes.len() as u64
        {
            return Ok(window(bytes, offset - start, max_bytes));
        }
        let Some(ExtentAt { start, extent }) = self.extent_at(offset, &mut std::iter::empty())?
        else {
            return Ok(Bytes::new());
        };
        let bytes = extent.read()?;
        let read = window(&bytes, offset - start, max_bytes);
        self.current = Some((start, bytes));
        Ok(read)
    }

    fn extent_at(
        &mut self,
        offset: u64,
        behind: &mut dyn Iterator<Item = NextBlob>,
    ) -> Result<Option<ExtentAt>> {
        if offset >= self.size_bytes {
            return Ok(None);
        }
        self.load_list(offset)?;
        let start = self.extent_start(offset)?;
        let (_, first) = self.entry(start, 0)?.ok_or_else(|| self.hole(offset))?;
        let location = match self.locate(&first.digest)? {
            Located::Frame(location) => location,
            Located::Patched(patches) => {
                let (engine, ended) = (Arc::clone(&self.engine), self.ended);
                let BlobEntry { digest, size_bytes } = first;
                let extent = PatchedExtent::new(engine, digest, size_bytes, patches, ended);
                return Ok(Some(ExtentAt { start, extent: Box::new(extent) }));
            }
        };
        if u64::from(location.len) != first.size_bytes {
            return Err(self.hole(offset));
        }
        let engine = Arc::clone(&self.engine);
        let mut extent = FrameExtent::new(engine, first.digest, location, self.ended);
        let mut end = start + first.size_bytes;
        while end < self.size_bytes {
            // With the list of chunks, the extent ends too.
            let Some(BlobEntry { digest, size_bytes }) = self.entry_at(end) else { break };
            let located = self.locate(&digest)?;
            if !extent.add(&Bytes::new(), digest, size_bytes, located) {
                break;
            }
            end += size_bytes;
        }
        if end <= offset {
            // A chunk before it has another length than the list says.
            return Err(self.hole(offset));
        }
        if end == self.size_bytes {
            self.engine.extend(&mut extent, behind)?;
        }
        Ok(Some(ExtentAt { start, extent: Box::new(extent) }))
    }
}

impl Inner {
    /// Adds to an extent the blobs that are read behind it, as far as they lie behind it in its
    /// frame.
    fn extend(
        &self,
        extent: &mut FrameExtent,
        behind: &mut dyn Iterator<Item = NextBlob>,
    ) -> Result<()> {
        for next in behind {
            if !self.add_blob(extent, &next)? {
                break;
            }
        }
        Ok(())
    }

    /// Adds the chunks of a blob to an extent; false if not all of them lie in its frame.
    fn add_blob(&self, extent: &mut FrameExtent, next: &NextBlob) -> Result<bool> {
        let NextBlob { literals, digest, size_bytes } = next;
        if *size_bytes <= self.chunker.max_bytes() as u64
            && let Some(located) = self.index.located(ObjectKind::Chunk, digest.as_bytes())?
        {
            return Ok(extent.add(literals, *digest.as_bytes(), *size_bytes, located));
        }
        // What is missing, or has another length, is told of when it is opened.
        let Some(record) = self.index.blob(digest.as_bytes())? else { return Ok(false) };
        if record.lists || record.size_bytes() != Some(*size_bytes) {
            return Ok(false);
        }
        let mut literals = literals.clone();
        for BlobEntry { digest, size_bytes } in record.entries {
            let Some(located) = self.index.located(ObjectKind::Chunk, &digest)? else {
                return Ok(false);
            };
            if !extent.add(&std::mem::take(&mut literals), digest, size_bytes, located) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Length of a blob by its record. Never 0: of such a blob nothing would be read, and nothing
/// checked, and an empty one is a chunk.
pub(crate) fn blob_len(record: &BlobRecord) -> Result<u64> {
    let damaged = |problem| {
        let digest = BlobDigest::from_bytes(record.digest);
        Error::corrupt(format!("blob {digest}: its chunks {problem}"))
    };
    match record.size_bytes() {
        Some(0) => Err(damaged("have no bytes")),
        Some(size_bytes) => Ok(size_bytes),
        None => Err(damaged("are longer than a blob can be")),
    }
}

/// The entries of a list of chunks that something refers to, which was looked up when
/// [`Guard::ended`](crate::gc::Guard::ended) was `ended`.
pub(crate) fn list_entries(
    engine: &Inner,
    digest: &[u8; 32],
    ended: u64,
) -> Result<Vec<BlobEntry>> {
    let bytes = engine
        .object(ObjectKind::ChunkList, digest)?
        .ok_or_else(|| engine.missing(ObjectKind::ChunkList, digest, ended))?;
    BlobEntry::decode_all(&bytes).map_err(|problem| {
        let digest = BlobDigest::from_bytes(*digest);
        Error::corrupt(format!("chunk list {digest} is malformed")).because(problem)
    })
}

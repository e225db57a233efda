//! A batch of writes on the engine.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use granary_castore::{BlobDigest, Directory, DirectoryDigest, Error, Result, WriteBatch};

use super::{compress::InFlight, group::Group, open_blob::OpenBlob};
use crate::{
    chunker::{MIN_CHUNK_BYTES, first_chunk_len},
    engine::Inner,
    format::{BLOB_ENTRY_BYTES, BlobEntry, BlobRecord, MAX_FRAME_RAW_BYTES, Object, ObjectKind},
    log::{LooseObject, Part, PendingKey, Request},
};

/// An object of at least this length gets a frame of its own.
const LONE_FRAME_BYTES: usize = 64 << 10;

/// What a batch brings in less than this leaves the grouping to the log, so that small
/// batches that commit at the same time share frames.
const LOOSE_BYTES: usize = 32 << 10;

/// Chunks that a blob's record lists itself. A longer list is stored in objects of as many
/// entries, and the record lists those.
const LIST_ENTRIES: usize = 1024;

/// Lists that a blob may have: about 4 TiB.
const MAX_LISTS: usize = 65_536;

/// Objects that a batch remembers to have sent, before it makes sure that the log has them.
const MAX_CLAIMS: usize = 65_536;

/// Entries of blobs that may wait until their chunks are in the log.
const MAX_WAITING_ENTRIES: usize = 262_144;

/// Bytes of directories that may wait until what they refer to is in the log. One directory
/// may pass it.
const MAX_WAITING_DIRECTORY_BYTES: usize = 4 << 20;

/// See [`WriteBatch`].
///
/// IMPORTANT: chunks go to the log first, then the records of blobs, then directories, each
/// when all before it is there. So what an object refers to, if the batch has it, lies
/// before it, and whatever a crash leaves is whole.
pub(crate) struct EngineBatch {
    engine: Arc<Inner>,
    /// The log's count of lost segments when the batch began.
    losses: u64,
    /// Sent, but possibly not yet known to the log.
    claims: HashSet<PendingKey>,
    /// Small chunks that will share a frame.
    chunks: Group,
    in_flight: Arc<InFlight>,
    /// Blobs whose chunks may still be on their way.
    blobs: Vec<BlobRecord>,
    waiting_entries: usize,
    directories: Vec<LooseObject>,
    directory_bytes: usize,
    open: Option<(OpenBlob, ChunkEntries)>,
}

/// The chunks of a blob so far.
#[derive(Debug, Default)]
struct ChunkEntries {
    lists: Vec<BlobEntry>,
    entries: Vec<BlobEntry>,
}

impl EngineBatch {
    pub(crate) fn new(engine: Arc<Inner>) -> Self {
        let losses = engine.log.losses();
        Self {
            engine,
            losses,
            claims: HashSet::new(),
            chunks: Group::default(),
            in_flight: Arc::default(),
            blobs: Vec::new(),
            waiting_entries: 0,
            directories: Vec::new(),
            directory_bytes: 0,
            open: None,
        }
    }

    /// Claims an object that must be sent; false if it is there or on its way.
    fn claim(&mut self, key: PendingKey) -> Result<bool> {
        self.engine.log.check_losses(self.losses)?;
        if self.claims.contains(&key) || self.engine.is_stored(&key)? {
            return Ok(false);
        }
        if self.claims.len() >= MAX_CLAIMS {
            self.hand_over()?;
        }
        Ok(self.claims.insert(key))
    }

    /// Adds a chunk or a list of chunks.
    fn put_object(&mut self, kind: ObjectKind, digest: [u8; 32], bytes: &Bytes) -> Result<()> {
        if !self.claim(PendingKey::Object(kind, digest))? {
            return Ok(());
        }
        if bytes.len() >= LONE_FRAME_BYTES {
            let len = u32::try_from(bytes.len()).expect("chunks and lists are far smaller");
            return self.submit(bytes.clone(), vec![Object { kind, digest, len }]);
        }
        self.chunks.push(kind, digest, bytes);
        if self.chunks.is_full() {
            let (raw, objects) = self.chunks.take();
            self.submit(raw, objects)?;
        }
        Ok(())
    }

    fn submit(&self, raw: Bytes, objects: Vec<Object>) -> Result<()> {
        let Inner { compressors, log, .. } = &*self.engine;
        compressors.submit(raw, objects, log, self.losses, &self.in_flight)
    }

    fn put_chunks(&mut self, chunks: Vec<Bytes>, so_far: &mut ChunkEntries) -> Result<()> {
        for chunk in chunks {
            let digest = *blake3::hash(&chunk).as_bytes();
            self.put_object(ObjectKind::Chunk, digest, &chunk)?;
            so_far.entries.push(BlobEntry { digest, size_bytes: chunk.len() as u64 });
            if so_far.entries.len() == LIST_ENTRIES {
                self.put_list(so_far)?;
            }
        }
        Ok(())
    }

    /// Stores the entries so far as a list.
    fn put_list(&mut self, so_far: &mut ChunkEntries) -> Result<()> {
        let mut bytes = Vec::with_capacity(LIST_ENTRIES * BLOB_ENTRY_BYTES);
        let mut size_bytes = 0;
        for entry in so_far.entries.drain(..) {
            entry.encode(&mut bytes);
            size_bytes += entry.size_bytes;
        }
        let digest = *blake3::hash(&bytes).as_bytes();
        self.put_object(ObjectKind::ChunkList, digest, &bytes.into())?;
        so_far.lists.push(BlobEntry { digest, size_bytes });
        if so_far.lists.len() > MAX_LISTS {
            return Err(Error::too_large(format!(
                "a blob may have at most {} chunks",
                MAX_LISTS * LIST_ENTRIES
            )));
        }
        Ok(())
    }

    /// Notes a blob whose chunks were sent.
    fn put_blob_record(&mut self, digest: BlobDigest, mut chunks: ChunkEntries) -> Result<()> {
        if chunks.lists.is_empty() && chunks.entries.len() <= 1 {
            // Its only chunk has its digest.
            return Ok(());
        }
        let digest = *digest.as_bytes();
        if !self.claim(PendingKey::Blob(digest))? {
            return Ok(());
        }
        let lists = !chunks.lists.is_empty();
        if lists && !chunks.entries.is_empty() {
            self.put_list(&mut chunks)?;
        }
        let entries = if lists { chunks.lists } else { chunks.entries };
        self.waiting_entries += entries.len();
        self.blobs.push(BlobRecord { digest, lists, entries });
        if self.waiting_entries >= MAX_WAITING_ENTRIES {
            self.hand_over()?;
        }
        Ok(())
    }

    /// Sends everything to the log and waits until the log has taken it.
    fn hand_over(&mut self) -> Result<()> {
        self.send_all()?;
        self.engine.log.ask(|answer| Request::Barrier { answer })?;
        self.claims.clear();
        Ok(())
    }

    fn send(&self, part: Part) -> Result<()> {
        self.engine.log.send(Request::Append { losses: self.losses, part })
    }

    fn send_all(&mut self) -> Result<()> {
        if self.chunks.len() >= LOOSE_BYTES {
            let (raw, objects) = self.chunks.take();
            self.submit(raw, objects)?;
        } else if !self.chunks.is_empty() {
            let chunks = self.chunks.take_loose();
            self.send(Part::Loose(chunks))?;
        }
        self.in_flight.wait()?;
        for blob in std::mem::take(&mut self.blobs) {
            self.send(Part::Blob(blob))?;
        }
        self.waiting_entries = 0;
        if !self.directories.is_empty() {
            let directories = std::mem::take(&mut self.directories);
            self.send(Part::Loose(directories))?;
        }
        self.directory_bytes = 0;
        Ok(())
    }
}

impl WriteBatch for EngineBatch {
    fn put_blob(&mut self, contents: Bytes) -> Result<BlobDigest> {
        if self.open.is_some() {
            return Err(Error::invalid("a blob is still being written in this batch"));
        }
        let digest = BlobDigest::of(&contents);
        let whole = PendingKey::Object(ObjectKind::Chunk, *digest.as_bytes());
        if contents.len() <= MIN_CHUNK_BYTES {
            self.put_object(ObjectKind::Chunk, *digest.as_bytes(), &contents)?;
            return Ok(digest);
        }
        // What is stored is neither chunked nor compressed again.
        let divided = PendingKey::Blob(*digest.as_bytes());
        for key in [divided, whole] {
            if self.claims.contains(&key) || self.engine.is_stored(&key)? {
                return Ok(digest);
            }
        }
        let first = first_chunk_len(&contents);
        if first == contents.len() {
            self.put_object(ObjectKind::Chunk, *digest.as_bytes(), &contents)?;
            return Ok(digest);
        }
        let mut rest = contents;
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            chunks.push(rest.split_to(first_chunk_len(&rest)));
        }
        let mut entries = ChunkEntries::default();
        self.put_chunks(chunks, &mut entries)?;
        self.put_blob_record(digest, entries)?;
        Ok(digest)
    }

    fn write(&mut self, mut data: &[u8]) -> Result<()> {
        let (mut blob, mut entries) = self.open.take().unwrap_or_default();
        while !data.is_empty() {
            let taken = blob.fill(data);
            data = &data[taken..];
            if !data.is_empty() {
                self.put_chunks(blob.certain_chunks(), &mut entries)?;
            }
        }
        self.open = Some((blob, entries));
        Ok(())
    }

    fn finish_blob(&mut self) -> Result<BlobDigest> {
        let (blob, mut entries) = self.open.take().unwrap_or_default();
        let (digest, chunks) = blob.finish();
        if entries.entries.is_empty() && entries.lists.is_empty() && chunks.is_empty() {
            return self.put_blob(Bytes::new());
        }
        self.put_chunks(chunks, &mut entries)?;
        self.put_blob_record(digest, entries)?;
        Ok(digest)
    }

    fn put_directory(&mut self, directory: &Directory) -> Result<DirectoryDigest> {
        let encoded = directory.encode();
        if encoded.len() > MAX_FRAME_RAW_BYTES {
            return Err(Error::too_large(format!(
                "a directory may have at most {MAX_FRAME_RAW_BYTES} bytes, this one has {}",
                encoded.len()
            )));
        }
        let digest = DirectoryDigest::of(&encoded);
        if self.claim(PendingKey::Object(ObjectKind::Directory, *digest.as_bytes()))? {
            let len = u32::try_from(encoded.len()).expect("checked against the limit above");
            let object = Object { kind: ObjectKind::Directory, digest: *digest.as_bytes(), len };
            self.directory_bytes += encoded.len();
            self.directories.push(LooseObject { object, bytes: encoded });
            if self.directory_bytes >= MAX_WAITING_DIRECTORY_BYTES {
                self.hand_over()?;
            }
        }
        Ok(digest)
    }

    fn commit(mut self: Box<Self>) -> Result<()> {
        if self.open.is_some() {
            return Err(Error::invalid("a blob is still being written in this batch"));
        }
        self.send_all()?;
        let losses = self.losses;
        self.engine.log.ask(|answer| Request::Commit { losses, answer })
    }
}

//! A batch of writes on the engine.

use std::{collections::HashSet, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use granary_castore::{
    BatchHelper, BlobDigest, Directory, DirectoryDigest, Error, RecordWrite, Result, Root,
    WriteBatch,
};

use super::{
    compress::{InFlight, Job},
    cut::{Cut, CutChunk},
    group::Group,
    open_blob::OpenBlob,
    raw_frame::RawFrame,
    run::Run,
    sequence::Sequence,
};
use crate::{
    engine::Inner,
    format::{BLOB_ENTRY_BYTES, BlobEntry, BlobRecord, MAX_FRAME_RAW_BYTES, Object, ObjectKind},
    gc::{Running, lease},
    log::{LooseObject, Part, Request},
    object_key::ObjectKey,
};

/// What follows each other and has at least this length together gets a frame of its own,
/// which can be sent to clients as it is stored.
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

/// Bytes of patches and directories that may wait until what they refer to is in the log.
/// One directory may pass it.
const MAX_WAITING_BYTES: usize = 4 << 20;

/// See [`WriteBatch`].
///
/// IMPORTANT: chunks go to the log first, and lists of them, then patches, then the records of
/// blobs, then directories, each when all before it is there. So what an object refers to, if
/// the batch has it, lies before it (but for lists, which only blobs refer to), and whatever a
/// crash leaves is whole.
pub(crate) struct EngineBatch {
    engine: Arc<Inner>,
    /// Keeps what it writes and finds from being collected.
    _running: Running,
    lease: Duration,
    /// What is to be kept although nothing leads to it.
    leased: Vec<RecordWrite>,
    /// The log's count of lost segments when the batch began.
    losses: u64,
    /// Sent, but possibly not yet known to the log.
    claims: HashSet<ObjectKey>,
    /// Chunks that follow each other, and what lies between them.
    sequence: Sequence,
    /// Small objects that will share a frame, in whatever order they are read.
    chunks: Group,
    in_flight: Arc<InFlight>,
    /// Patches whose bases may still be on their way.
    patches: Vec<LooseObject>,
    /// Blobs whose chunks may still be on their way.
    blobs: Vec<BlobRecord>,
    waiting_entries: usize,
    directories: Vec<LooseObject>,
    /// Bytes of `patches` and `directories`.
    waiting_bytes: usize,
    open: Option<(OpenBlob, ChunkEntries)>,
}

/// The chunks of a blob so far.
#[derive(Debug, Default)]
struct ChunkEntries {
    lists: Vec<BlobEntry>,
    entries: Vec<BlobEntry>,
}

impl ChunkEntries {
    fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.entries.is_empty()
    }
}

impl EngineBatch {
    pub(crate) fn new(engine: Arc<Inner>, lease: Duration) -> Self {
        let losses = engine.log.losses();
        Self {
            _running: engine.guard.begin(),
            engine,
            lease,
            leased: Vec::new(),
            losses,
            claims: HashSet::new(),
            sequence: Sequence::default(),
            chunks: Group::default(),
            in_flight: Arc::default(),
            patches: Vec::new(),
            blobs: Vec::new(),
            waiting_entries: 0,
            directories: Vec::new(),
            waiting_bytes: 0,
            open: None,
        }
    }

    /// Whether it is a batch of that engine.
    pub(crate) fn is_of(&self, engine: &Arc<Inner>) -> bool {
        Arc::ptr_eq(&self.engine, engine)
    }

    /// As [`commit`](WriteBatch::commit), with records that are written behind everything else.
    pub(crate) fn commit_with(mut self, mut records: Vec<RecordWrite>) -> Result<()> {
        if self.open.is_some() {
            return Err(Error::invalid("a blob is still being written in this batch"));
        }
        self.send_all()?;
        // IMPORTANT: behind all that they may name.
        records.append(&mut self.leased);
        if !records.is_empty() {
            self.send(Part::Values(records))?;
        }
        let losses = self.losses;
        self.engine.log.ask(|answer| Request::Commit { losses, answer })
    }

    /// Claims an object that must be sent; false if it is there or on its way.
    fn claim(&mut self, key: ObjectKey) -> Result<bool> {
        if self.is_known(&key)? {
            return Ok(false);
        }
        self.note_claim(key)?;
        Ok(true)
    }

    /// Whether an object is there or on its way.
    fn is_known(&self, key: &ObjectKey) -> Result<bool> {
        self.engine.log.check_losses(self.losses)?;
        Ok(self.claims.contains(key) || self.engine.is_stored(key)?)
    }

    fn note_claim(&mut self, key: ObjectKey) -> Result<()> {
        self.engine.guard.touch_written(&key);
        if self.claims.len() >= MAX_CLAIMS {
            self.hand_over()?;
        }
        self.claims.insert(key);
        Ok(())
    }

    /// Adds a base or a list of chunks.
    fn put_object(&mut self, kind: ObjectKind, digest: [u8; 32], bytes: &Bytes) -> Result<()> {
        if !self.claim(ObjectKey::Object(kind, digest))? {
            return Ok(());
        }
        if bytes.len() >= LONE_FRAME_BYTES {
            let len = u32::try_from(bytes.len()).expect("bases and lists are far smaller");
            self.submit(bytes.clone(), vec![Object { kind, digest, len, literals_len: 0 }]);
        } else {
            self.group(kind, digest, bytes);
        }
        Ok(())
    }

    /// Has a small object share a frame with others.
    fn group(&mut self, kind: ObjectKind, digest: [u8; 32], bytes: &[u8]) {
        self.chunks.push(kind, digest, bytes);
        if self.chunks.len() >= self.engine.frame_sizes.group_bytes {
            let (raw, objects) = self.chunks.take();
            self.submit(raw, objects);
        }
    }

    fn submit(&self, raw: impl Into<RawFrame>, objects: Vec<Object>) {
        let Inner { compressors, log, .. } = &*self.engine;
        let (log, in_flight) = (Arc::clone(log), Arc::clone(&self.in_flight));
        let job = Job { raw: raw.into(), objects, log, losses: self.losses, in_flight };
        compressors.submit(job);
    }

    /// Adds consecutive chunks of a blob.
    fn put_cut(&mut self, cut: &Cut, so_far: &mut ChunkEntries) -> Result<()> {
        let mut run = Run::default();
        for chunk in cut.chunks() {
            let digest = chunk.digest();
            if !self.claim(ObjectKey::Object(ObjectKind::Chunk, digest))? {
                self.end_run(cut, &mut run);
                self.end_sequence();
            } else if chunk.is_normalised() {
                self.end_run(cut, &mut run);
                let bytes = cut.bytes.slice(chunk.start..chunk.end());
                self.put_patched(digest, &chunk, &bytes)?;
            } else {
                run.push(digest, &chunk);
                if run.range.len() + self.sequence.len() >= self.engine.frame_sizes.run_bytes {
                    self.end_run(cut, &mut run);
                }
            }
            so_far.entries.push(BlobEntry { digest, size_bytes: chunk.bytes.len() as u64 });
            if so_far.entries.len() == LIST_ENTRIES {
                self.put_list(so_far)?;
            }
        }
        self.end_run(cut, &mut run);
        Ok(())
    }

    /// Adds the chunks of a run to the sequence, or makes a frame of them right away: lying in one
    /// piece, they are not copied at all.
    fn end_run(&mut self, cut: &Cut, run: &mut Run) {
        let Run { objects, range } = std::mem::take(run);
        if self.sequence.is_empty() && range.len() >= self.engine.frame_sizes.run_bytes {
            return self.submit(cut.bytes.slice(range), objects);
        }
        let mut start = range.start;
        for Object { digest, len, .. } in objects {
            let end = start + len as usize;
            self.put_in_sequence(digest, cut.bytes.slice(start..end));
            start = end;
        }
    }

    /// Adds a new chunk behind what came before it.
    fn put_in_sequence(&mut self, digest: [u8; 32], bytes: Bytes) {
        self.sequence.push(digest, bytes);
        if self.sequence.is_full(self.engine.frame_sizes.run_bytes) {
            let (raw, objects) = self.sequence.take();
            self.submit(raw, objects);
        }
    }

    /// Says in what the next blobs and literals lie.
    fn enter(&mut self, archive: &Bytes) {
        if self.sequence.lies_in(archive) {
            return;
        }
        if self.sequence.is_enough(self.engine.frame_sizes.run_bytes) {
            let (raw, objects) = self.sequence.take();
            self.submit(raw, objects);
        }
        self.sequence.enter(archive.clone());
    }

    /// Notes literals behind the last blob.
    fn put_in_between(&mut self, literals: Bytes) {
        if !self.sequence.put_literals(literals) {
            self.end_sequence();
        }
    }

    /// Ends the sequence: what comes next does not lie behind it. It gets a frame of its own if
    /// it is worth one.
    fn end_sequence(&mut self) {
        if self.sequence.len() >= LONE_FRAME_BYTES {
            let (raw, objects) = self.sequence.take();
            return self.submit(raw, objects);
        }
        for (Object { kind, digest, .. }, bytes) in self.sequence.take_loose() {
            self.group(kind, digest, &bytes);
        }
    }

    /// Adds the only chunk of a blob, which was claimed.
    fn put_only_chunk(&mut self, digest: [u8; 32], cut: &Cut) -> Result<()> {
        match cut.chunks().next() {
            Some(chunk) if chunk.is_normalised() => {
                return self.put_patched(digest, &chunk, &cut.bytes);
            }
            // Nothing is read of it, so it lies nowhere.
            _ if cut.bytes.is_empty() => self.group(ObjectKind::Chunk, digest, &[]),
            _ => self.put_in_sequence(digest, cut.bytes.clone()),
        }
        Ok(())
    }

    /// Adds a chunk that was claimed: its normalised `bytes` as a base, if they are new, and
    /// what makes it of them.
    fn put_patched(&mut self, digest: [u8; 32], chunk: &CutChunk<'_>, bytes: &Bytes) -> Result<()> {
        self.end_sequence();
        let base = *blake3::hash(bytes).as_bytes();
        self.put_object(ObjectKind::Base, base, bytes)?;
        let bytes = Bytes::from(chunk.make_patches(base).encode());
        let len = u32::try_from(bytes.len()).expect("a chunk has no room for so many patches");
        let object = Object { kind: ObjectKind::Patch, digest, len, literals_len: 0 };
        self.waiting_bytes += bytes.len();
        self.patches.push(LooseObject { object, bytes });
        self.hand_over_if_much_waits()
    }

    fn hand_over_if_much_waits(&mut self) -> Result<()> {
        if self.waiting_bytes >= MAX_WAITING_BYTES {
            self.hand_over()?;
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
        if !self.claim(ObjectKey::Blob(digest))? {
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
        self.end_sequence();
        if self.chunks.len() >= LOOSE_BYTES {
            let (raw, objects) = self.chunks.take();
            self.submit(raw, objects);
        } else if !self.chunks.is_empty() {
            let chunks = self.chunks.take_loose();
            self.send(Part::Loose(chunks))?;
        }
        self.engine.compressors.finish(&self.in_flight)?;
        if !self.patches.is_empty() {
            let patches = std::mem::take(&mut self.patches);
            self.send(Part::Loose(patches))?;
        }
        for blob in std::mem::take(&mut self.blobs) {
            self.send(Part::Blob(blob))?;
        }
        self.waiting_entries = 0;
        if !self.directories.is_empty() {
            let directories = std::mem::take(&mut self.directories);
            self.send(Part::Loose(directories))?;
        }
        self.waiting_bytes = 0;
        Ok(())
    }
}

impl WriteBatch for EngineBatch {
    fn put_blob(&mut self, contents: Bytes) -> Result<BlobDigest> {
        if self.open.is_some() {
            return Err(Error::invalid("a blob is still being written in this batch"));
        }
        let digest = BlobDigest::of(&contents);
        let chunker = self.engine.chunker;
        let key = ObjectKey::Object(ObjectKind::Chunk, *digest.as_bytes());
        let may_be_divided = contents.len() > chunker.undivided_bytes();
        let may_be_one_chunk = contents.len() <= chunker.max_bytes();
        // What is stored is neither chunked nor compressed again.
        if may_be_divided && self.is_known(&ObjectKey::Blob(*digest.as_bytes()))?
            || may_be_one_chunk && self.is_known(&key)?
        {
            if !contents.is_empty() {
                self.end_sequence();
            }
            return Ok(digest);
        }
        let cut = Cut::whole(contents, chunker);
        if cut.chunk_count() > 1 {
            let mut entries = ChunkEntries::default();
            self.put_cut(&cut, &mut entries)?;
            self.put_blob_record(digest, entries)?;
        } else {
            self.note_claim(key)?;
            self.put_only_chunk(*digest.as_bytes(), &cut)?;
        }
        Ok(digest)
    }

    fn put_blob_within(&mut self, archive: &Bytes, range: Range<usize>) -> Result<BlobDigest> {
        self.enter(archive);
        self.put_blob(archive.slice(range))
    }

    fn write(&mut self, mut data: &[u8]) -> Result<()> {
        let Inner { chunker, frame_sizes, .. } = &*self.engine;
        let new_blob = || (OpenBlob::new(*chunker, frame_sizes.run_bytes), ChunkEntries::default());
        let (mut blob, mut entries) = self.open.take().unwrap_or_else(new_blob);
        while !data.is_empty() {
            let taken = blob.fill(data);
            data = &data[taken..];
            if !data.is_empty() {
                self.put_cut(&blob.certain_chunks(), &mut entries)?;
            }
        }
        self.open = Some((blob, entries));
        Ok(())
    }

    fn finish_blob(&mut self) -> Result<BlobDigest> {
        let Some((blob, mut entries)) = self.open.take() else {
            return self.put_blob(Bytes::new());
        };
        let (digest, cut) = blob.finish();
        if entries.is_empty() && cut.chunk_count() == 0 {
            return self.put_blob(Bytes::new());
        }
        self.put_cut(&cut, &mut entries)?;
        self.put_blob_record(digest, entries)?;
        Ok(digest)
    }

    fn put_literals(&mut self, bytes: &[u8]) -> Result<()> {
        // What has nothing before it in its frame is not kept.
        if self.sequence.is_empty() {
            return Ok(());
        }
        self.put_in_between(Bytes::copy_from_slice(bytes));
        Ok(())
    }

    fn put_literals_within(&mut self, archive: &Bytes, range: Range<usize>) -> Result<()> {
        self.enter(archive);
        self.put_in_between(archive.slice(range));
        Ok(())
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
        // Not all of them came in this batch.
        for (_, node) in directory.entries() {
            if let Some(root) = Root::of(node) {
                self.engine.guard.touch_written(&ObjectKey::of_root(&root));
            }
        }
        if self.claim(ObjectKey::Object(ObjectKind::Directory, *digest.as_bytes()))? {
            let len = u32::try_from(encoded.len()).expect("checked against the limit above");
            let (kind, digest) = (ObjectKind::Directory, *digest.as_bytes());
            let object = Object { kind, digest, len, literals_len: 0 };
            self.waiting_bytes += encoded.len();
            self.directories.push(LooseObject { object, bytes: encoded });
            self.hand_over_if_much_waits()?;
        }
        Ok(digest)
    }

    fn lease(&mut self, root: &Root) -> Result<()> {
        let now_s = lease::now_s();
        // One that lasts nearly as long need not be renewed.
        let enough_s = now_s + self.lease.as_secs() - self.lease.as_secs() / 8;
        let write = lease::write(root, now_s + self.lease.as_secs());
        let found = self.engine.index.value(write.kind.0, &write.key)?;
        let lasts = found
            .and_then(|(_, value)| lease::decode(&write.key, &value?))
            .is_some_and(|(_, until_s)| until_s >= enough_s);
        if !lasts {
            self.leased.push(write);
        }
        Ok(())
    }

    fn helpers(&mut self, threads: usize) -> Result<Vec<Box<dyn BatchHelper>>> {
        let Inner { compressors, .. } = &*self.engine;
        (0..threads).map(|_| Ok(Box::new(compressors.helper(&self.in_flight)?) as _)).collect()
    }

    fn commit(self: Box<Self>) -> Result<()> {
        self.commit_with(Vec::new())
    }
}

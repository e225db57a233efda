//! The store in memory: for tests, and the yardstick that others are held against.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;

use crate::{
    batch::{Castore, WriteBatch},
    blob::{BlobReader, BlobService, BlobStat, ChunkMeta},
    collect::{Collection, CollectionKind, Collector, Survey, SweepOptions, Swept},
    digest::{BlobDigest, DirectoryDigest},
    directory::{Directory, DirectoryService},
    error::{Error, Result},
    record::{RecordKind, RecordStore, RecordWrite},
    root::Root,
};

/// Everything in maps. Blobs are not divided. Clones share their contents.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    objects: Arc<RwLock<Objects>>,
}

#[derive(Debug, Default)]
struct Objects {
    blobs: HashMap<BlobDigest, Bytes>,
    directories: HashMap<DirectoryDigest, Directory>,
    records: BTreeMap<(RecordKind, Bytes), Bytes>,
}

impl MemoryStore {
    fn read(&self) -> RwLockReadGuard<'_, Objects> {
        // Maps are never left half changed, so a panic elsewhere spoils nothing.
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlobService for MemoryStore {
    fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>> {
        let objects = self.read();
        Ok(objects.blobs.get(digest).map(|blob| BlobStat { size_bytes: blob.len() as u64 }))
    }

    fn chunks(&self, digest: &BlobDigest, _max_chunks: usize) -> Result<Option<Vec<ChunkMeta>>> {
        Ok(self.read().blobs.contains_key(digest).then(Vec::new))
    }

    fn open(&self, digest: &BlobDigest) -> Result<Option<Box<dyn BlobReader>>> {
        let blob = self.read().blobs.get(digest).cloned();
        Ok(blob.map(|blob| Box::new(MemoryReader(blob)) as _))
    }
}

struct MemoryReader(Bytes);

impl BlobReader for MemoryReader {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&mut self, offset: u64, max_bytes: usize) -> Result<Bytes> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let end = start.saturating_add(max_bytes).min(self.0.len());
        Ok(self.0.slice(start..end))
    }
}

impl DirectoryService for MemoryStore {
    fn directory(&self, digest: &DirectoryDigest) -> Result<Option<Directory>> {
        Ok(self.read().directories.get(digest).cloned())
    }
}

impl RecordStore for MemoryStore {
    fn record(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.read().records.get(&(kind, Bytes::copy_from_slice(key))).cloned())
    }

    fn write_records(&self, writes: Vec<RecordWrite>) -> Result<()> {
        let mut objects = self.write();
        for RecordWrite { kind, key, value } in writes {
            match value {
                Some(value) => objects.records.insert((kind, key), value),
                None => objects.records.remove(&(kind, key)),
            };
        }
        Ok(())
    }

    fn scan_records(
        &self,
        kind: RecordKind,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let start = (kind, Bytes::copy_from_slice(after.unwrap_or_default()));
        let found = self
            .read()
            .records
            .range(start..)
            .take_while(|((found_kind, _), _)| *found_kind == kind)
            .filter(|((_, key), _)| after.is_none_or(|after| key.as_ref() != after))
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        Ok(found)
    }
}

impl Collector for MemoryStore {
    fn begin_collection(&self, _kind: CollectionKind) -> Result<Box<dyn Collection>> {
        Ok(Box::new(MemoryCollection {
            store: self.clone(),
            kept: HashSet::new(),
            weighed: HashSet::new(),
            condemned: None,
        }))
    }
}

/// Knows nothing of writers: whoever collects must be alone.
struct MemoryCollection {
    store: MemoryStore,
    kept: HashSet<Root>,
    weighed: HashSet<Root>,
    condemned: Option<HashSet<Root>>,
}

impl MemoryCollection {
    /// Adds `root` and all below it to `seen`, and returns how many bytes are new.
    fn trace(objects: &Objects, root: &Root, seen: &mut HashSet<Root>) -> u64 {
        let (mut left, mut bytes) = (vec![*root], 0);
        while let Some(root) = left.pop() {
            if !seen.insert(root) {
                continue;
            }
            match root {
                Root::Blob(digest) => {
                    bytes += objects.blobs.get(&digest).map_or(0, |blob| blob.len() as u64);
                }
                Root::Directory(digest) => {
                    let Some(directory) = objects.directories.get(&digest) else { continue };
                    bytes += directory.encode().len() as u64;
                    left.extend(directory.entries().iter().filter_map(|(_, node)| Root::of(node)));
                }
            }
        }
        bytes
    }
}

impl Collection for MemoryCollection {
    fn keep(&mut self, root: &Root) -> Result<u64> {
        Ok(Self::trace(&self.store.read(), root, &mut self.kept))
    }

    fn weigh(&mut self, root: &Root) -> Result<u64> {
        let mut seen: HashSet<_> = self.kept.union(&self.weighed).copied().collect();
        let bytes = Self::trace(&self.store.read(), root, &mut seen);
        self.weighed = seen.difference(&self.kept).copied().collect();
        Ok(bytes)
    }

    fn weigh_anew(&mut self) {
        self.weighed.clear();
    }

    fn condemn(&mut self) -> Result<()> {
        if self.condemned.is_none() {
            let objects = self.store.read();
            let unwanted = objects.roots().map(|(root, _)| root);
            self.condemned = Some(unwanted.filter(|root| !self.kept.contains(root)).collect());
        }
        Ok(())
    }

    fn is_kept(&self, root: &Root) -> Result<bool> {
        let is_condemned = self.condemned.as_ref().is_some_and(|gone| gone.contains(root));
        Ok(!is_condemned && self.store.read().contains(root))
    }

    fn survey(&mut self) -> Result<Survey> {
        let objects = self.store.read();
        let unused = objects.roots().filter(|(root, _)| !self.kept.contains(root));
        let (mut unused_objects, mut unused_bytes) = (0, 0);
        for (_, bytes) in unused {
            unused_objects += 1;
            unused_bytes += bytes;
        }
        let stored_bytes = objects.roots().map(|(_, bytes)| bytes).sum();
        Ok(Survey { stored_bytes, unused_bytes, unused_objects })
    }

    fn sweep(&mut self, _options: &SweepOptions<'_>) -> Result<Swept> {
        self.condemn()?;
        let condemned = self.condemned.take().unwrap_or_default();
        let mut objects = self.store.write();
        let stored_bytes = |objects: &Objects| objects.roots().map(|(_, bytes)| bytes).sum();
        let stored_bytes_before = stored_bytes(&objects);
        objects.blobs.retain(|digest, _| !condemned.contains(&Root::Blob(*digest)));
        objects.directories.retain(|digest, _| !condemned.contains(&Root::Directory(*digest)));
        Ok(Swept {
            stored_bytes_before,
            stored_bytes_after: stored_bytes(&objects),
            removed_objects: condemned.len() as u64,
            ..Swept::default()
        })
    }
}

impl Objects {
    fn contains(&self, root: &Root) -> bool {
        match root {
            Root::Blob(digest) => self.blobs.contains_key(digest),
            Root::Directory(digest) => self.directories.contains_key(digest),
        }
    }

    /// Everything that can be collected, and its length in bytes.
    fn roots(&self) -> impl Iterator<Item = (Root, u64)> + '_ {
        let blobs = self.blobs.iter().map(|(digest, blob)| (Root::Blob(*digest), blob.len()));
        let directories = self
            .directories
            .iter()
            .map(|(digest, directory)| (Root::Directory(*digest), directory.encode().len()));
        blobs.chain(directories).map(|(root, len)| (root, len as u64))
    }
}

impl Castore for MemoryStore {
    fn batch(&self) -> Result<Box<dyn WriteBatch>> {
        Ok(Box::new(MemoryBatch { store: self.clone(), objects: Objects::default(), open: None }))
    }
}

struct MemoryBatch {
    store: MemoryStore,
    objects: Objects,
    /// The blob being written.
    open: Option<Vec<u8>>,
}

impl WriteBatch for MemoryBatch {
    fn put_blob(&mut self, contents: Bytes) -> Result<BlobDigest> {
        if self.open.is_some() {
            return Err(Error::invalid("a blob is still being written in this batch"));
        }
        let digest = BlobDigest::of(&contents);
        self.objects.blobs.insert(digest, contents);
        Ok(digest)
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.open.get_or_insert_default().extend_from_slice(data);
        Ok(())
    }

    fn finish_blob(&mut self) -> Result<BlobDigest> {
        let contents = self.open.take().unwrap_or_default();
        self.put_blob(contents.into())
    }

    fn put_directory(&mut self, directory: &Directory) -> Result<DirectoryDigest> {
        let digest = directory.digest();
        self.objects.directories.insert(digest, directory.clone());
        Ok(digest)
    }

    fn commit(self: Box<Self>) -> Result<()> {
        if self.open.is_some() {
            return Err(Error::invalid("a blob is still being written in this batch"));
        }
        let mut objects = self.store.write();
        objects.blobs.extend(self.objects.blobs);
        objects.directories.extend(self.objects.directories);
        Ok(())
    }
}

//! Following what objects refer to.

use std::collections::HashSet;

use granary_castore::{Directory, DirectoryDigest, Error, Result, Root};

use super::{courtesy::Courtesy, frames::FrameShares};
use crate::{
    engine::Inner,
    format::{BLOB_ENTRY_BYTES, ObjectKind},
    index::Located,
    object_key::ObjectKey,
    read::list_entries,
};

/// What a blob's record takes without its entries.
const BLOB_RECORD_BYTES: u64 = 38;

/// Goes from an object to all that it refers to.
pub(super) struct Tracer<'a> {
    engine: &'a Inner,
    shares: FrameShares,
    courtesy: Courtesy<'a>,
    /// Directories that are still to be read. Blobs are followed at once.
    directories: Vec<[u8; 32]>,
    stored_bytes: u64,
}

/// What is done with each object, and what is made of damage.
pub(super) trait Visit {
    /// Whether an object comes for the first time, so that what it refers to is followed.
    fn visit(&mut self, key: &ObjectKey) -> bool;

    /// What to do about an object that cannot be read: go on if that is no error.
    fn cannot_follow(&self, error: Error) -> Result<()>;
}

/// Marks what is wanted.
pub(super) struct Mark<'a>(pub(super) &'a Inner);

impl Visit for Mark<'_> {
    fn visit(&mut self, key: &ObjectKey) -> bool {
        self.0.guard.lock().mark(key)
    }

    fn cannot_follow(&self, error: Error) -> Result<()> {
        Err(error)
    }
}

/// Weighs what is not marked, each object once.
pub(super) struct Weigh<'a> {
    pub(super) engine: &'a Inner,
    pub(super) weighed: &'a mut HashSet<ObjectKey>,
}

impl Visit for Weigh<'_> {
    fn visit(&mut self, key: &ObjectKey) -> bool {
        !self.engine.guard.lock().is_marked(key) && self.weighed.insert(*key)
    }

    fn cannot_follow(&self, error: Error) -> Result<()> {
        match error {
            Error::Corrupt(_) => Ok(()),
            error => Err(error),
        }
    }
}

impl<'a> Tracer<'a> {
    pub(super) fn new(engine: &'a Inner) -> Self {
        Self {
            engine,
            shares: FrameShares::default(),
            courtesy: Courtesy::new(engine),
            directories: Vec::new(),
            stored_bytes: 0,
        }
    }

    /// Visits an object and all that it refers to, and returns what those that came for the first
    /// time take on disk.
    pub(super) fn trace(&mut self, key: &ObjectKey, visit: &mut dyn Visit) -> Result<u64> {
        if visit.visit(key) {
            return self.follow(key, visit);
        }
        Ok(0)
    }

    /// As [`trace`](Self::trace), but the object itself was visited before.
    pub(super) fn follow(&mut self, key: &ObjectKey, visit: &mut dyn Visit) -> Result<u64> {
        self.stored_bytes = 0;
        self.directories.clear();
        self.enter(key, visit)?;
        while let Some(digest) = self.directories.pop() {
            self.directory(&digest, visit)?;
            self.courtesy.rest();
        }
        Ok(self.stored_bytes)
    }

    fn enter(&mut self, key: &ObjectKey, visit: &mut dyn Visit) -> Result<()> {
        match key {
            ObjectKey::Object(ObjectKind::Directory, digest) => {
                self.directories.push(*digest);
                Ok(())
            }
            ObjectKey::Object(ObjectKind::Chunk, digest) | ObjectKey::Blob(digest) => {
                self.contents(digest, visit)
            }
            ObjectKey::Object(ObjectKind::ChunkList, digest) => self.list(digest, visit),
            ObjectKey::Object(kind, digest) => self.count(*kind, digest),
        }
    }

    /// Counts an object that refers to nothing.
    fn count(&mut self, kind: ObjectKind, digest: &[u8; 32]) -> Result<()> {
        if let Some(located) = self.engine.index.located(kind, digest)? {
            self.stored_bytes += self.shares.stored_bytes(self.engine, located.location());
        }
        Ok(())
    }

    fn directory(&mut self, digest: &[u8; 32], visit: &mut dyn Visit) -> Result<()> {
        let directory = match self.read_directory(digest) {
            Ok(Some(directory)) => directory,
            Ok(None) => return Ok(()),
            Err(error) => return visit.cannot_follow(error),
        };
        self.count(ObjectKind::Directory, digest)?;
        for (_, node) in directory.entries() {
            let Some(root) = Root::of(node) else { continue };
            let key = ObjectKey::of_root(&root);
            if visit.visit(&key) {
                self.enter(&key, visit)?;
            }
        }
        Ok(())
    }

    fn read_directory(&self, digest: &[u8; 32]) -> Result<Option<Directory>> {
        let Some(encoded) = self.engine.object(ObjectKind::Directory, digest)? else {
            return Ok(None);
        };
        let digest = DirectoryDigest::from_bytes(*digest);
        Directory::decode(&encoded).map(Some).map_err(|problem| {
            Error::corrupt(format!("directory {digest} is malformed")).because(problem)
        })
    }

    /// A chunk, or a blob of several; rarely both, if one was put alone and the other as a part.
    fn contents(&mut self, digest: &[u8; 32], visit: &mut dyn Visit) -> Result<()> {
        match self.engine.index.located(ObjectKind::Chunk, digest)? {
            Some(Located::Frame(location)) => {
                self.stored_bytes += self.shares.stored_bytes(self.engine, &location);
                if location.len as usize <= self.engine.chunker.undivided_bytes() {
                    // What is so short is never divided.
                    return Ok(());
                }
            }
            Some(Located::Patched(_)) => self.patched(digest, visit)?,
            None => {}
        }
        let Some(blob) = self.engine.index.blob(digest)? else { return Ok(()) };
        let entry_bytes = (blob.entries.len() * BLOB_ENTRY_BYTES) as u64;
        self.stored_bytes += BLOB_RECORD_BYTES + entry_bytes;
        let kind = if blob.lists { ObjectKind::ChunkList } else { ObjectKind::Chunk };
        for entry in blob.entries {
            let key = ObjectKey::Object(kind, entry.digest);
            if visit.visit(&key) {
                self.enter(&key, visit)?;
            }
        }
        Ok(())
    }

    fn patched(&mut self, digest: &[u8; 32], visit: &mut dyn Visit) -> Result<()> {
        let Some((patch, base)) = self.engine.patch_and_base(digest).or_else(|error| {
            visit.cannot_follow(error)?;
            Ok::<_, Error>(None)
        })?
        else {
            return Ok(());
        };
        self.stored_bytes += self.shares.stored_bytes(self.engine, &patch);
        if visit.visit(&ObjectKey::Object(ObjectKind::Base, base)) {
            self.count(ObjectKind::Base, &base)?;
        }
        Ok(())
    }

    fn list(&mut self, digest: &[u8; 32], visit: &mut dyn Visit) -> Result<()> {
        if !self.engine.is_indexed(ObjectKind::ChunkList, digest)? {
            return Ok(());
        }
        let entries = match list_entries(self.engine, digest, self.engine.guard.ended()) {
            Ok(entries) => entries,
            Err(error) => return visit.cannot_follow(error),
        };
        self.count(ObjectKind::ChunkList, digest)?;
        for entry in entries {
            let key = ObjectKey::Object(ObjectKind::Chunk, entry.digest);
            if visit.visit(&key) {
                self.enter(&key, visit)?;
            }
        }
        Ok(())
    }
}

//! Giving up what cannot be read.

use std::collections::HashSet;

use granary_castore::{Error, ObjectName, ObjectType, Result};

use super::{affected, list_entries, object_name};
use crate::{
    engine::{Engine, Inner},
    format::ObjectKind,
    log::{Maintenance, Request},
    object_key::ObjectKey,
};

impl Engine {
    /// Gives up those of `objects` that cannot be read, and with them what cannot be read because
    /// of them: blobs that lack a piece, and chunks that lack their base. Durably they count as
    /// not stored, so that they are not served, and are stored when they come again. Returns how
    /// many objects that are.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] while a collection is under way, or if it could not be made
    /// durable.
    pub fn quarantine(&self, objects: &[ObjectName]) -> Result<u64> {
        let inner = &self.inner;
        let mut unreadable = HashSet::new();
        for object in objects {
            if inner.is_unreadable(object)? {
                unreadable.insert(*object);
                unreadable.extend(inner.unreadable_base(object)?);
            }
        }
        if unreadable.is_empty() {
            inner.damage.remove(objects);
            return Ok(0);
        }
        affected::chunks(inner, &mut unreadable)?;
        for blob in affected::blobs(inner, &unreadable)?.into_keys() {
            unreadable.insert(super::blob_name(blob.as_bytes()));
        }
        // Behind a damaged frame nothing is appended: an index that is built anew could take what
        // follows for torn. With a footer it does not look at frames.
        inner.log.ask(|answer| Request::Maintain(Maintenance::CloseTail { answer }))?;
        let keys: Vec<_> = unreadable.iter().map(key).collect();
        let given_up = inner.forget(&keys)?;
        inner.damage.remove(objects.iter().chain(&unreadable));
        tracing::warn!(objects = given_up, "gave up what cannot be read; it can be stored again");
        Ok(given_up)
    }
}

fn key(name: &ObjectName) -> ObjectKey {
    match name.kind {
        ObjectType::Blob => ObjectKey::Blob(name.digest),
        ObjectType::Chunk => ObjectKey::Object(ObjectKind::Chunk, name.digest),
        ObjectType::ChunkList => ObjectKey::Object(ObjectKind::ChunkList, name.digest),
        ObjectType::Base => ObjectKey::Object(ObjectKind::Base, name.digest),
        ObjectType::Directory => ObjectKey::Object(ObjectKind::Directory, name.digest),
    }
}

impl Inner {
    /// Whether an object is stored and cannot be read.
    pub(super) fn is_unreadable(&self, name: &ObjectName) -> Result<bool> {
        match key(name) {
            ObjectKey::Blob(digest) => self.lacks_piece(&digest),
            ObjectKey::Object(kind, digest) => {
                self.forget_cached(kind, &digest)?;
                match self.try_object(kind, &digest) {
                    Ok(_) => Ok(false),
                    Err(Error::Corrupt(_)) => Ok(true),
                    Err(error) if is_bad_sector(&error) => Ok(true),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Has what is read next of an object come from the disk, and its base too: what is kept in
    /// memory may be from before the damage.
    fn forget_cached(&self, kind: ObjectKind, digest: &[u8; 32]) -> Result<()> {
        if let Some(located) = self.index.located(kind, digest)? {
            self.packs.forget_frame(located.location());
        }
        if kind == ObjectKind::Chunk
            && let Ok(Some((_, base))) = self.try_patch_and_base(digest)
            && let Some(located) = self.index.located(ObjectKind::Base, &base)?
        {
            self.packs.forget_frame(located.location());
        }
        Ok(())
    }

    /// Whether a piece of a blob of several chunks is not stored, or not readable.
    fn lacks_piece(&self, digest: &[u8; 32]) -> Result<bool> {
        let Some(blob) = self.index.blob(digest)? else { return Ok(false) };
        let mut chunks = Vec::new();
        for entry in blob.entries {
            if blob.lists {
                let list = ObjectName { kind: ObjectType::ChunkList, digest: entry.digest };
                let is_there = self.index.contains(ObjectKind::ChunkList, &entry.digest)?;
                if !is_there || self.is_unreadable(&list)? {
                    return Ok(true);
                }
                chunks.extend(list_entries(self, &entry.digest));
            } else {
                chunks.push(entry);
            }
        }
        for chunk in chunks {
            let name = ObjectName { kind: ObjectType::Chunk, digest: chunk.digest };
            let is_there = self.index.contains(ObjectKind::Chunk, &chunk.digest)?;
            if !is_there || self.is_unreadable(&name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The base of a chunk that cannot be read, if it is the base that cannot.
    fn unreadable_base(&self, name: &ObjectName) -> Result<Option<ObjectName>> {
        if name.kind != ObjectType::Chunk {
            return Ok(None);
        }
        // A patch that cannot be read names no base.
        let Ok(Some((_, digest))) = self.try_patch_and_base(&name.digest) else { return Ok(None) };
        let base = object_name(ObjectKind::Base, &digest);
        let Some(base) = base else { return Ok(None) };
        Ok(self.is_unreadable(&base)?.then_some(base))
    }
}

/// Whether the disk says that it cannot read what is there, which is as good as damage.
fn is_bad_sector(error: &Error) -> bool {
    let cause = std::error::Error::source(error);
    let cause = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.and_then(std::io::Error::raw_os_error) == Some(rustix::io::Errno::IO.raw_os_error())
}

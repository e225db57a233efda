//! Doing away with single objects.

use std::sync::atomic::Ordering;

use granary_castore::{Error, Result, Root};

use crate::{
    dead::DeadList,
    engine::{Engine, Inner},
    format::ObjectKind,
    log::{Maintenance, Request},
    object_key::ObjectKey,
};

impl Engine {
    /// Makes blobs, chunks and directories count as not stored, durably, although something may
    /// refer to them: those that are damaged, so that they are stored again when they come again.
    /// Of a blob of several chunks that is the list of them; a chunk that is damaged must be named
    /// itself. Returns how many were stored.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] while a collection is under way, or one is to be gone on with, or if
    /// it could not be made durable.
    pub fn forget(&self, roots: &[Root]) -> Result<u64> {
        let mut objects = Vec::new();
        for root in roots {
            objects.push(ObjectKey::of_root(root));
            if let Root::Blob(digest) = root {
                objects.push(ObjectKey::Object(ObjectKind::Chunk, *digest.as_bytes()));
                if let Ok(Some((_, base))) = self.inner().patch_and_base(digest.as_bytes()) {
                    objects.push(ObjectKey::Object(ObjectKind::Base, base));
                }
            }
        }
        self.inner().forget(&objects)
    }
}

impl Inner {
    /// See [`Engine::forget`]. What refers to them is not looked at.
    pub(crate) fn forget(&self, objects: &[ObjectKey]) -> Result<u64> {
        if self.is_collecting.swap(true, Ordering::AcqRel) {
            return Err(Error::unavailable(
                "a garbage collection is under way: wait until it has ended",
            ));
        }
        let forgotten = if self.unfollowed().is_none() {
            self.forget_alone(objects)
        } else {
            // Its list may be there, and the index has not followed it. It would seem to have
            // followed the next one, and so this one.
            Err(Error::unavailable(
                "a garbage collection has failed halfway: run `granary gc`, which goes on with it",
            ))
        };
        self.is_collecting.store(false, Ordering::Release);
        forgotten
    }

    fn forget_alone(&self, objects: &[ObjectKey]) -> Result<u64> {
        // IMPORTANT: what comes again must not come to a pack where it is dead.
        let boundary =
            self.log.ask(|answer| Request::Maintain(Maintenance::CloseTail { answer }))?;
        let mut newest = self.lock_dead_generation();
        let mut list = DeadList::read(&*self.disk, self.store_id).map_err(Error::from)?;
        let ids: std::collections::HashMap<_, _> = self.packs.all().into_iter().collect();
        let mut found = Vec::new();
        for key in objects {
            let Some(pack) = self.index.pack_of(key)?.filter(|pack| *pack < boundary) else {
                continue;
            };
            let Some(id) = ids.get(&pack) else { continue };
            list.packs.entry(*id).or_default().insert(*key);
            found.push((*key, pack));
        }
        let generation = *newest + 1;
        *newest = generation;
        list.generation = generation;
        list.write(&*self.disk, self.store_id)?;
        drop(newest);
        let forgotten = self.remove_indexed(found);
        // Also if it failed halfway.
        self.forgettings.fetch_add(1, Ordering::AcqRel);
        let forgotten = forgotten?;
        self.log.ask(|answer| Request::Maintain(Maintenance::NoteDead { generation, answer }))?;
        self.index.sync()?;
        Ok(forgotten)
    }
}

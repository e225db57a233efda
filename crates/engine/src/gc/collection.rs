//! A collection of the engine: the steps and their order.

use std::{
    collections::HashSet,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
};

use granary_castore::{
    Collection, CollectionKind, CollectionObserver, Collector, Error, Result, Root, Survey,
    SweepOptions, Swept,
};

use super::{
    courtesy::Courtesy,
    lease,
    plan::Plan,
    rewrite::{Moved, Rewriter},
    survey::{PackSurvey, Surveyor},
    trace::{Mark, Tracer, Weigh},
};
use crate::{
    dead::{self, DeadListWriter},
    engine::{Engine, Inner},
    format::ObjectKind,
    log::{Maintenance, Request},
    object_key::ObjectKey,
    packs::{PACKS_DIR, PackId},
};

/// Objects that are removed from the index together.
const REMOVED_TOGETHER: usize = 8_192;

/// Leases that are read at a time.
const LEASES_PAGE: usize = 4_096;

/// Packs that are copied before those that they came from are removed: what is copied lies on the
/// disk twice for so long.
const PACKS_COPIED_TOGETHER: usize = 8;

/// Packs that are old, and what is on the way to be removed from them.
pub(crate) struct EngineCollection {
    engine: Arc<Inner>,
    kind: CollectionKind,
    /// Packs with smaller handles are old.
    boundary: u32,
    weighed: HashSet<ObjectKey>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Marking,
    /// Whatever is not marked counts as not stored; nothing says so on the disk.
    Condemned,
    /// The list of dead objects says so, and the index may not have followed it.
    Listed,
    /// The index has followed.
    Followed,
}

impl Collector for Engine {
    fn begin_collection(&self, kind: CollectionKind) -> Result<Box<dyn Collection>> {
        Ok(Box::new(EngineCollection::begin(Arc::clone(self.inner()), kind)?))
    }
}

impl EngineCollection {
    fn begin(engine: Arc<Inner>, kind: CollectionKind) -> Result<Self> {
        if engine.is_collecting.swap(true, Ordering::AcqRel) {
            return Err(Error::unavailable(
                "a garbage collection is under way: wait until it has ended",
            ));
        }
        // From here on, dropping it ends it.
        let mut collection =
            Self { engine, kind, boundary: 0, weighed: HashSet::new(), stage: Stage::Marking };
        if let Some((boundary, generation)) = collection.engine.unfollowed() {
            // An earlier one could not go on. What it condemned still counts as not stored.
            collection.boundary = boundary;
            collection.stage = Stage::Listed;
            let engine = Arc::clone(&collection.engine);
            if dead::generation(&*engine.disk, engine.store_id).map_err(Error::from)? == generation
            {
                collection.follow(generation)?;
            }
            // Else its list was not written, so that nothing was removed.
            engine.set_unfollowed(None);
            engine.guard.finish();
            collection.stage = Stage::Marking;
        }
        let engine = &collection.engine;
        let boundary = match kind {
            CollectionKind::Sweep => {
                engine.log.ask(|answer| Request::Maintain(Maintenance::CloseTail { answer }))?
            }
            // Nothing goes, so whatever there is may be looked at.
            CollectionKind::Survey => u32::MAX,
        };
        engine
            .guard
            .lock()
            .start_marking(boundary)
            .map_err(|problem| Error::unavailable("cannot begin to collect").because(problem))?;
        collection.boundary = boundary;
        Ok(collection)
    }

    fn mark(&self, key: &ObjectKey) -> Result<u64> {
        Tracer::new(&self.engine).trace(key, &mut Mark(&self.engine))
    }

    /// Marks what is kept without anybody having named it.
    fn mark_implied(&mut self) -> Result<()> {
        self.mark_leased()?;
        self.mark_relied_on()?;
        self.mark_grey()
    }

    fn mark_leased(&self) -> Result<()> {
        let now_s = lease::now_s();
        let mut after = None;
        loop {
            let kind = lease::LEASE_KIND.0;
            let page = self.engine.index.scan_values(kind, after.as_deref(), LEASES_PAGE)?;
            for (key, value) in &page {
                match lease::decode(key, value) {
                    Some((root, until_s)) if until_s >= now_s => {
                        self.mark(&ObjectKey::of_root(&root))?;
                    }
                    _ => {}
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == LEASES_PAGE => after = Some(key.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// Marks what operations rely on that were running when marking began, and what clients were
    /// told of.
    fn mark_relied_on(&self) -> Result<()> {
        let hour = self.engine.guard.hour();
        if !self.engine.guard.lock().is_anything_relied_on() {
            return Ok(());
        }
        self.engine.index.sync()?;
        for entry in self.engine.index.written_objects() {
            let (key, _) = entry?;
            let is_relied_on = self.engine.guard.lock().is_relied_on(&key, hour);
            if is_relied_on {
                self.mark(&key)?;
            }
        }
        Ok(())
    }

    /// Marks what touched objects refer to.
    fn mark_grey(&self) -> Result<()> {
        loop {
            let grey = self.engine.guard.lock().take_grey();
            if grey.is_empty() {
                return Ok(());
            }
            for key in grey {
                Tracer::new(&self.engine).follow(&key, &mut Mark(&self.engine))?;
            }
        }
    }

    /// The packs that are old, by handle.
    fn old_packs(&self) -> Vec<(u32, PackId)> {
        let mut packs = self.engine.packs.all();
        packs.retain(|(handle, _)| *handle < self.boundary);
        packs.sort_unstable();
        packs
    }

    /// Looks at all old packs, and writes the list of what is dead in them.
    fn list_dead(
        &mut self,
        surveyor: &mut Surveyor<'_>,
        observer: &dyn CollectionObserver,
    ) -> Result<(Vec<PackSurvey>, u64)> {
        let engine = Arc::clone(&self.engine);
        let mut dead_list = engine.lock_dead_generation();
        let generation = *dead_list + 1;
        let mut writer = DeadListWriter::new(&*engine.disk, engine.store_id, generation)?;
        let packs = self.old_packs();
        let mut surveys = Vec::with_capacity(packs.len());
        for (done, (handle, id)) in packs.iter().enumerate() {
            observer.surveyed(done as u64, packs.len() as u64);
            let (survey, dead) = surveyor.survey(*handle, *id)?;
            writer.section(*id, &dead)?;
            surveys.push(survey);
        }
        observer.surveyed(packs.len() as u64, packs.len() as u64);
        // IMPORTANT: from here on opening the store would follow the list, so nothing of it may
        // count as stored again, whatever fails.
        self.stage = Stage::Listed;
        engine.set_unfollowed(Some((self.boundary, generation)));
        // IMPORTANT: first, since a list may be there although writing it failed. The index may
        // follow that one, and would not follow another of the same generation.
        *dead_list = generation;
        writer.finish()?;
        Ok((surveys, generation))
    }

    /// Removes what is condemned from the index, durably; what refers to others goes first.
    /// Returns how much that was.
    fn follow(&mut self, generation: u64) -> Result<u64> {
        let engine = &self.engine;
        // So that all of it is in tables.
        engine.index.sync()?;
        let (mut batch, mut removed) = (Vec::new(), 0);
        let mut courtesy = Courtesy::new(engine);
        for entry in engine.index.written_objects() {
            let (key, pack) = entry?;
            if engine.guard.lock().is_condemned(&key, pack) {
                batch.push((key, pack));
            }
            if batch.len() == REMOVED_TOGETHER {
                removed += engine.remove_indexed(std::mem::take(&mut batch))?;
                courtesy.rest();
            }
        }
        removed += engine.remove_indexed(batch)?;
        engine.log.ask(|answer| Request::Maintain(Maintenance::NoteDead { generation, answer }))?;
        engine.index.sync()?;
        self.stage = Stage::Followed;
        engine.set_unfollowed(None);
        Ok(removed)
    }

    /// Leaves the packs that are gone out of the list of dead objects.
    fn tidy_dead_list(&self) -> Result<()> {
        let engine = &self.engine;
        let mut newest = engine.lock_dead_generation();
        let generation = *newest + 1;
        *newest = generation;
        let there: HashSet<_> = engine.packs.all().into_iter().map(|(_, id)| id).collect();
        dead::tidy(&*engine.disk, engine.store_id, generation, |id| there.contains(&id))?;
        drop(newest);
        engine.log.ask(|answer| Request::Maintain(Maintenance::NoteDead { generation, answer }))
    }

    /// Removes packs of which nothing is wanted any more.
    fn remove_packs(&self, losses: u64, packs: &[(u32, PackId)]) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        let engine = &self.engine;
        let handles: Vec<_> = packs.iter().map(|(handle, _)| *handle).collect();
        let request = |answer| {
            Request::Maintain(Maintenance::ForgetPacks { losses, handles: handles.clone(), answer })
        };
        engine.log.ask(request)?;
        // IMPORTANT: before a file goes. An index that a crash leaves must not point to it.
        engine.index.sync()?;
        for (handle, id) in packs {
            engine.packs.remove(*handle);
            if let Err(error) = engine.disk.remove(&id.file_name()) {
                // IMPORTANT: as long as it is there, what is dead in it must stay in the list, or
                // it would come back with the next start. The next collection tries again.
                engine.packs.add(*handle, *id);
                return Err(error.into());
            }
        }
        Ok(engine.disk.sync_dir(PACKS_DIR)?)
    }

    /// Makes space: removes packs, after moving what is wanted out of them.
    fn free(
        &self,
        surveyor: &Surveyor<'_>,
        surveys: Vec<PackSurvey>,
        options: &SweepOptions<'_>,
        swept: &mut Swept,
    ) -> Result<()> {
        let losses = self.engine.log.losses();
        let plan = Plan::new(surveys, options.max_unused_permille, self.engine.pack_bytes, swept);
        let empty: Vec<_> = plan.empty.iter().map(|pack| (pack.handle, pack.id)).collect();
        self.move_values(surveyor, &plan.empty, options)?;
        self.remove_packs(losses, &empty)?;
        swept.removed_packs += empty.len() as u64;

        let total_bytes = plan.partly.iter().map(|pack| pack.live_bytes).sum();
        let mut done_bytes = 0;
        let mut rewriter = Rewriter::new(&self.engine, options.bytes_per_s)?;
        for packs in plan.partly.chunks(PACKS_COPIED_TOGETHER) {
            let mut moved = Vec::new();
            for pack in packs {
                options.observer.copied(done_bytes, total_bytes);
                match rewriter.move_pack(pack.handle, pack.id, surveyor)? {
                    Moved::All => moved.push((pack.handle, pack.id)),
                    Moved::Damaged => {
                        swept.damaged_packs += 1;
                        swept.unused_bytes_after += pack.unused_bytes();
                    }
                }
                done_bytes += pack.live_bytes;
            }
            self.remove_packs(losses, &moved)?;
            swept.removed_packs += moved.len() as u64;
        }
        options.observer.copied(total_bytes, total_bytes);
        swept.copied_bytes = rewriter.copied_bytes();
        Ok(())
    }

    /// Forgets what may be forgotten of packs that have nothing else.
    fn move_values(
        &self,
        surveyor: &Surveyor<'_>,
        packs: &[PackSurvey],
        options: &SweepOptions<'_>,
    ) -> Result<()> {
        let mut rewriter = Rewriter::new(&self.engine, options.bytes_per_s)?;
        for pack in packs {
            rewriter.move_pack(pack.handle, pack.id, surveyor)?;
        }
        Ok(())
    }
}

impl Collection for EngineCollection {
    fn keep(&mut self, root: &Root) -> Result<u64> {
        self.mark(&ObjectKey::of_root(root))
    }

    fn weigh(&mut self, root: &Root) -> Result<u64> {
        let mut weigh = Weigh { engine: &self.engine, weighed: &mut self.weighed };
        Tracer::new(&self.engine).trace(&ObjectKey::of_root(root), &mut weigh)
    }

    fn weigh_anew(&mut self) {
        self.weighed = HashSet::new();
    }

    fn condemn(&mut self) -> Result<()> {
        if self.kind == CollectionKind::Survey {
            return Err(Error::invalid("this collection is there to look, and not to remove"));
        }
        if self.stage != Stage::Marking {
            return Ok(());
        }
        self.weigh_anew();
        self.mark_implied()?;
        while !self.engine.guard.lock().condemn() {
            self.mark_grey()?;
        }
        self.stage = Stage::Condemned;
        Ok(())
    }

    fn is_kept(&self, root: &Root) -> Result<bool> {
        let key = ObjectKey::of_root(root);
        if self.engine.stays(&key)? {
            return Ok(true);
        }
        match root {
            Root::Blob(digest) => {
                self.engine.stays(&ObjectKey::Object(ObjectKind::Chunk, *digest.as_bytes()))
            }
            Root::Directory(_) => Ok(false),
        }
    }

    fn survey(&mut self) -> Result<Survey> {
        if self.stage == Stage::Marking {
            self.mark_implied()?;
        }
        let mut surveyor = Surveyor::new(&self.engine);
        let mut sum = Survey { stored_bytes: self.engine.stored_bytes()?, ..Survey::default() };
        for (handle, id) in self.old_packs() {
            let (survey, _) = surveyor.survey(handle, id)?;
            if !survey.is_damaged {
                sum.unused_bytes += survey.unused_bytes();
            }
            sum.unused_objects += survey.dead_objects;
        }
        Ok(sum)
    }

    fn sweep(&mut self, options: &SweepOptions<'_>) -> Result<Swept> {
        self.condemn()?;
        let engine = Arc::clone(&self.engine);
        let mut swept = Swept { stored_bytes_before: engine.stored_bytes()?, ..Swept::default() };
        let mut surveyor = Surveyor::new(&engine);
        let (surveys, generation) = self.list_dead(&mut surveyor, options.observer)?;
        swept.removed_objects = self.follow(generation)?;
        // What was condemned is nowhere in the index, so nobody needs to be told any more.
        // Marks are still needed, to tell what is wanted of the packs.
        self.free(&surveyor, surveys, options, &mut swept)?;
        self.tidy_dead_list()?;
        if swept.removed_objects > 0 {
            engine.index.compact()?;
        }
        swept.stored_bytes_after = engine.stored_bytes()?;
        Ok(swept)
    }
}

impl Drop for EngineCollection {
    fn drop(&mut self) {
        // If the list of what is dead was written and the index could not follow, what was
        // condemned must go on counting as not stored, until the next collection follows.
        if self.stage != Stage::Listed {
            self.engine.guard.finish();
        }
        self.engine.is_collecting.store(false, Ordering::Release);
    }
}

impl Inner {
    /// Removes objects from the index that still lie in the packs that are named, and returns how
    /// many did.
    pub(crate) fn remove_indexed(&self, objects: Vec<(ObjectKey, u32)>) -> Result<u64> {
        if objects.is_empty() {
            return Ok(0);
        }
        self.log.ask(|answer| Request::Maintain(Maintenance::Remove { objects, answer }))
    }

    /// Bytes of all packs.
    pub(crate) fn stored_bytes(&self) -> Result<u64> {
        let mut stored_bytes = 0;
        for (_, id) in self.packs.all() {
            if let Some(file) = self.disk.open(&id.file_name())? {
                stored_bytes += file.len()?;
            }
        }
        Ok(stored_bytes)
    }

    /// Generation of the newest list of dead objects, locked against others who write one.
    pub(crate) fn lock_dead_generation(&self) -> MutexGuard<'_, u64> {
        self.dead_generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Boundary and generation of a collection whose list the index has not followed.
    pub(super) fn unfollowed(&self) -> Option<(u32, u64)> {
        *self.unfollowed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_unfollowed(&self, unfollowed: Option<(u32, u64)>) {
        *self.unfollowed.lock().unwrap_or_else(PoisonError::into_inner) = unfollowed;
    }
}

//! Garbage collection: the steps and their order.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use granary_castore::{
    Collection, CollectionKind, CollectionObserver, Collector, RecordKind, RecordWrite, Result,
    Root, SweepOptions, Swept,
};

use super::{
    catalogue::{Catalogue, CataloguedPath, PathNumber},
    kept_paths::KeptPaths,
    pin,
    plan::{Plan, Wanted},
    report::{GcReport, Package, package_name},
};
use crate::{Store, document, kinds, node_record::NodeKey, upload, uses::unix_now_s};

/// Records that are read, or removed, at a time.
const PAGE: usize = 1_000;

/// How often a collection begins anew when less has become free than was expected.
const MAX_ROUNDS: usize = 5;

/// What is to be removed, and how. What is not said is as the store is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GcOptions {
    /// Only say what would go.
    pub dry_run: bool,
    /// Keep what was used or uploaded within this time.
    pub keep_for: Option<Duration>,
    /// Then let the least recently used paths go until all packs have no more bytes than this.
    pub max_stored_bytes: Option<u64>,
    /// What may stay unused, in thousandths of the whole: making less of it costs copying more.
    pub max_unused_permille: Option<u32>,
    /// Bytes copied per second, at most; as fast as it goes if none.
    pub bytes_per_s: Option<u64>,
}

impl GcOptions {
    /// How long what was used is kept, unless told otherwise: 90 days.
    pub const DEFAULT_KEEP_FOR: Duration = Duration::from_secs(90 * 24 * 60 * 60);

    /// What may stay unused, unless told otherwise.
    pub const DEFAULT_MAX_UNUSED_PERMILLE: u32 = 80;

    /// These, and what they do not say as `others` do.
    #[must_use]
    pub fn or(&self, others: &Self) -> Self {
        Self {
            dry_run: self.dry_run,
            keep_for: self.keep_for.or(others.keep_for),
            max_stored_bytes: self.max_stored_bytes.or(others.max_stored_bytes),
            max_unused_permille: self.max_unused_permille.or(others.max_unused_permille),
            bytes_per_s: self.bytes_per_s.or(others.bytes_per_s),
        }
    }

    fn keep_for(&self) -> Duration {
        self.keep_for.unwrap_or(Self::DEFAULT_KEEP_FOR)
    }
}

/// Which step a collection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcStage {
    /// Of so many paths, so many are found to be kept.
    Marking,
    /// Of so many packs, so many were looked at.
    Surveying,
    /// Of so many bytes that are to be moved, so many were.
    Copying,
}

/// Is told how far a collection has come, on the thread that called for it.
pub trait GcObserver: Send + Sync {
    /// Of `total` of what `stage` counts, `done` are done.
    fn progress(&self, _stage: GcStage, _done: u64, _total: u64) {}
}

/// Nobody watches.
impl GcObserver for () {}

/// Tells the observer of a collection what the store of the contents tells.
struct Forward<'a>(&'a dyn GcObserver);

impl CollectionObserver for Forward<'_> {
    fn surveyed(&self, done: u64, total: u64) {
        self.0.progress(GcStage::Surveying, done, total);
    }

    fn copied(&self, done_bytes: u64, total_bytes: u64) {
        self.0.progress(GcStage::Copying, done_bytes, total_bytes);
    }
}

pub(super) fn collect(
    store: &Store,
    collector: &dyn Collector,
    options: &GcOptions,
    observer: &dyn GcObserver,
) -> Result<GcReport> {
    let mut report = GcReport { dry_run: options.dry_run, ..GcReport::default() };
    let mut max_bytes = options.max_stored_bytes;
    for round in 0..MAX_ROUNDS {
        let mut run = Run { store, options, observer, max_bytes, report: &mut report };
        run.round(collector, round == 0)?;
        let Some(limit) = options.max_stored_bytes else { break };
        let (stored, kept) = (report.stored_bytes_after, report.kept_paths);
        if options.dry_run || stored <= limit || kept == 0 {
            break;
        }
        // What is kept takes more than was thought: headers, unused bytes. Aim lower, unless there
        // is nothing left but what is pinned.
        let target = max_bytes.unwrap_or(limit);
        if target == 0 {
            break;
        }
        max_bytes = Some(target.saturating_sub(stored - limit).saturating_sub(limit / 100));
    }
    Ok(report)
}

/// One time through all the steps.
struct Run<'a> {
    store: &'a Store,
    options: &'a GcOptions,
    observer: &'a dyn GcObserver,
    max_bytes: Option<u64>,
    report: &'a mut GcReport,
}

/// Watches what is used until it is dropped.
struct Watch<'a>(&'a Store);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.uses().unwatch();
    }
}

impl Run<'_> {
    fn round(&mut self, collector: &dyn Collector, is_first: bool) -> Result<()> {
        // IMPORTANT: in this order. What is used from now on does not go; what is written from
        // now on is marked; and then the paths are read.
        let dry_run = self.options.dry_run;
        let kind = if dry_run { CollectionKind::Survey } else { CollectionKind::Sweep };
        let mut collection = collector.begin_collection(kind)?;
        {
            // Whoever relies on what it looked up before has written its record then.
            let _removing = self.store.removing();
            self.store.uses().watch();
        }
        let watch = Watch(self.store);
        // What was used until now counts as well.
        self.store.flush_uses()?;
        let now_unix_s = unix_now_s();
        let pins = pin::valid(self.store)?;
        let catalogue = Catalogue::read(self.store, now_unix_s)?;
        let wanted = Wanted {
            pins: &pins,
            now_unix_s,
            keep_for: self.options.keep_for(),
            max_bytes: self.max_bytes,
        };
        let observer = self.observer;
        let marked = &mut |done, total| observer.progress(GcStage::Marking, done, total);
        let mut plan = Plan::make(&catalogue, &wanted, &mut *collection, marked)?;
        if !dry_run {
            self.remove_paths(&catalogue, &mut plan, &mut *collection)?;
        }
        self.keep_others(&catalogue, &plan, &mut *collection, now_unix_s)?;
        self.weigh_evicted(&catalogue, &plan, &mut *collection)?;
        self.report.kept_paths = plan.is_kept.iter().filter(|is_kept| **is_kept).count() as u64;
        if dry_run {
            let survey = collection.survey()?;
            self.report.stored_bytes_before = survey.stored_bytes;
            self.report.stored_bytes_after = survey.stored_bytes - survey.unused_bytes;
            self.report.removed_objects = survey.unused_objects;
            return Ok(());
        }
        self.report.expired_pins += self.remove_expired_pins(now_unix_s)?;
        collection.condemn()?;
        self.remove_stale_records(&*collection)?;
        drop(watch);
        let forward = Forward(self.observer);
        let swept = collection.sweep(&SweepOptions {
            max_unused_permille: self
                .options
                .max_unused_permille
                .unwrap_or(GcOptions::DEFAULT_MAX_UNUSED_PERMILLE),
            bytes_per_s: self.options.bytes_per_s,
            observer: &forward,
        })?;
        self.add_swept(&swept, is_first);
        Ok(())
    }

    fn add_swept(&mut self, swept: &Swept, is_first: bool) {
        let report = &mut *self.report;
        if is_first {
            report.stored_bytes_before = swept.stored_bytes_before;
        }
        report.stored_bytes_after = swept.stored_bytes_after;
        report.unused_bytes_after = swept.unused_bytes_after;
        report.removed_objects += swept.removed_objects;
        report.copied_bytes += swept.copied_bytes;
        report.removed_packs += swept.removed_packs;
        report.damaged_packs = swept.damaged_packs;
    }

    /// Removes the path infos of what goes, but for what was used meanwhile, which is kept then
    /// with all that it refers to.
    fn remove_paths(
        &mut self,
        catalogue: &Catalogue,
        plan: &mut Plan,
        collection: &mut dyn Collection,
    ) -> Result<()> {
        let mut gone = Vec::new();
        for paths in plan.evicted.chunks(PAGE) {
            let paths: Vec<_> = paths.iter().filter(|path| !plan.is_kept[**path]).collect();
            let hash = |path: PathNumber| *catalogue.paths[path].store_path.hash();
            let hashes: Vec<_> = paths.iter().map(|path| hash(**path)).collect();
            let removing = self.store.removing();
            let used = self.store.uses().begin_removal(&hashes);
            let mut spared = Vec::new();
            for path in paths.iter().filter(|path| used.contains(&hash(***path))) {
                spared.extend(catalogue.add_closure(**path, &mut plan.is_kept));
            }
            let going: Vec<_> = paths.iter().filter(|path| !plan.is_kept[***path]).collect();
            let writes = going.iter().flat_map(|path| removal(&catalogue.paths[***path])).collect();
            let removed = self.store.records().write_records(writes);
            self.store.uses().end_removal();
            drop(removing);
            removed?;
            gone.extend(going.into_iter().map(|path| **path));
            for root in spared.into_iter().filter_map(|path| catalogue.paths[path].root.as_ref()) {
                collection.keep(root)?;
            }
        }
        plan.evicted = gone;
        Ok(())
    }

    /// Names what is kept without a path: uploads that are still waited for, and documents.
    fn keep_others(
        &self,
        catalogue: &Catalogue,
        plan: &Plan,
        collection: &mut dyn Collection,
        now_unix_s: u64,
    ) -> Result<()> {
        let claimed: HashSet<_> = catalogue.paths.iter().filter_map(|path| path.root).collect();
        self.for_each_record(kinds::UPLOADED_NAR, |key, value| {
            let uploaded = upload::decode_record(key, value)?;
            let is_waited_for =
                uploaded.touched_unix_s.saturating_add(upload::UNCLAIMED_S) >= now_unix_s;
            if let Some(root) = Root::of(&uploaded.node)
                && is_waited_for
                && !claimed.contains(&root)
            {
                collection.keep(&root)?;
            }
            Ok(())
        })?;
        let kept = KeptPaths::new(catalogue, plan);
        let oldest = now_unix_s.saturating_sub(self.options.keep_for().as_secs());
        self.for_each_record(kinds::DOCUMENT, |key, value| {
            let document = document::decode(key, value)?;
            if kept.wants_document(key, document.put_unix_s >= oldest) {
                collection.keep(&Root::Blob(document.document.digest))?;
            }
            Ok(())
        })
    }

    /// Says what goes, by package.
    fn weigh_evicted(
        &mut self,
        catalogue: &Catalogue,
        plan: &Plan,
        collection: &mut dyn Collection,
    ) -> Result<()> {
        // With a limit, one was weighed already to find out that it does not fit.
        collection.weigh_anew();
        let mut packages: BTreeMap<String, Package> = BTreeMap::new();
        for package in std::mem::take(&mut self.report.packages) {
            packages.insert(package.name.clone(), package);
        }
        for path in &plan.evicted {
            let CataloguedPath { store_path, root, .. } = &catalogue.paths[*path];
            let name = package_name(store_path.name());
            let package = packages.entry(name.to_owned()).or_default();
            name.clone_into(&mut package.name);
            package.paths += 1;
            package.bytes += match root {
                Some(root) => collection.weigh(root)?,
                None => 0,
            };
        }
        self.report.removed_paths += plan.evicted.len() as u64;
        self.report.packages = packages.into_values().collect();
        self.report.packages.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.name.cmp(&b.name)));
        Ok(())
    }

    fn remove_expired_pins(&self, now_unix_s: u64) -> Result<u64> {
        // Held all the time: one that is made anew under the same name must stay.
        let _removing = self.store.removing();
        let pins = pin::list(self.store)?;
        let expired: Vec<_> = pins
            .iter()
            .filter(|pin| pin.is_expired(now_unix_s))
            .map(|pin| pin::removal(&pin.name))
            .collect();
        let count = expired.len() as u64;
        self.remove(&expired)?;
        Ok(count)
    }

    /// Removes records of what is condemned: nobody may take them for proof that it is there.
    fn remove_stale_records(&self, collection: &dyn Collection) -> Result<()> {
        for kind in [kinds::NAR_DIGEST, kinds::UPLOADED_NAR, kinds::DOCUMENT] {
            let is_stale = |key: &[u8], value: &[u8]| -> Result<bool> {
                let root = root_of_record(kind, key, value)?;
                root.map_or(Ok(false), |root| collection.is_kept(&root).map(|is_kept| !is_kept))
            };
            let mut stale = Vec::new();
            self.for_each_record(kind, |key, value| {
                if is_stale(key, value)? {
                    stale.push(Bytes::copy_from_slice(key));
                }
                Ok(())
            })?;
            for keys in stale.chunks(PAGE) {
                // They may have been written anew since, for something else that is there.
                let _removing = self.store.removing();
                let mut removals = Vec::new();
                for key in keys {
                    if let Some(value) = self.store.records().record(kind, key)?
                        && is_stale(key, &value)?
                    {
                        removals.push(record_removal(kind, key));
                    }
                }
                self.store.records().write_records(removals)?;
            }
        }
        Ok(())
    }

    fn remove(&self, removals: &[RecordWrite]) -> Result<()> {
        for removals in removals.chunks(PAGE) {
            self.store.records().write_records(removals.to_vec())?;
        }
        Ok(())
    }

    fn for_each_record(
        &self,
        kind: RecordKind,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut after: Option<Bytes> = None;
        loop {
            let page = self.store.records().scan_records(kind, after.as_deref(), PAGE)?;
            for (key, value) in &page {
                each(key, value)?;
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(()),
            }
        }
    }
}

/// What a record of a NAR, an upload or a document is about; `None` if that is no contents.
fn root_of_record(kind: RecordKind, key: &[u8], value: &[u8]) -> Result<Option<Root>> {
    Ok(match kind {
        kinds::NAR_DIGEST => NodeKey::root_of(key),
        kinds::UPLOADED_NAR => Root::of(&upload::decode_record(key, value)?.node),
        _ => Some(Root::Blob(document::decode(key, value)?.document.digest)),
    })
}

/// The writes that remove what is known of a path.
pub(super) fn removal(path: &CataloguedPath) -> [RecordWrite; 2] {
    let key = path.store_path.hash().as_bytes();
    [record_removal(kinds::PATH_INFO, key), record_removal(kinds::LAST_USE, key)]
}

pub(super) fn record_removal(kind: RecordKind, key: &[u8]) -> RecordWrite {
    RecordWrite { kind, key: Bytes::copy_from_slice(key), value: None }
}

//! The store: path infos and NARs over a castore and its records.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use granary_castore::{
    BlobService, Castore, Chain, DirectoryService, Error, Node, RecordStore, RecordWrite, Result,
    Root, Touch,
};
use granary_nix_formats::{Listing, PublicKey, SigningKey, StorePathHash};

use crate::{
    NarDigest, NarPlan, PathInfo, PathInfoService, Provenance, kinds, listing, nar_digest_record,
    node_record::NodeKey,
    path_info_record,
    plan_cache::PlanCache,
    served::WarnedPaths,
    tracked_records::TrackedRecords,
    uses::{self, Uses},
};

/// How many path infos are read from the records at a time when all are listed.
const PATH_INFO_PAGE: usize = 1_000;

/// What a [`Store`] can be told when it is made.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// Signs what is served to Nix, if given.
    pub signing_key: Option<SigningKey>,
}

/// Path infos, NARs, uploads and documents over a castore and its records.
///
/// All methods but [`is_current`](Store::is_current) and
/// [`planned_nar_now`](Store::planned_nar_now) may block; they can be called from many threads at
/// once.
pub struct Store {
    castore: Arc<dyn Castore>,
    records: TrackedRecords,
    options: StoreOptions,
    plans: PlanCache,
    /// Held while a plan is made.
    planning: Mutex<()>,
    pub(crate) warned: WarnedPaths,
    uses: Uses,
    /// See [`Store::writing`] and [`Store::removing`].
    removal: RwLock<()>,
}

impl Store {
    /// A store over `castore` and `records`, which are two sides of one store as a rule.
    ///
    /// From then on, records must be written through this store alone: by its methods, or by
    /// [`records`](Self::records). It does not notice others, and what
    /// [`is_current`](Self::is_current) says would be wrong.
    pub fn new(
        castore: Arc<dyn Castore>,
        records: Arc<dyn RecordStore>,
        options: StoreOptions,
    ) -> Self {
        let records = TrackedRecords::new(records);
        let (plans, warned) = (PlanCache::default(), WarnedPaths::default());
        let (planning, uses, removal) = (Mutex::default(), Uses::default(), RwLock::default());
        Self { castore, records, options, plans, planning, warned, uses, removal }
    }

    /// To be held by who writes a record that leads to contents, or to other records, from before
    /// it looks at these until it is written. Not to be taken twice.
    pub(crate) fn writing(&self) -> RwLockReadGuard<'_, ()> {
        self.removal.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be held by who removes such records, while it decides for the last time and writes.
    ///
    /// IMPORTANT: else a record that was just written, and acknowledged, would be removed for what
    /// was known of the one before it.
    pub(crate) fn removing(&self) -> RwLockWriteGuard<'_, ()> {
        self.removal.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blobs and directories.
    pub fn castore(&self) -> &Arc<dyn Castore> {
        &self.castore
    }

    /// The records.
    pub fn records(&self) -> &dyn RecordStore {
        &self.records
    }

    /// Whether an answer of this store would be made of the same again: no record of its
    /// `provenance` was written since. This takes no look-up and never blocks.
    pub fn is_current(&self, provenance: &Provenance) -> bool {
        self.records.is_current(provenance)
    }

    pub(crate) fn uses(&self) -> &Uses {
        &self.uses
    }

    /// Notes that a path is used now, which keeps it from being collected for some time. That is
    /// written with the next [`flush_uses`](Self::flush_uses). False if the path is being removed:
    /// then it is to be treated as if it were not stored. Never blocks for long.
    pub fn note_use(&self, hash: &StorePathHash) -> bool {
        self.uses.note(hash)
    }

    /// Writes when paths were used last, as far as that is news.
    ///
    /// # Errors
    ///
    /// If it could not be made durable. Then some of it is forgotten.
    pub fn flush_uses(&self) -> Result<()> {
        self.uses.flush(&self.records)
    }

    /// The public half of the key that signs what is served.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.options.signing_key.as_ref().map(SigningKey::public_key)
    }

    pub(crate) fn signing_key(&self) -> Option<&SigningKey> {
        self.options.signing_key.as_ref()
    }

    /// The blobs.
    pub fn blobs(&self) -> &dyn BlobService {
        &*self.castore
    }

    /// The directories.
    pub fn directories(&self) -> &dyn DirectoryService {
        &*self.castore
    }

    /// The plan of the NAR of `node`, made now or taken from those used lately. `None` if a
    /// directory is not stored.
    ///
    /// # Errors
    ///
    /// As [`NarPlan::new`].
    pub fn plan(&self, node: &Node) -> Result<Option<Arc<NarPlan>>> {
        let key = NodeKey::of(node);
        let cached = || key.as_ref().and_then(|key| self.plans.get(key));
        if let Some(plan) = cached() {
            return Ok(Some(plan));
        }
        // One at a time: plans can be large, and who asks for one that is being made had
        // better wait for it.
        let _turn = self.planning.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = cached() {
            return Ok(Some(plan));
        }
        let plan = NarPlan::new(self.directories(), node)?.map(Arc::new);
        if let (Some(key), Some(plan)) = (key, &plan) {
            self.plans.insert(key, plan);
        }
        Ok(plan)
    }

    /// Size, hash and plan of the NAR of `node`; `None` if not all of its contents are stored.
    ///
    /// # Errors
    ///
    /// As [`plan`](Self::plan) and [`calculate_nar`](PathInfoService::calculate_nar).
    pub fn planned_nar(&self, node: &Node) -> Result<Option<(NarDigest, Arc<NarPlan>)>> {
        let mut provenance = Provenance::new();
        // Its hash is remembered, or else this finds out whether all of it is there.
        let Some(nar) = self.noted_nar(node, &mut provenance)? else { return Ok(None) };
        let Some(plan) = self.plan(node)? else { return Ok(None) };
        if let Some(key) = NodeKey::of(node) {
            self.plans.note_nar(&key, nar, provenance);
        }
        Ok(Some((nar, plan)))
    }

    /// The same, if it was asked for lately and nothing that it was made of was written since. This
    /// takes no look-up and never blocks for long.
    pub fn planned_nar_now(&self, node: &Node) -> Option<(NarDigest, Arc<NarPlan>)> {
        let (plan, nar, provenance) = self.plans.get_nar(&NodeKey::of(node)?)?;
        self.is_current(&provenance).then_some((nar, plan))
    }

    /// What is in `node`, with the place of each file in the NAR. `None` if a directory is
    /// not stored.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if a name or target is not UTF-8, which a listing cannot hold;
    /// [`Error::TooLarge`] if the tree is too deep or too large for one; or whatever the
    /// store fails with.
    pub fn listing(&self, node: &Node) -> Result<Option<Listing>> {
        listing::of_tree(self.directories(), node)
    }

    /// Remembers the NAR of `node`, so that it is not computed again.
    ///
    /// Only for who made both from the same contents, as [`ingest_nar`](crate::ingest_nar)
    /// and [`ingest_path`](crate::ingest_path) do, and committed them: what is remembered is
    /// taken as verified.
    ///
    /// # Errors
    ///
    /// If it could not be made durable.
    pub fn remember_nar(&self, node: &Node, nar: &NarDigest) -> Result<()> {
        let Some(write) = nar_digest_write(node, nar) else { return Ok(()) };
        let _hold = self.castore.hold();
        let _writing = self.writing();
        if !self.touch_node(node)? {
            // It was collected meanwhile, and nobody may take this for proof that it is there.
            return Ok(());
        }
        self.records.write_records(vec![write])
    }

    /// Keeps a path info together with the digest of its NAR, which the caller made from the
    /// same contents.
    ///
    /// The caller holds the contents since before they were committed.
    pub(crate) fn put_verified_path_info(
        &self,
        path_info: &PathInfo,
        nar: &NarDigest,
    ) -> Result<()> {
        let _writing = self.writing();
        self.write_path_info(path_info, nar_digest_write(&path_info.node, nar))
    }

    /// Writes a path info and `more`; and sees to it that what it refers to stays, as far as it
    /// is there. The caller holds [`writing`](Self::writing).
    pub(crate) fn write_path_info(
        &self,
        path_info: &PathInfo,
        more: Option<RecordWrite>,
    ) -> Result<()> {
        self.touch_node(&path_info.node)?;
        // Also the path itself, or a collection that has found it unused would remove it. That
        // references are there is not required.
        for used in path_info.references.iter().chain([path_info.store_path.hash()]) {
            self.uses.note(used);
        }
        let used = uses::write(path_info.store_path.hash(), uses::unix_now_s());
        let writes = [path_info_record::write(path_info), used];
        self.records.write_records(writes.into_iter().chain(more).collect())
    }

    /// Whether the root of `node` is stored: a cheap sign that its contents live. They stay, then,
    /// for as long as a hold lasts that the caller took before.
    pub(crate) fn touch_node(&self, node: &Node) -> Result<bool> {
        Root::of(node).map_or(Ok(true), |root| self.castore.touch(&root, Touch::Hold))
    }

    /// As [`path_info`](PathInfoService::path_info), and notes what it looks up.
    pub(crate) fn noted_path_info(
        &self,
        hash: &StorePathHash,
        provenance: &mut Provenance,
    ) -> Result<Option<PathInfo>> {
        let key = hash.as_bytes();
        let value = self.records.noted_record(kinds::PATH_INFO, key, provenance)?;
        value.map(|value| path_info_record::decode(key, &value)).transpose()
    }

    /// As [`calculate_nar`](PathInfoService::calculate_nar), and notes what it looks up. That
    /// is not current from the start if the NAR had to be read, since it is remembered then.
    pub(crate) fn noted_nar(
        &self,
        node: &Node,
        provenance: &mut Provenance,
    ) -> Result<Option<NarDigest>> {
        let Some(key) = NodeKey::of(node) else { return self.compute_nar(node) };
        let key = key.as_bytes();
        if let Some(value) = self.records.noted_record(kinds::NAR_DIGEST, key, provenance)? {
            return nar_digest_record::decode(&value).map(Some);
        }
        let nar = self.compute_nar(node)?;
        if let Some(nar) = &nar
            && let Err(error) = self.remember_nar(node, nar)
        {
            // Whoever asked only reads, and can do so on a full disk.
            tracing::warn!(
                error = %Chain(&error),
                "the hash of a NAR cannot be kept; it is made again when it is asked for"
            );
        }
        Ok(nar)
    }

    fn compute_nar(&self, node: &Node) -> Result<Option<NarDigest>> {
        if let Node::File { digest, size_bytes, .. } = node {
            // What a caller claims of the root is the caller's fault, not corruption.
            match self.castore.stat(digest)? {
                None => return Ok(None),
                Some(stat) if stat.size_bytes != *size_bytes => {
                    return Err(Error::invalid(format!(
                        "file {digest} has {} bytes, and not {size_bytes} as is claimed",
                        stat.size_bytes
                    )));
                }
                Some(_) => {}
            }
        }
        match self.plan(node)? {
            Some(plan) => plan.digest(self.blobs()),
            None => Ok(None),
        }
    }
}

/// The write that remembers the NAR of `node`, unless it costs nothing to compute.
pub(crate) fn nar_digest_write(node: &Node, nar: &NarDigest) -> Option<RecordWrite> {
    NodeKey::of(node).map(|key| nar_digest_record::write(&key, nar))
}

impl PathInfoService for Store {
    fn path_info(&self, hash: &StorePathHash) -> Result<Option<PathInfo>> {
        if !self.note_use(hash) {
            return Ok(None);
        }
        let found = self.noted_path_info(hash, &mut Provenance::new())?;
        if found.is_none() {
            self.uses.forget(hash);
        }
        Ok(found)
    }

    fn put_path_info(&self, path_info: PathInfo) -> Result<PathInfo> {
        let _hold = self.castore.hold();
        let _writing = self.writing();
        self.write_path_info(&path_info, None)?;
        Ok(path_info)
    }

    fn path_infos(&self) -> Box<dyn Iterator<Item = Result<PathInfo>> + Send + '_> {
        Box::new(PathInfos {
            records: &self.records,
            page: Vec::new().into_iter(),
            next: Next::First,
        })
    }

    fn path_infos_after(
        &self,
        after: Option<&StorePathHash>,
        limit: usize,
    ) -> Result<Vec<PathInfo>> {
        let after = after.map(|hash| &hash.as_bytes()[..]);
        let page = self.records.scan_records(kinds::PATH_INFO, after, limit)?;
        page.iter().map(|(key, value)| path_info_record::decode(key, value)).collect()
    }

    fn calculate_nar(&self, node: &Node) -> Result<Option<NarDigest>> {
        self.noted_nar(node, &mut Provenance::new())
    }
}

/// All path infos, page by page.
struct PathInfos<'a> {
    records: &'a dyn RecordStore,
    page: std::vec::IntoIter<(bytes::Bytes, bytes::Bytes)>,
    next: Next,
}

/// Where the next page begins.
enum Next {
    First,
    Behind(bytes::Bytes),
    End,
}

impl PathInfos<'_> {
    fn turn_page(&mut self) -> Result<()> {
        let after = match &self.next {
            Next::First => None,
            Next::Behind(key) => Some(&key[..]),
            Next::End => return Ok(()),
        };
        let page = self.records.scan_records(kinds::PATH_INFO, after, PATH_INFO_PAGE)?;
        self.next = match page.last() {
            Some((key, _)) if page.len() == PATH_INFO_PAGE => Next::Behind(key.clone()),
            _ => Next::End,
        };
        self.page = page.into_iter();
        Ok(())
    }
}

impl Iterator for PathInfos<'_> {
    type Item = Result<PathInfo>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.len() == 0
            && let Err(error) = self.turn_page()
        {
            self.next = Next::End;
            return Some(Err(error));
        }
        let (key, value) = self.page.next()?;
        Some(path_info_record::decode(&key, &value))
    }
}

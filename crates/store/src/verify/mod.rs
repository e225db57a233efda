//! Verification of path infos and what they stand for: whether all of it is there, and is what
//! they say.

mod contents;
mod nar;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;
use granary_castore::{BlobDigest, Chain, DirectoryDigest, Error, ObjectName, Result, Severity};
use granary_nix_formats::{StorePath, StorePathHash};

use crate::{
    Finding, NarFacts, PathInfo, Store, VerifyObserver, VerifyOptions, VerifyPhase, VerifyProgress,
    document, kinds, nar_digest_record, node_record::NodeKey, path_info_record,
    served::check_facts,
};
use contents::Contents;

/// How many records are looked at together.
const PAGE: usize = 256;

/// Most findings that are kept; further ones are counted.
const MAX_FINDINGS: usize = 10_000;

/// What is known to be unreadable below the path infos.
#[derive(Debug, Clone, Default)]
pub struct Unreadable {
    /// Blobs, and the objects because of which they cannot be read.
    pub blobs: HashMap<BlobDigest, Vec<ObjectName>>,
    /// Directories.
    pub directories: HashSet<DirectoryDigest>,
}

/// What was found about path infos.
#[derive(Debug, Clone, Default)]
pub struct PathsReport {
    /// How many there are.
    pub path_count: u64,
    /// NARs that were rendered and hashed.
    pub nar_count: u64,
    /// Signatures that were checked.
    pub signature_count: u64,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// How many more there are than were kept.
    pub omitted_findings: u64,
    /// How many of all findings are damage.
    pub error_count: u64,
    /// Paths whose contents are not all there and right.
    pub damaged_paths: BTreeSet<StorePath>,
    /// Objects that are not there or cannot be read, and the paths that need them.
    pub damaged_objects: BTreeMap<ObjectName, BTreeSet<StorePath>>,
}

impl Store {
    /// Verifies all path infos: that they can be read, that their contents are there, and that
    /// what they say of them is so. Blobs are not read, but for `nar`: which of them are
    /// unreadable is told.
    ///
    /// # Errors
    ///
    /// If `observer` breaks, or the store cannot tell.
    pub fn verify_paths(
        &self,
        options: &VerifyOptions,
        unreadable: &Unreadable,
        observer: &dyn VerifyObserver,
    ) -> Result<PathsReport> {
        let collector = Collector::default();
        let totals = self.totals()?;
        let mut verification = PathsVerification {
            store: self,
            options,
            contents: Contents::new(self, unreadable),
            collector: &collector,
        };
        let mut done = Done { observer, paths: 0, nar_bytes: 0, totals };
        let mut after: Option<Bytes> = None;
        loop {
            let page = self.records().scan_records(kinds::PATH_INFO, after.as_deref(), PAGE)?;
            verification.page(&page, &mut done)?;
            if page.len() < PAGE {
                break;
            }
            after = page.last().map(|(key, _)| key.clone());
        }
        verification.documents()?;
        Ok(collector.0.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many path infos there are, and the bytes of their NARs as they say.
    fn totals(&self) -> Result<(u64, u64)> {
        let (mut paths, mut nar_bytes) = (0, 0_u64);
        let mut after: Option<Bytes> = None;
        loop {
            let page = self.records().scan_records(kinds::PATH_INFO, after.as_deref(), PAGE)?;
            for (key, value) in &page {
                paths += 1;
                let nar = path_info_record::decode(key, value).ok().and_then(|found| found.nar);
                nar_bytes = nar_bytes.saturating_add(nar.map_or(0, |nar| nar.nar_size));
            }
            if page.len() < PAGE {
                return Ok((paths, nar_bytes));
            }
            after = page.last().map(|(key, _)| key.clone());
        }
    }
}

/// Gathers a report from several threads.
#[derive(Default)]
struct Collector(Mutex<PathsReport>);

impl Collector {
    fn lock(&self) -> MutexGuard<'_, PathsReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, finding: Finding) {
        let mut report = self.lock();
        report.error_count += u64::from(finding.severity == Severity::Error);
        if report.findings.len() < MAX_FINDINGS {
            report.findings.push(finding);
        } else {
            report.omitted_findings += 1;
        }
    }

    fn of_path(&self, severity: Severity, path: &StorePath, problem: String) {
        let (store_path, objects) = (Some(path.clone()), Vec::new());
        self.add(Finding { severity, problem, place: None, store_path, objects });
    }
}

/// What was gone through.
struct Done<'a> {
    observer: &'a dyn VerifyObserver,
    paths: u64,
    nar_bytes: u64,
    totals: (u64, u64),
}

impl Done<'_> {
    fn tell(&self, phase: VerifyPhase) -> Result<()> {
        let (done, total) = match phase {
            VerifyPhase::Nars => (self.nar_bytes, self.totals.1),
            _ => (self.paths, self.totals.0),
        };
        let total = total.max(done);
        if self.observer.progress(VerifyProgress { phase, done, total }).is_break() {
            return Err(Error::unavailable("the verification was stopped"));
        }
        Ok(())
    }
}

struct PathsVerification<'a> {
    store: &'a Store,
    options: &'a VerifyOptions,
    contents: Contents<'a>,
    collector: &'a Collector,
}

impl PathsVerification<'_> {
    fn page(&mut self, page: &[(Bytes, Bytes)], done: &mut Done<'_>) -> Result<()> {
        let mut whole = Vec::new();
        for (key, value) in page {
            self.collector.lock().path_count += 1;
            done.paths += 1;
            match path_info_record::decode(key, value) {
                Ok(path_info) => {
                    if self.structure(&path_info, value)? {
                        whole.push(path_info);
                    }
                }
                Err(problem) => self.collector.add(Finding {
                    severity: Severity::Error,
                    problem: Chain(&problem).to_string(),
                    place: None,
                    store_path: None,
                    objects: Vec::new(),
                }),
            }
            done.tell(VerifyPhase::Paths)?;
        }
        if self.options.nar { self.nars(&whole, done) } else { Ok(()) }
    }

    /// Looks at everything but the bytes. False if the contents are not all there, or the path
    /// info is there no more.
    fn structure(&mut self, path_info: &PathInfo, value: &Bytes) -> Result<bool> {
        let path = &path_info.store_path;
        let harm = self.contents.check(&path_info.node)?;
        let key = path.hash().as_bytes();
        if !harm.is_empty() {
            // It may have been deleted meanwhile, and its contents with it.
            if self.store.records().record(kinds::PATH_INFO, key)?.as_ref() != Some(value) {
                return Ok(false);
            }
            let mut objects = Vec::new();
            {
                let mut report = self.collector.lock();
                report.damaged_paths.insert(path.clone());
                for object in harm.iter().flat_map(|harm| &harm.objects) {
                    report.damaged_objects.entry(*object).or_default().insert(path.clone());
                    objects.push(*object);
                }
            }
            objects.sort_unstable();
            objects.dedup();
            let (severity, problem) = (Severity::Error, contents::describe(&harm));
            let store_path = Some(path.clone());
            self.collector.add(Finding { severity, problem, place: None, store_path, objects });
        }
        for reference in &path_info.references {
            if self.store.records().record(kinds::PATH_INFO, reference.as_bytes())?.is_none() {
                let problem =
                    format!("it refers to {}, which is not stored", name(path_info, reference));
                self.collector.of_path(Severity::Warning, path, problem);
            }
        }
        if let (Some(facts), Some(node)) = (&path_info.nar, NodeKey::of(&path_info.node))
            && !self.options.nar
        {
            self.remembered(path, facts, &node)?;
        }
        Ok(harm.is_empty())
    }

    /// Holds what a path info says of its NAR against what was found out before.
    fn remembered(&self, path: &StorePath, facts: &NarFacts, node: &NodeKey) -> Result<()> {
        let Some(value) = self.store.records().record(kinds::NAR_DIGEST, node.as_bytes())? else {
            return Ok(());
        };
        let problem = match nar_digest_record::decode(&value) {
            Ok(nar) => check_facts(facts, &nar).err(),
            Err(problem) => Some(Chain(&problem).to_string()),
        };
        if let Some(problem) = problem {
            self.collector.of_path(Severity::Error, path, problem);
        }
        Ok(())
    }

    /// Renders and checks NARs, on all cores.
    fn nars(&self, path_infos: &[PathInfo], done: &mut Done<'_>) -> Result<()> {
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let next = AtomicUsize::new(0);
        let (told, done) = (Mutex::new(Ok(())), Mutex::new(done));
        let work = || {
            while let Some(path_info) = path_infos.get(next.fetch_add(1, Ordering::Relaxed)) {
                let checked = nar::check(self.store, self.options, self.collector, path_info);
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                let size = path_info.nar.as_ref().map_or(0, |nar| nar.nar_size);
                done.nar_bytes = done.nar_bytes.saturating_add(size);
                let checked = checked.and_then(|()| done.tell(VerifyPhase::Nars));
                if checked.is_err() {
                    next.store(path_infos.len(), Ordering::Relaxed);
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = checked;
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..threads.min(path_infos.len()) {
                scope.spawn(work);
            }
        });
        told.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that the bodies of documents are there.
    fn documents(&self) -> Result<()> {
        let mut after: Option<Bytes> = None;
        loop {
            let page =
                self.store.records().scan_records(kinds::DOCUMENT, after.as_deref(), PAGE)?;
            for (key, value) in &page {
                let harm = match document::decode(key, value) {
                    Ok(found) => {
                        let document = found.document;
                        self.contents.blob(&document.digest, document.size_bytes)?
                    }
                    Err(problem) => Some((Chain(&problem).to_string(), Vec::new())),
                };
                let Some((problem, objects)) = harm else { continue };
                // It may have been replaced meanwhile.
                if self.store.records().record(kinds::DOCUMENT, key)?.as_ref() == Some(value) {
                    let mut report = self.collector.lock();
                    for object in &objects {
                        report.damaged_objects.entry(*object).or_default();
                    }
                    drop(report);
                    let problem = format!("{}: {problem}", document::describe(key));
                    let severity = Severity::Error;
                    let finding =
                        Finding { severity, problem, place: None, store_path: None, objects };
                    self.collector.add(finding);
                }
            }
            if page.len() < PAGE {
                return Ok(());
            }
            after = page.last().map(|(key, _)| key.clone());
        }
    }
}

/// A reference as well as it is known.
fn name(path_info: &PathInfo, reference: &StorePathHash) -> String {
    let names = path_info.nar.iter().flat_map(|nar| &nar.reference_names);
    let known = names.into_iter().find(|name| name.hash() == reference);
    known.map_or_else(|| reference.to_string(), ToString::to_string)
}

//! Repair: what is damaged or missing is given up, and fetched from another store.

use std::{
    collections::{BTreeSet, HashSet},
    io::{self, Read},
};

use granary_castore::{
    BlobDigest, Castore, Chain, DirectoryDigest, DirectoryService, Error, Node, ObjectType, Result,
    WriteBatch,
};
use granary_nix_formats::StorePath;

use crate::{
    DamagedObject, Finding, IngestError, IntegritySource, NarDigest, PathInfo, PathInfoService,
    QuarantineRequest, Quarantined, VerifyReport, ingest_nar, served::check_facts,
};

/// Bytes of a blob that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// A store to be repaired.
#[derive(Clone, Copy)]
pub struct RepairTarget<'a> {
    /// Its blobs and directories.
    pub castore: &'a dyn Castore,
    /// Its path infos.
    pub path_infos: &'a dyn PathInfoService,
    /// What gives up what is damaged.
    pub integrity: &'a dyn IntegritySource,
}

/// Where whatever is missing comes from.
#[derive(Clone, Copy)]
pub enum RepairSource<'a> {
    /// A store that gives blobs and directories by their digests.
    Castore(&'a dyn Castore),
    /// One that gives whole NARs.
    Nars(&'a dyn NarSource),
}

/// Whoever has NARs of store paths.
pub trait NarSource: Send + Sync {
    /// The NAR of a path; `None` if it is not to be had.
    ///
    /// # Errors
    ///
    /// If the source cannot tell, or what it says cannot be read.
    fn open_nar(&self, path: &StorePath) -> Result<Option<OfferedNar>>;
}

/// A NAR that somebody offers.
pub struct OfferedNar {
    /// What it is said to have: nobody has checked that.
    pub nar: NarDigest,
    /// Its bytes, uncompressed.
    pub contents: Box<dyn Read + Send>,
}

/// Is told how far a repair has come.
pub trait RepairObserver: Sync {
    /// So many bytes more were fetched.
    fn fetched(&self, _bytes: u64) {}
}

/// For who does not want to know.
impl RepairObserver for () {}

/// What a repair came to.
#[derive(Debug, Clone, Default)]
pub struct RepairReport {
    /// Objects that were given up, because they could not be read.
    pub given_up: u64,
    /// Packs that were damaged beyond single objects, and are no part of the store any more.
    pub packs: Vec<String>,
    /// Bytes that were fetched.
    pub fetched_bytes: u64,
    /// Store paths that are whole again.
    pub repaired_paths: Vec<StorePath>,
    /// Store paths that are not, and why. They are not served, and can be uploaded again.
    pub failed_paths: Vec<(StorePath, String)>,
    /// Objects that no store path needs and that are whole again.
    pub repaired_objects: u64,
    /// Objects that no store path needs and that are not, and why.
    pub failed_objects: Vec<(DamagedObject, String)>,
    /// What was found beside damaged contents, and is not for a repair to mend.
    pub left: Vec<Finding>,
}

impl RepairReport {
    /// Whether everything is whole again.
    pub fn is_complete(&self) -> bool {
        self.failed_paths.is_empty() && self.failed_objects.is_empty() && self.left.is_empty()
    }
}

/// Gives up what `report` says is damaged in the target, and fetches it from the source. What
/// is fetched is held against digests, and NARs against the path infos that the target has.
///
/// # Errors
///
/// If the target fails. That the source does, or does not have something, is part of what
/// comes back.
pub fn repair(
    target: RepairTarget<'_>,
    source: RepairSource<'_>,
    report: &VerifyReport,
    observer: &dyn RepairObserver,
) -> Result<RepairReport> {
    let objects = report.damaged_objects.iter().map(|damaged| damaged.object).collect();
    let store_paths = report.damaged_paths.clone();
    let mut left: Vec<_> =
        report.findings.iter().filter(|finding| is_left(finding, report)).cloned().collect();
    let packs: BTreeSet<_> =
        left.iter().filter_map(|finding| Some(finding.place.as_ref()?.pack.clone())).collect();
    let packs = packs.into_iter().collect();
    let request = QuarantineRequest { objects, store_paths, packs };
    let Quarantined { objects: given_up, packs } = target.integrity.quarantine(&request)?;
    left.retain(|finding| finding.place.as_ref().is_none_or(|at| !packs.contains(&at.pack)));
    let mut repaired = RepairReport { given_up, packs, left, ..RepairReport::default() };
    let mut fetching = Fetching { target, observer, bytes: 0 };
    for path in &report.damaged_paths {
        match fetching.path(source, path)? {
            Ok(()) => repaired.repaired_paths.push(path.clone()),
            Err(problem) => repaired.failed_paths.push((path.clone(), problem)),
        }
    }
    for damaged in report.damaged_objects.iter().filter(|found| found.store_paths.is_empty()) {
        match fetching.object(source, damaged)? {
            Ok(is_wanted) => repaired.repaired_objects += u64::from(is_wanted),
            Err(problem) => repaired.failed_objects.push((damaged.clone(), problem)),
        }
    }
    repaired.fetched_bytes = fetching.bytes;
    Ok(repaired)
}

/// Whether a finding is damage that giving up and fetching contents does not mend.
fn is_left(finding: &Finding, report: &VerifyReport) -> bool {
    let damaged = &report.damaged_objects;
    let is_damaged =
        |object| damaged.binary_search_by_key(object, |damaged| damaged.object).is_ok();
    let is_of_contents = if let Some(path) = &finding.store_path {
        report.damaged_paths.contains(path)
    } else {
        !finding.objects.is_empty() && finding.objects.iter().all(is_damaged)
    };
    finding.severity == granary_castore::Severity::Error && !is_of_contents
}

/// What was to be fetched, or why it could not be. The outer error is the target's.
type Fetched<T = ()> = Result<Result<T, String>>;

struct Fetching<'a> {
    target: RepairTarget<'a>,
    observer: &'a dyn RepairObserver,
    bytes: u64,
}

impl Fetching<'_> {
    /// Makes the contents of a path whole.
    fn path(&mut self, source: RepairSource<'_>, path: &StorePath) -> Fetched {
        let Some(path_info) = self.target.path_infos.path_info(path.hash())? else {
            return Ok(Err("it has been deleted meanwhile".to_owned()));
        };
        let mut batch = self.target.castore.batch()?;
        let fetched = match source {
            RepairSource::Castore(source) => self.node(source, &path_info.node, &mut *batch)?,
            RepairSource::Nars(source) => self.nar(source, &path_info, &mut *batch)?,
        };
        if fetched.is_err() {
            return Ok(fetched);
        }
        batch.commit()?;
        // All of it is read once more: this is the proof that goes with it from now on.
        let nar = match self.target.path_infos.calculate_nar(&path_info.node) {
            Ok(Some(nar)) => nar,
            Ok(None) => return Ok(Err("not all of its contents are there yet".to_owned())),
            Err(error @ Error::Corrupt(_)) => return Ok(Err(Chain(&error).to_string())),
            Err(error) => return Err(error),
        };
        Ok(path_info.nar.as_ref().map_or(Ok(()), |facts| check_facts(facts, &nar)))
    }

    /// Fetches an object that no path needs. False if nobody would ask for it.
    fn object(&mut self, source: RepairSource<'_>, damaged: &DamagedObject) -> Fetched<bool> {
        let digest = damaged.object.digest;
        if matches!(damaged.object.kind, ObjectType::Base | ObjectType::ChunkList) {
            // They come again with what needs them.
            return Ok(Ok(false));
        }
        let RepairSource::Castore(source) = source else {
            return Ok(Err("a binary cache has store paths only".to_owned()));
        };
        let mut batch = self.target.castore.batch()?;
        let fetched = if damaged.object.kind == ObjectType::Directory {
            self.directories(source, DirectoryDigest::from_bytes(digest), &mut *batch)?
        } else {
            self.blob(source, &BlobDigest::from_bytes(digest), &mut *batch)?
        };
        if fetched.is_ok() {
            batch.commit()?;
        }
        Ok(fetched.map(|()| true))
    }

    fn node(&mut self, source: &dyn Castore, node: &Node, batch: &mut dyn WriteBatch) -> Fetched {
        match node {
            Node::Directory { digest, .. } => self.directories(source, *digest, batch),
            Node::File { digest, .. } => self.blob(source, digest, batch),
            Node::Symlink { .. } => Ok(Ok(())),
        }
    }

    /// Fetches what is missing of a directory and below it. After a failure the batch is to be
    /// dropped.
    fn directories(
        &mut self,
        source: &dyn Castore,
        root: DirectoryDigest,
        batch: &mut dyn WriteBatch,
    ) -> Fetched {
        let (mut seen, mut seen_blobs) = (HashSet::from([root]), HashSet::new());
        let mut waiting = vec![root];
        while let Some(digest) = waiting.pop() {
            let stored = DirectoryService::directory(self.target.castore, &digest)?;
            let directory = match stored.map_or_else(|| source.directory(&digest), |d| Ok(Some(d)))
            {
                Ok(Some(directory)) => directory,
                Ok(None) => return Ok(Err(format!("the other store lacks directory {digest}"))),
                Err(error) => return Ok(Err(Chain(&error).to_string())),
            };
            for (_, node) in directory.entries() {
                match node {
                    Node::Directory { digest, .. } if seen.insert(*digest) => waiting.push(*digest),
                    Node::File { digest, .. } if seen_blobs.insert(*digest) => {
                        let fetched = self.blob(source, digest, batch)?;
                        if fetched.is_err() {
                            return Ok(fetched);
                        }
                    }
                    _ => {}
                }
            }
            // If it is stored, this costs nothing.
            batch.put_directory(&directory)?;
        }
        Ok(Ok(()))
    }

    /// Fetches a blob, if it is missing. After a failure the batch is to be dropped.
    fn blob(
        &mut self,
        source: &dyn Castore,
        digest: &BlobDigest,
        batch: &mut dyn WriteBatch,
    ) -> Fetched {
        if self.target.castore.stat(digest)?.is_some() {
            return Ok(Ok(()));
        }
        let mut reader = match source.open(digest) {
            Ok(Some(reader)) => reader,
            Ok(None) => return Ok(Err(format!("the other store lacks blob {digest}"))),
            Err(error) => return Ok(Err(Chain(&error).to_string())),
        };
        let mut offset = 0;
        loop {
            let piece = match reader.read_at(offset, COPY_BYTES) {
                Ok(piece) => piece,
                Err(error) => return Ok(Err(Chain(&error).to_string())),
            };
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            self.count(piece.len() as u64);
            batch.write(&piece)?;
        }
        // What comes from a store was held against the digest as it came.
        if batch.finish_blob()? == *digest {
            Ok(Ok(()))
        } else {
            Ok(Err(format!("the other store sent something else for blob {digest}")))
        }
    }

    /// Takes the NAR of a path in again, if it is the one that belongs to it.
    fn nar(
        &mut self,
        source: &dyn NarSource,
        path_info: &PathInfo,
        batch: &mut dyn WriteBatch,
    ) -> Fetched {
        let offered = match source.open_nar(&path_info.store_path) {
            Ok(Some(offered)) => offered,
            Ok(None) => return Ok(Err("the binary cache does not have it".to_owned())),
            Err(error) => return Ok(Err(Chain(&error).to_string())),
        };
        if let Some(facts) = &path_info.nar
            && let Err(problem) = check_facts(facts, &offered.nar)
        {
            return Ok(Err(format!("the binary cache has another NAR: {problem}")));
        }
        let inner = offered.contents.take(offered.nar.nar_size);
        let ingested = match ingest_nar(Counted { inner, fetching: self }, batch) {
            Ok(ingested) => ingested,
            Err(IngestError::Store(error)) => return Err(error),
            Err(error) => return Ok(Err(Chain(&error).to_string())),
        };
        if ingested.nar == offered.nar && ingested.node == path_info.node {
            Ok(Ok(()))
        } else {
            Ok(Err("the binary cache sent another NAR than it said".to_owned()))
        }
    }

    fn count(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.observer.fetched(bytes);
    }
}

/// Counts what is read through it.
struct Counted<'a, 'b, R> {
    inner: R,
    fetching: &'a mut Fetching<'b>,
}

impl<R: Read> Read for Counted<'_, '_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.fetching.count(read as u64);
        Ok(read)
    }
}

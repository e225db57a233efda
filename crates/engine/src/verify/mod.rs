//! Verification: whether the packs are what was written, and the index agrees with them.
//!
//! All packs are gone through in the order of their bytes (`packs`), each frame is read once
//! if contents are wanted, and checked on all cores (`frame`). Then the index is gone through
//! (`index`): what it says must have been found in the packs. At last it is worked out what
//! cannot be read because of all that (`affected`).
//!
//! Writing goes on meanwhile. What is looked at is what the index knew at the beginning, and
//! what seems wrong is looked at again before it is reported.

mod report;

mod frame;
mod packs;

mod affected;
mod index;
mod leftovers;

mod evacuate;
mod quarantine;

use std::{num::NonZero, ops::ControlFlow};

use granary_castore::{Chain, Error, ObjectName, ObjectType, Result, Severity};

pub use report::{Effect, VerifyFinding, VerifyReport};

use crate::{
    engine::{Engine, Inner},
    format::{BlobEntry, ObjectKind},
    open::Progress,
    packs::PackId,
};
use packs::PackWalk;
use report::Collector;

/// How thoroughly to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Read every byte and hold every object against its digest, not just the records.
    pub data: bool,
    /// Threads that decompress and hash.
    pub threads: NonZero<usize>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        Self { data: false, threads }
    }
}

/// Is told how far a verification has come.
pub trait VerifyObserver: Sync {
    /// So many bytes of packs were gone through. It may wait, to slow the verification down,
    /// or break, to end it.
    fn progress(&self, progress: Progress) -> ControlFlow<()>;
}

/// For who does not want to know.
impl VerifyObserver for () {
    fn progress(&self, _progress: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl Engine {
    /// Verifies everything that is stored, and reports what it found. Damage is no error.
    ///
    /// Memory grows by 16 bytes for each frame, beside what reading a frame on each thread
    /// takes.
    ///
    /// # Errors
    ///
    /// If `observer` breaks, or the store does not answer.
    pub fn verify(
        &self,
        options: &VerifyOptions,
        observer: &dyn VerifyObserver,
    ) -> Result<VerifyReport> {
        let inner = &self.inner;
        let snapshot = Snapshot::take(inner)?;
        let collector = Collector::default();
        let mut walk = PackWalk::new(inner, *options, &collector, observer);
        walk.run(&snapshot.packs)?;
        let seen = walk.into_seen();
        index::check(inner, &snapshot, seen, &collector)?;
        leftovers::find(inner, &snapshot, &collector)?;
        let mut report = collector.into_report();
        affected::find(inner, &mut report)?;
        inner.note_damage(None, &report);
        Ok(report)
    }

    /// Reads all of one pack, and holds everything in it against digests and checksums; `None`
    /// if there is no such pack any more. What only the whole store tells is left out.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_pack(
        &self,
        id: PackId,
        observer: &dyn VerifyObserver,
    ) -> Result<Option<VerifyReport>> {
        let inner = &self.inner;
        let snapshot = Snapshot::take(inner)?;
        let Some(pack) = snapshot.packs.iter().find(|pack| pack.id == id) else { return Ok(None) };
        let collector = Collector::default();
        let options = VerifyOptions { data: true, threads: NonZero::<usize>::MIN };
        let mut walk = PackWalk::new(inner, options, &collector, observer);
        walk.run(std::slice::from_ref(pack))?;
        let report = collector.into_report();
        inner.note_damage(Some(id), &report);
        Ok(Some(report))
    }

    /// All packs, in an order that stays the same.
    ///
    /// # Errors
    ///
    /// If the index does not answer.
    pub fn pack_ids(&self) -> Result<Vec<PackId>> {
        let mut ids: Vec<_> =
            Snapshot::take(&self.inner)?.packs.iter().map(|pack| pack.id).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

impl Inner {
    /// Counts and logs what was found in one pack or in all.
    fn note_damage(&self, of_pack: Option<PackId>, report: &VerifyReport) {
        // What was given up or stored anew while the verification went on is no damage any more.
        let is_so_still = |object: &&ObjectName| self.is_unreadable(object).unwrap_or(true);
        self.damage.add(report.unreadable.iter().filter(is_so_still).copied());
        let errors = || report.findings.iter().filter(|found| found.severity == Severity::Error);
        let places = errors().filter(|finding| finding.objects.is_empty());
        let places = places.filter_map(|finding| Some((finding.pack?, finding.offset)));
        self.damage.set_places(of_pack, places);
        for VerifyFinding { pack, offset, problem, objects, .. } in errors() {
            let (pack, objects) = (pack.as_ref().map(tracing::field::display), objects.len());
            tracing::error!(pack, offset, problem, objects, "damage found; it is not served");
        }
    }
}

/// What is verified: the packs as the index knew them at one moment.
struct Snapshot {
    packs: Vec<PackSnapshot>,
}

#[derive(Debug, Clone, Copy)]
struct PackSnapshot {
    handle: u32,
    id: PackId,
    /// Where it ended then, if it was being appended to.
    end: Option<u64>,
    is_sealed: bool,
}

impl Snapshot {
    fn take(inner: &Inner) -> Result<Self> {
        // In this order: a pack that is full is sealed before the watermark goes on to the next,
        // so that all packs but the one with the watermark are whole.
        let packs = inner.index.packs().map_err(Error::from)?;
        let state = inner.index.state().map_err(Error::from)?.unwrap_or_default();
        let packs = packs.into_iter().map(|(handle, entry)| PackSnapshot {
            handle,
            id: PackId(entry.id),
            end: (handle == state.watermark.pack).then_some(state.watermark.offset),
            is_sealed: entry.sealed,
        });
        Ok(Self { packs: packs.collect() })
    }
}

fn observe(observer: &dyn VerifyObserver, progress: Progress) -> Result<()> {
    match observer.progress(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::unavailable("the verification was stopped")),
    }
}

/// The name of an object to those outside of the engine; `None` for what has none.
pub(crate) fn object_name(kind: ObjectKind, digest: &[u8; 32]) -> Option<ObjectName> {
    let kind = match kind {
        ObjectKind::Chunk | ObjectKind::Patch => ObjectType::Chunk,
        ObjectKind::Base => ObjectType::Base,
        ObjectKind::Directory => ObjectType::Directory,
        ObjectKind::ChunkList => ObjectType::ChunkList,
        ObjectKind::Duplicate => return None,
    };
    Some(ObjectName { kind, digest: *digest })
}

/// The name of a blob of several chunks.
fn blob_name(digest: &[u8; 32]) -> ObjectName {
    ObjectName { kind: ObjectType::Blob, digest: *digest }
}

/// That the index is damaged.
fn of_index(error: &Error) -> VerifyFinding {
    VerifyFinding {
        severity: Severity::Error,
        pack: None,
        offset: 0,
        problem: Chain(error).to_string(),
        effect: Effect::None,
        objects: Vec::new(),
    }
}

/// The entries of a list of chunks; none if it cannot be read, which is found where it lies.
fn list_entries(engine: &Inner, digest: &[u8; 32]) -> Vec<BlobEntry> {
    let list = engine.try_object(ObjectKind::ChunkList, digest).ok().flatten();
    list.and_then(|bytes| BlobEntry::decode_all(&bytes).ok()).unwrap_or_default()
}

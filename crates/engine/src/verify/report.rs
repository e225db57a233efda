//! What a verification found.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use granary_castore::{BlobDigest, DirectoryDigest, ObjectName, ObjectType, Severity};

use crate::packs::PackId;

/// Most findings that are kept; further ones are counted.
const MAX_FINDINGS: usize = 10_000;

/// Most unreadable objects whose names are kept, 40 bytes each.
const MAX_UNREADABLE: usize = 1 << 20;

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyFinding {
    /// How bad it is.
    pub severity: Severity,
    /// Where it was found: in this pack, if in one.
    pub pack: Option<PackId>,
    /// At this byte of the pack.
    pub offset: u64,
    /// What is wrong.
    pub problem: String,
    /// What that means for `objects`.
    pub effect: Effect,
    /// The objects that it concerns, as far as they are known.
    pub objects: Vec<ObjectName>,
}

/// What a finding means for the objects that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// They cannot be read.
    Unreadable,
    /// They can be read for as long as the index knows where they lie: the packs do not tell
    /// any more.
    Unrecorded,
    /// They lie in a pack, and the index does not know of them: to readers they are not
    /// stored.
    Unindexed,
}

/// What a verification went through and found.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Packs that were gone through.
    pub pack_count: u64,
    /// Their valid segments.
    pub segment_count: u64,
    /// Objects that these tell of.
    pub object_count: u64,
    /// Records of blobs, and values, in them.
    pub record_count: u64,
    /// Bytes that were read and held against a digest or checksum.
    pub checked_bytes: u64,
    /// What is not as it should be, in the order in which it was found.
    pub findings: Vec<VerifyFinding>,
    /// How many more there are than were kept.
    pub omitted_findings: u64,
    /// How many of all findings are damage.
    pub error_count: u64,
    /// Objects that cannot be read.
    pub unreadable: HashSet<ObjectName>,
    /// Blobs that cannot be read in whole, and which of those objects they need.
    pub unreadable_blobs: HashMap<BlobDigest, Vec<ObjectName>>,
}

impl VerifyReport {
    /// Directories that cannot be read.
    pub fn unreadable_directories(&self) -> impl Iterator<Item = DirectoryDigest> {
        self.unreadable
            .iter()
            .filter(|object| object.kind == ObjectType::Directory)
            .map(|object| DirectoryDigest::from_bytes(object.digest))
    }
}

/// Gathers a report from several threads.
#[derive(Debug, Default)]
pub(super) struct Collector(Mutex<VerifyReport>);

impl Collector {
    pub(super) fn lock(&self) -> MutexGuard<'_, VerifyReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, finding: VerifyFinding) {
        let mut report = self.lock();
        if finding.effect == Effect::Unreadable {
            for object in &finding.objects {
                if report.unreadable.len() < MAX_UNREADABLE {
                    report.unreadable.insert(*object);
                }
            }
        }
        report.error_count += u64::from(finding.severity == Severity::Error);
        if report.findings.len() < MAX_FINDINGS {
            report.findings.push(finding);
        } else {
            report.omitted_findings += 1;
        }
    }

    pub(super) fn into_report(self) -> VerifyReport {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

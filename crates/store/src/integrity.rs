//! The integrity of a store: what a verification is asked and says, and what is given up.

use std::ops::ControlFlow;

use granary_castore::{ObjectName, Result, Severity};
use granary_nix_formats::{PublicKey, StorePath};

/// How thoroughly to verify. Structure is always looked at: that the index agrees with the
/// packs, and that the contents of every store path resolve.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Read every byte, and hold every object against its digest.
    pub data: bool,
    /// Render the NAR of every store path, and hold it against its size, hash, content address
    /// and signatures.
    pub nar: bool,
    /// Keys whose signatures are checked with the NARs, beside that of the store itself.
    pub public_keys: Vec<PublicKey>,
}

/// What a verification goes through, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VerifyPhase {
    /// Packs, in bytes.
    Packs,
    /// Store paths, by number.
    Paths,
    /// NARs, in bytes.
    Nars,
}

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// What it goes through now.
    pub phase: VerifyPhase,
    /// How much of it is done.
    pub done: u64,
    /// How much there is.
    pub total: u64,
}

/// Is told how far a verification has come.
pub trait VerifyObserver: Sync {
    /// Called now and then, from one thread at a time. It may break, to end the verification.
    fn progress(&self, progress: VerifyProgress) -> ControlFlow<()>;
}

/// For who does not want to know.
impl VerifyObserver for () {
    fn progress(&self, _progress: VerifyProgress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub problem: String,
    /// Where: in this pack, at this byte.
    pub place: Option<PackPlace>,
    /// The store path that it was found in.
    pub store_path: Option<StorePath>,
    /// The objects that it concerns, as far as they are known.
    pub objects: Vec<ObjectName>,
}

/// A place in a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackPlace {
    /// Name of the pack.
    pub pack: String,
    /// Offset in bytes.
    pub offset: u64,
}

/// An object that cannot be read or is not there, and what needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedObject {
    /// Which object.
    pub object: ObjectName,
    /// The store paths that cannot be served because of it, sorted.
    pub store_paths: Vec<StorePath>,
}

/// What a verification went through and found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Numbers.
    pub counts: VerifyCounts,
    /// What is not as it should be, the worst first.
    pub findings: Vec<Finding>,
    /// Objects that cannot be read or are not there, as far as they are known.
    pub damaged_objects: Vec<DamagedObject>,
    /// Store paths whose contents are not all there and right, sorted.
    pub damaged_paths: Vec<StorePath>,
}

/// What a verification went through, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerifyCounts {
    /// Packs.
    pub packs: u64,
    /// Objects in them.
    pub objects: u64,
    /// Bytes of packs that were read and checked.
    pub checked_bytes: u64,
    /// Store paths.
    pub store_paths: u64,
    /// NARs that were rendered and hashed.
    pub nars: u64,
    /// Signatures that were checked.
    pub signatures: u64,
    /// Findings that are damage, those that were left out included.
    pub errors: u64,
    /// Findings that were left out because there are too many.
    pub omitted_findings: u64,
}

impl VerifyReport {
    /// Whether there is no damage.
    pub fn is_clean(&self) -> bool {
        self.counts.errors == 0
    }
}

/// What is to be given up, because it is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuarantineRequest {
    /// Objects. One that turns out to be readable is left alone.
    pub objects: Vec<ObjectName>,
    /// Store paths whose contents must be looked at again before they are served.
    pub store_paths: Vec<StorePath>,
    /// Packs that are damaged beyond single objects: what is left in them moves elsewhere.
    pub packs: Vec<String>,
}

/// What was given up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quarantined {
    /// How many objects.
    pub objects: u64,
    /// Packs that are no part of the store any more.
    pub packs: Vec<String>,
}

/// Whoever can check a store.
pub trait IntegritySource: Send + Sync {
    /// Verifies the store. That it is damaged is no error.
    ///
    /// # Errors
    ///
    /// If `observer` breaks, or the store cannot be read.
    fn verify(
        &self,
        options: &VerifyOptions,
        observer: &dyn VerifyObserver,
    ) -> Result<VerifyReport>;

    /// Gives up what is damaged, durably: it counts as not stored from then on, so that it is
    /// not served and can be stored again.
    ///
    /// # Errors
    ///
    /// If it could not be made durable.
    fn quarantine(&self, request: &QuarantineRequest) -> Result<Quarantined>;
}

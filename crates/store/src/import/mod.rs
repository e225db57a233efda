//! Trees of the file system into blobs and directories, in one pass.
//!
//! A walk reads file by file into packets, pieces of the NAR with the steps in them ([`walker`], [`step`]). The
//! NAR in them is hashed ([`nar_hash`]), and their contents go to the batch ([`consumer`]). Some threads take turns at
//! that, and at what the batch has to do ([`pipeline`]). Where the walk waits for a disk ([`read_ahead`]), one more goes
//! before it ([`scout`]).

mod consumer;
mod error;
mod names;
mod nar_hash;
mod pipeline;
mod read_ahead;
mod scout;
mod step;
mod walker;

use std::path::Path;

use granary_castore::{Castore, WriteBatch};
use granary_nix_formats::{ContentAddress, HashAlgorithm, NarHash, StorePath};

use crate::{IngestedNar, NarDigest, NarFacts, PathInfo, PathInfoService, Store};

pub use error::ImportError;

/// Is told how an import gets on: by one thread at a time, but not always the same.
pub trait ImportObserver: Sync {
    /// So many bytes of contents were read and handed on.
    fn data(&self, _bytes: u64) {}

    /// A file is complete.
    fn file(&self) {}
}

/// Nobody watches.
impl ImportObserver for () {}

/// Reads the tree at `path` and adds it to `batch`, directories behind what is in them.
/// The batch is left for the caller to commit.
///
/// As in Nix, a file is executable if its owner may execute it, a symlink (also `path`
/// itself) is not followed, and no other property of a file counts. File descriptors are
/// bounded whatever the depth, memory by a dozen buffers of 2 MiB, as many more as the batch
/// keeps, [`MAX_OPEN_ENTRIES`](crate::MAX_OPEN_ENTRIES), and 65,536 names more where the walk waits for a
/// disk.
///
/// # Errors
///
/// If something cannot be read, changes meanwhile, or is neither file, directory nor
/// symlink; or if the batch fails. The batch must then be dropped.
pub fn ingest_path(
    path: &Path,
    batch: &mut dyn WriteBatch,
    observer: &dyn ImportObserver,
) -> Result<IngestedNar, ImportError> {
    pipeline::run(path, batch, observer)
}

/// Imports the tree at `path` under `name`, or its own file name, as `nix-store --add`
/// does: its store path follows from its contents alone. Returns the path info once
/// everything is durable.
///
/// # Errors
///
/// As [`ingest_path`]; or if Nix does not allow the name, or the path info cannot be kept.
pub fn import_path(
    castore: &dyn Castore,
    path_infos: &dyn PathInfoService,
    path: &Path,
    name: Option<&str>,
    observer: &dyn ImportObserver,
) -> Result<PathInfo, ImportError> {
    let _hold = castore.hold();
    let (path_info, _) = import_contents(castore, path, name, observer)?;
    Ok(path_infos.put_path_info(path_info)?)
}

impl Store {
    /// As [`import_path`], into this store, which also remembers the hash of the NAR.
    ///
    /// # Errors
    ///
    /// As [`import_path`].
    pub fn import_path(
        &self,
        path: &Path,
        name: Option<&str>,
        observer: &dyn ImportObserver,
    ) -> Result<PathInfo, ImportError> {
        let _hold = self.castore().hold();
        let (path_info, nar) = import_contents(&**self.castore(), path, name, observer)?;
        self.put_verified_path_info(&path_info, &nar)?;
        Ok(path_info)
    }
}

/// Makes the contents durable, and the path info that belongs to them.
fn import_contents(
    castore: &dyn Castore,
    path: &Path,
    name: Option<&str>,
    observer: &dyn ImportObserver,
) -> Result<(PathInfo, NarDigest), ImportError> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => file_name(path)?,
    };
    // A name that is not allowed is noticed before everything is read, not after.
    StorePath::for_source(name.as_str(), &NarHash::from_bytes([0; 32]))
        .map_err(ImportError::Name)?;
    let mut batch = castore.batch()?;
    let IngestedNar { node, nar } = ingest_path(path, &mut *batch, observer)?;
    // Not together with the path info, which would spare a sync: what lies at the end of a pack and
    // is damaged looks as if it had never been written as a whole. So the path info lies behind.
    batch.commit()?;
    let store_path = StorePath::for_source(name, &nar.nar_hash).map_err(ImportError::Name)?;
    let facts = NarFacts {
        nar_size: nar.nar_size,
        nar_hash: nar.nar_hash,
        signatures: Vec::new(),
        reference_names: Vec::new(),
        deriver: None,
        ca: Some(ContentAddress::Fixed {
            recursive: true,
            algorithm: HashAlgorithm::Sha256,
            digest: nar.nar_hash.as_bytes().to_vec(),
        }),
    };
    let path_info = PathInfo { store_path, node, references: Vec::new(), nar: Some(facts) };
    Ok((path_info, nar))
}

/// The last name of `path`; of the directory that it means, if it ends in `.` or `..`.
fn file_name(path: &Path) -> Result<String, ImportError> {
    let resolved;
    let name = if let Some(name) = path.file_name() {
        Some(name)
    } else {
        resolved = path
            .canonicalize()
            .map_err(|source| ImportError::file("find the name of", path, source))?;
        resolved.file_name()
    };
    name.and_then(|name| name.to_str())
        .map(str::to_owned)
        .ok_or_else(|| ImportError::NoName { path: path.to_owned() })
}

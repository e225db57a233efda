//! Trees of the file system into blobs and directories, in one pass.
//!
//! One thread walks and reads ahead, file by file into the NAR ([`walker`]), another hashes that
//! ([`nar_hash`]); the calling thread gives the contents to the batch, which does its own work in the
//! background. Between them are bounded queues of pieces of the NAR and the steps in them ([`step`]).

mod error;
mod step;

mod nar_hash;
mod walker;

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
};

use granary_castore::{BlobDigest, Castore, Error, WriteBatch};
use granary_nix_formats::{ContentAddress, HashAlgorithm, NarHash, StorePath};

use crate::{
    IngestedNar, NarDigest, NarFacts, PathInfo, PathInfoService, Store, tree_builder::TreeBuilder,
};

pub use error::ImportError;
use step::{Packet, QUEUE_PACKETS, Step, StepSender};

/// Is told how an import gets on, on the thread that called for it.
pub trait ImportObserver {
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
/// bounded whatever the depth, memory by two queues of 4 buffers of 2 MiB, as many more as the batch
/// keeps, and [`MAX_OPEN_ENTRIES`](crate::MAX_OPEN_ENTRIES).
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
    let no_thread = |source| ImportError::file("start a thread for", path, source);
    let (storing, to_store) = mpsc::sync_channel(QUEUE_PACKETS);
    let (hashing, to_hash) = mpsc::sync_channel(QUEUE_PACKETS);
    let steps = StepSender::new(storing, hashing)?;
    thread::scope(|scope| {
        thread::Builder::new()
            .name("import-read".to_owned())
            .spawn_scoped(scope, move || walker::walk(path, steps))
            .map_err(no_thread)?;
        // Each of the two owns its receiver: when it fails, the walker notices and ends, and
        // with it the other.
        let nar = thread::Builder::new()
            .name("import-hash".to_owned())
            .spawn_scoped(scope, move || nar_hash::hash(&to_hash))
            .map_err(no_thread)?;
        let tree = consume(to_store, batch, observer)?;
        let nar = nar.join().map_err(|_| Error::unavailable("the hashing thread panicked"))?;
        Ok(IngestedNar { node: tree.finish()?, nar })
    })
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

/// Takes the steps of the walker to the batch and the directories.
fn consume(
    packets: Receiver<Result<Arc<Packet>, ImportError>>,
    batch: &mut dyn WriteBatch,
    observer: &dyn ImportObserver,
) -> Result<TreeBuilder, ImportError> {
    let mut consumer = Consumer { tree: TreeBuilder::default(), batch, observer };
    for packet in packets {
        consumer.packet(&*packet?)?;
    }
    Ok(consumer.tree)
}

struct Consumer<'a> {
    tree: TreeBuilder,
    batch: &'a mut dyn WriteBatch,
    observer: &'a dyn ImportObserver,
}

impl Consumer<'_> {
    fn packet(&mut self, Packet { nar, steps }: &Packet) -> Result<(), ImportError> {
        // Contents up to there, and what lies before them, were given to the batch.
        let mut done = 0;
        for step in steps {
            match step {
                Step::Directory => self.tree.directory(),
                Step::Entry { name } => self.tree.entry(name.clone())?,
                Step::EndDirectory => self.tree.end_directory(self.batch)?,
                Step::Symlink { target } => self.tree.symlink(target.clone())?,
                Step::File { executable, contents } => {
                    self.tree.file(*executable, contents.len() as u64);
                    self.batch.put_literals_within(nar, done..contents.start)?;
                    done = contents.end;
                    let digest = self.batch.put_blob_within(nar, contents.clone())?;
                    self.observer.data(contents.len() as u64);
                    self.end_file(digest)?;
                }
                Step::LargeFile { executable, size_bytes } => {
                    self.tree.file(*executable, *size_bytes);
                }
                Step::Data(data) => {
                    if done < data.start {
                        self.batch.put_literals_within(nar, done..data.start)?;
                    }
                    done = data.end;
                    self.batch.write(&nar[data.clone()])?;
                    self.observer.data(data.len() as u64);
                }
                Step::EndLargeFile => {
                    let digest = self.batch.finish_blob()?;
                    self.end_file(digest)?;
                }
            }
        }
        if done < nar.len() {
            self.batch.put_literals_within(nar, done..nar.len())?;
        }
        Ok(())
    }

    fn end_file(&mut self, digest: BlobDigest) -> Result<(), ImportError> {
        self.tree.end_file(digest)?;
        self.observer.file();
        Ok(())
    }
}

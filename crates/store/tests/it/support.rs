//! Trees for tests: in memory, as NARs, in stores and in the file system.

use std::{collections::BTreeMap, fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use granary_castore::{Castore, MemoryStore, Node};
use granary_nix_formats::{StorePath, StorePathHash, nar};
use granary_store::{IngestedNar, NarFacts, PathInfo, Store, StoreOptions, ingest_nar};
use proptest::{collection, prelude::*};

/// A tree in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tree {
    File { executable: bool, contents: Vec<u8> },
    Symlink(Vec<u8>),
    Directory(BTreeMap<Vec<u8>, Tree>),
}

impl Tree {
    pub(crate) fn file(contents: impl Into<Vec<u8>>) -> Self {
        Self::File { executable: false, contents: contents.into() }
    }

    pub(crate) fn directory<N: Into<Vec<u8>>>(
        entries: impl IntoIterator<Item = (N, Tree)>,
    ) -> Self {
        Self::Directory(entries.into_iter().map(|(name, tree)| (name.into(), tree)).collect())
    }

    /// Its NAR, by the writer of the formats crate.
    pub(crate) fn nar(&self) -> Vec<u8> {
        let mut writer = nar::Writer::new(Vec::new()).expect("memory");
        self.write(&mut writer).expect("a valid tree");
        writer.finish().expect("complete")
    }

    fn write(&self, writer: &mut nar::Writer<Vec<u8>>) -> Result<(), nar::Error> {
        match self {
            Self::File { executable, contents } => {
                writer.file_header(*executable, contents.len() as u64)?;
                writer.file_data(contents)?;
                writer.end_file()
            }
            Self::Symlink(target) => writer.symlink(target),
            Self::Directory(entries) => {
                writer.directory()?;
                for (name, tree) in entries {
                    writer.entry(name)?;
                    tree.write(writer)?;
                    writer.end_entry()?;
                }
                writer.end_directory()
            }
        }
    }

    /// Makes it at `path`, where nothing is.
    pub(crate) fn create(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let os_str = std::ffi::OsStr::from_bytes;
        match self {
            Self::File { executable, contents } => {
                fs::write(path, contents)?;
                let mode = if *executable { 0o755 } else { 0o644 };
                fs::set_permissions(path, fs::Permissions::from_mode(mode))
            }
            Self::Symlink(target) => std::os::unix::fs::symlink(os_str(target), path),
            Self::Directory(entries) => {
                fs::create_dir(path)?;
                entries.iter().try_for_each(|(name, tree)| tree.create(&path.join(os_str(name))))
            }
        }
    }
}

/// Trees with all kinds of nodes, names and sizes, and repetitions.
pub(crate) fn any_tree() -> impl Strategy<Value = Tree> {
    let contents = prop_oneof![
        Just(Vec::new()),
        Just(b"the same".to_vec()),
        collection::vec(any::<u8>(), 0..40),
        (1..5_000usize, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
    ];
    let leaf = prop_oneof![
        (any::<bool>(), contents)
            .prop_map(|(executable, contents)| Tree::File { executable, contents }),
        collection::vec(1..=255u8, 1..30).prop_map(Tree::Symlink),
    ];
    let name = collection::vec(any::<u8>(), 1..10).prop_filter("a name", |name| {
        name != b"." && name != b".." && !name.contains(&0) && !name.contains(&b'/')
    });
    leaf.prop_recursive(5, 60, 8, move |inner| {
        collection::btree_map(name.clone(), inner, 0..8).prop_map(Tree::Directory)
    })
}

/// A store in memory, and the castore below it.
pub(crate) fn memory_store(options: StoreOptions) -> (Store, MemoryStore) {
    let memory = MemoryStore::default();
    let store = Store::new(Arc::new(memory.clone()), Arc::new(memory.clone()), options);
    (store, memory)
}

/// Puts a tree into `castore` by its NAR.
pub(crate) fn put_tree(castore: &dyn Castore, tree: &Tree) -> IngestedNar {
    let mut batch = castore.batch().expect("memory");
    let ingested = ingest_nar(&tree.nar()[..], &mut *batch).expect("a valid NAR");
    batch.commit().expect("memory");
    ingested
}

/// The NAR of a node, rendered.
pub(crate) fn render(store: &Store, node: &Node) -> Vec<u8> {
    let plan = store.plan(node).expect("memory").expect("complete");
    let mut nar = Vec::new();
    plan.write_to(store.blobs(), &mut nar).expect("complete");
    nar
}

/// A store path with a made-up hash part.
pub(crate) fn path(byte: u8, name: &str) -> StorePath {
    StorePath::new(StorePathHash::from_bytes([byte; 20]), name).expect("a valid name")
}

/// The path info of a tree in a store, with what Nix would know of it.
pub(crate) fn path_info(store_path: StorePath, contents: &IngestedNar) -> PathInfo {
    PathInfo {
        store_path,
        node: contents.node.clone(),
        references: Vec::new(),
        nar: Some(NarFacts {
            nar_size: contents.nar.nar_size,
            nar_hash: contents.nar.nar_hash,
            signatures: Vec::new(),
            reference_names: Vec::new(),
            deriver: None,
            ca: None,
        }),
    }
}

//! Trees of the file system, held against what the real Nix makes of them.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use granary_castore::{
    BlobDigest, Castore, Directory, DirectoryDigest, Error, MemoryStore, Result, WriteBatch,
};
use granary_engine::{Engine, OpenOptions};
use granary_nix_formats::StorePathHash;
use granary_store::{
    ImportError, ImportObserver, IngestedNar, PathInfoService, Store, StoreOptions, import_path,
    ingest_nar, ingest_path,
};
use granary_testkit::{CrashDisk, Fault, Random};
use tempfile::TempDir;

use crate::{
    nix::Nix,
    support::{Tree, memory_store, render},
};

/// All that a tree can hold.
fn motley() -> Tree {
    Tree::directory([
        (b"empty".to_vec(), Tree::file("")),
        (b"empty-directory".to_vec(), Tree::directory::<&str>([])),
        (b"executable".to_vec(), Tree::File { executable: true, contents: b"#!/bin/sh\n".into() }),
        (b"large".to_vec(), Tree::file(vec![b'x'; (2 << 20) + 3])),
        (b"link".to_vec(), Tree::Symlink(b"nowhere/\xff".into())),
        // Between these, the order by bytes and that by paths differ.
        (b"sub".to_vec(), Tree::directory([("deeper", Tree::directory([("f", Tree::file("1"))]))])),
        (b"sub-1".to_vec(), Tree::file("2")),
        (b"sub.2".to_vec(), Tree::file("3")),
        (b"\xc3\xa4 caf\xe9\n".to_vec(), Tree::file("not UTF-8")),
    ])
}

fn create(tree: &Tree) -> (TempDir, std::path::PathBuf) {
    let parent = TempDir::new().expect("a temporary directory");
    let path = parent.path().join("the-tree");
    tree.create(&path).expect("a tree");
    (parent, path)
}

fn ingest(path: &Path) -> Result<IngestedNar, ImportError> {
    let memory = MemoryStore::default();
    let mut batch = memory.batch().expect("memory");
    ingest_path(path, &mut *batch, &())
}

#[test]
fn the_nar_and_the_store_path_are_those_of_nix() {
    let nix = Nix::new();
    for tree in [
        motley(),
        Tree::file("just a file"),
        Tree::File { executable: true, contents: vec![1; 3 << 20] },
        Tree::Symlink(b"just a link".to_vec()),
        Tree::directory::<&str>([]),
    ] {
        let (_parent, path) = create(&tree);
        let (store, _) = memory_store(StoreOptions::default());
        let path_info = store.import_path(&path, None, &()).expect("a tree that can be read");
        assert!(render(&store, &path_info.node) == nix.dump(&path));
        let nix_path = nix.add(&path);
        assert_eq!(path_info.store_path.absolute(), nix_path);

        let facts = path_info.nar.as_ref().expect("it was computed");
        let json = nix.run("nix", &[&"path-info", &"--json", &nix_path]);
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        let registered = &json[0];
        assert_eq!(registered["narSize"], facts.nar_size);
        let ca = facts.ca.as_ref().expect("it has one").to_string();
        assert_eq!(registered["ca"].as_str(), Some(ca.as_str()));
        assert_eq!(registered["references"].as_array().map(Vec::len), Some(0));

        let kept = store.path_info(path_info.store_path.hash()).expect("memory");
        assert_eq!(kept.as_ref(), Some(&path_info));
        assert!(store.served(path_info.store_path.hash()).expect("memory").is_some());
    }
}

/// A store on `disk`, whose index lies in `index_dir`.
fn store_on(disk: &CrashDisk, index_dir: &Path) -> Store {
    let engine = Engine::open_on(Arc::new(disk.clone()), index_dir, &OpenOptions::default());
    let engine = Arc::new(engine.expect("a store"));
    Store::new(engine.clone(), engine, StoreOptions::default())
}

#[test]
fn an_import_that_a_crash_ends_is_there_as_a_whole_or_not_at_all() {
    let (_parent, path) = create(&motley());
    let hash = expected_hash(&path);
    let mut random = Random::new(7);
    let (mut there, mut absent) = (0, 0);
    for operation in 0.. {
        let (disk, index) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
        let store = store_on(&disk, index.path());
        disk.set_fault(disk.operations() + operation, Fault::Crash);
        let imported = store.import_path(&path, None, &());
        let has_crashed = disk.fault_has_come();
        drop(store);
        let index = TempDir::new().expect("a temporary directory");
        let store = store_on(&disk.after_crash(&mut random), index.path());
        let kept = store.path_info(&hash).expect("it opens");
        assert!(kept.is_some() || imported.is_err(), "operation {operation}: it was acknowledged");
        match kept {
            Some(kept) => {
                there += 1;
                assert!(render(&store, &kept.node) == motley().nar(), "operation {operation}");
            }
            None => absent += 1,
        }
        if !has_crashed {
            break;
        }
    }
    assert!(there > 0 && absent > 0, "{there} {absent}");
}

/// The hash part of the path that an import of `path` makes.
fn expected_hash(path: &Path) -> StorePathHash {
    let (store, _) = memory_store(StoreOptions::default());
    let path_info = store.import_path(path, None, &()).expect("a tree that can be read");
    *path_info.store_path.hash()
}

#[test]
fn the_name_can_be_chosen_and_is_checked_first() {
    let nix = Nix::new();
    let (parent, path) = create(&motley());
    let (store, memory) = memory_store(StoreOptions::default());
    let named = import_path(&memory, &store, &path, Some("other"), &()).expect("a valid name");
    assert_eq!(named.store_path.name(), "other");
    let renamed = parent.path().join("other");
    fs::rename(&path, &renamed).expect("renamed");
    assert_eq!(named.store_path.absolute(), nix.add(&renamed));

    let dotted = renamed.join("sub/..");
    let dotted = import_path(&memory, &store, &dotted, None, &()).expect("it has a name");
    assert_eq!(dotted, named);
    let error = import_path(&memory, &store, Path::new("/absent"), Some("a b"), &());
    assert!(matches!(error, Err(ImportError::Name(_))), "{error:?}");
}

#[test]
fn what_a_store_cannot_hold_is_named() {
    let (_parent, path) = create(&Tree::directory([("sub", Tree::directory::<&str>([]))]));
    let socket = path.join("sub/socket");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let error = ingest(&path).expect_err("a socket");
    assert!(matches!(&error, ImportError::Unsupported { path, .. } if *path == socket), "{error}");
    assert!(error.to_string().contains("a socket"), "{error}");
    let error = ingest(&path.join("absent")).expect_err("nothing there");
    assert!(matches!(&error, ImportError::File { path: at, .. } if *at == path.join("absent")));
}

/// Root reads everything, so this is about what cannot be read for another reason.
#[test]
fn a_file_whose_size_is_not_what_it_gives_has_changed() {
    // The kernel says 0 bytes here and gives some.
    let error = ingest(Path::new("/proc/self/status")).expect_err("it is not what it says");
    assert!(matches!(&error, ImportError::Changed { path } if path.ends_with("status")), "{error}");
}

#[test]
fn only_the_owner_decides_what_is_executable() {
    let executable = |mode| {
        let (_parent, path) = create(&Tree::file("x"));
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        let granary_castore::Node::File { executable, .. } = ingest(&path).expect("a file").node
        else {
            panic!("a file")
        };
        executable
    };
    assert!(executable(0o744));
    assert!(!executable(0o655));
}

/// Deeper than directories are kept open, so that some are closed and opened again.
#[test]
fn deep_trees_are_read_in_order() {
    const DEPTH: usize = 400;
    let parent = TempDir::new().expect("a temporary directory");
    let root = parent.path().join("deep");
    let mut path = root.clone();
    for _ in 0..DEPTH {
        fs::create_dir(&path).expect("a directory");
        fs::write(path.join("a"), "before").expect("a file");
        fs::write(path.join("z"), "after").expect("a file");
        path.push("d");
    }
    let ingested = ingest(&root).expect("a tree that can be read");
    let nar = Nix::new().dump(&root);
    let memory = MemoryStore::default();
    let mut batch = memory.batch().expect("memory");
    assert_eq!(ingest_nar(&nar[..], &mut *batch).expect("a NAR"), ingested);
}

#[test]
fn a_tree_that_is_too_deep_has_no_nar() {
    use std::os::fd::OwnedFd;

    use granary_nix_formats::nar;
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

    let parent = TempDir::new().expect("a temporary directory");
    let root = parent.path().join("deep");
    fs::create_dir(&root).expect("a directory");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at: OwnedFd = openat(CWD, &root, flags, Mode::empty()).expect("opened");
    // Longer than any path, so it is made from within.
    for _ in 0..nar::MAX_DEPTH {
        mkdirat(&at, "d", Mode::RWXU).expect("a directory");
        at = openat(&at, "d", flags, Mode::empty()).expect("opened");
    }
    let error = ingest(&root).expect_err("it is too deep");
    assert!(matches!(error, ImportError::Nar(_)), "{error:?}");
}

#[test]
fn a_hundred_thousand_entries_in_one_directory() {
    const ENTRIES: usize = 100_000;
    let names = (0..ENTRIES).map(|number| (format!("entry-{number}"), Tree::file("")));
    let (_parent, path) = create(&Tree::directory(names));
    let (store, _) = memory_store(StoreOptions::default());
    let path_info = store.import_path(&path, None, &()).expect("a tree that can be read");
    assert!(render(&store, &path_info.node) == Nix::new().dump(&path));
}

/// The batch fails only after a while, when as much was read as may wait, so that other threads wait for it.
#[test]
fn a_batch_that_fails_ends_the_import() {
    struct FullDisk;
    impl WriteBatch for FullDisk {
        fn put_blob(&mut self, _: Bytes) -> Result<BlobDigest> {
            thread::sleep(Duration::from_millis(200));
            Err(Error::unavailable("the disk is full"))
        }
        fn write(&mut self, _: &[u8]) -> Result<()> {
            thread::sleep(Duration::from_millis(200));
            Err(Error::unavailable("the disk is full"))
        }
        fn finish_blob(&mut self) -> Result<BlobDigest> {
            Err(Error::unavailable("the disk is full"))
        }
        fn put_directory(&mut self, directory: &Directory) -> Result<DirectoryDigest> {
            Ok(directory.digest())
        }
        fn commit(self: Box<Self>) -> Result<()> {
            Ok(())
        }
    }
    let small = Tree::directory((0..20_000).map(|number| (format!("{number}"), Tree::file("x"))));
    for tree in [small, Tree::file(vec![0; 40 << 20])] {
        let (_parent, path) = create(&tree);
        let error = ingest_path(&path, &mut FullDisk, &()).expect_err("the disk is full");
        assert!(matches!(error, ImportError::Store(Error::Unavailable(_))), "{error:?}");
    }
}

/// Does something once, when the first bytes were read.
struct AtFirst<F>(Mutex<Option<F>>);

impl<F: FnOnce() + Send> ImportObserver for AtFirst<F> {
    fn data(&self, _: u64) {
        let action = self.0.lock().expect("no thread panicked here").take();
        if let Some(action) = action {
            action();
        }
    }
}

fn at_first<F: FnOnce() + Send>(action: F) -> AtFirst<F> {
    AtFirst(Mutex::new(Some(action)))
}

/// As long as it is read, far behind what is read ahead.
#[test]
fn a_large_file_that_changes_while_it_is_read_is_refused() {
    const SIZE: u64 = 40 << 20;
    for other_size in [SIZE - 1, SIZE + 1] {
        let (_parent, path) = create(&Tree::directory([
            ("a", Tree::file("small")),
            ("b", Tree::file(vec![0; usize::try_from(SIZE).expect("small")])),
        ]));
        let large = path.join("b");
        let change = at_first(|| {
            let file = fs::File::options().write(true).open(&large).expect("it is there");
            file.set_len(other_size).expect("the disk takes it");
        });
        let memory = MemoryStore::default();
        let mut batch = memory.batch().expect("memory");
        let error = ingest_path(&path, &mut *batch, &change).expect_err("it changed");
        assert!(matches!(&error, ImportError::Changed { path } if *path == large), "{error:?}");
    }
}

#[test]
fn an_import_in_which_something_panics_ends() {
    let (_parent, path) = create(&Tree::file(vec![0; 40 << 20]));
    let panics = at_first(|| panic!("as the test wants"));
    let memory = MemoryStore::default();
    let mut batch = memory.batch().expect("memory");
    let import = || ingest_path(&path, &mut *batch, &panics);
    panic::catch_unwind(AssertUnwindSafe(import)).expect_err("it panics");
}

#[test]
fn the_observer_hears_of_every_file_and_byte() {
    #[derive(Default)]
    struct Counter {
        bytes: AtomicU64,
        files: AtomicU64,
    }
    impl ImportObserver for Counter {
        fn data(&self, bytes: u64) {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        fn file(&self) {
            self.files.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (_parent, path) = create(&Tree::directory([
        ("a", Tree::file("12345")),
        ("b", Tree::file(vec![0; (1 << 20) + 1])),
        ("c", Tree::file("")),
    ]));
    let counter = Counter::default();
    let memory = MemoryStore::default();
    let mut batch = memory.batch().expect("memory");
    ingest_path(&path, &mut *batch, &counter).expect("a tree that can be read");
    let heard = (counter.bytes.into_inner(), counter.files.into_inner());
    assert_eq!(heard, (5 + (1 << 20) + 1, 3));
}

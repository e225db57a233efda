//! Garbage collection: what goes, what stays, what it leaves on the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use granary_castore::{
    BlobDigest, BlobService, Castore, CollectionKind, Collector, Directory, DirectoryDigest,
    DirectoryService, Error, Node, NodeName, RecordStore, Root, SweepOptions, Swept, Touch,
};
use granary_engine::{Engine, OpenOptions};
use granary_testkit::Random;
use tempfile::TempDir;

use crate::support::{KIND, open, put_blob, read_blob, write_record};

/// A directory of files, put with their contents.
struct Tree {
    root: DirectoryDigest,
    files: Vec<Vec<u8>>,
}

impl Tree {
    /// Trees of different seeds share a part of their files.
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut files: Vec<_> =
            (0..8_usize).map(|file| random.compressible(100 + file * 3_000)).collect();
        files.push(random.incompressible(400_000));
        // The same but for the hashes, in all trees.
        files.push(Random::new(99).with_references(90_000, 5, 3_000, seed));
        // The same in every third.
        files.push(Random::new(1_000 + seed % 3).compressible(500_000));
        let root = Self::directory(&files).digest();
        Self { root, files }
    }

    fn directory(files: &[Vec<u8>]) -> Directory {
        let entries = files.iter().enumerate().map(|(number, contents)| {
            let name = NodeName::new(format!("file{number}").into_bytes()).expect("valid");
            let (digest, size_bytes) = (BlobDigest::of(contents), contents.len() as u64);
            (name, Node::File { digest, size_bytes, executable: false })
        });
        Directory::new(entries.collect()).expect("names differ")
    }

    fn put(&self, engine: &Engine) {
        let mut batch = engine.batch().expect("open");
        for contents in &self.files {
            batch.put_blob(Bytes::copy_from_slice(contents)).expect("put");
        }
        let root = batch.put_directory(&Self::directory(&self.files)).expect("put");
        batch.commit().expect("committed");
        assert_eq!(root, self.root);
    }

    fn root(&self) -> Root {
        Root::Directory(self.root)
    }

    fn is_whole(&self, engine: &Engine) -> bool {
        engine.directory(&self.root).expect("readable").is_some()
            && self.files.iter().all(|contents| {
                let read = read_blob(engine, &BlobDigest::of(contents)).expect("readable");
                assert!(read.as_ref().is_none_or(|read| read == contents));
                read.is_some()
            })
    }
}

const SWEEP: SweepOptions<'_> =
    SweepOptions { max_unused_permille: 80, bytes_per_s: None, observer: &() };

/// Small packs, so that there are many.
fn small_packs() -> OpenOptions<'static> {
    OpenOptions { pack_bytes: 500_000, ..OpenOptions::default() }
}

fn collect(engine: &Engine, roots: &[Root]) -> Swept {
    let mut collection = engine.begin_collection(CollectionKind::Sweep).expect("none is under way");
    for root in roots {
        collection.keep(root).expect("readable");
    }
    collection.sweep(&SWEEP).expect("swept")
}

/// Bytes of all packs and of the list of dead objects.
fn pack_bytes(dir: &Path) -> u64 {
    let packs = fs::read_dir(dir.join("packs")).expect("a store has packs");
    packs.map(|entry| entry.expect("readable").metadata().expect("there").len()).sum()
}

#[test]
fn what_nobody_wants_goes_and_what_is_wanted_stays() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = Engine::open(dir.path(), &small_packs()).expect("a new store");
    let trees: Vec<_> = (0..12).map(Tree::new).collect();
    for tree in &trees {
        tree.put(&engine);
    }
    write_record(&engine, b"kept", Some(b"value")).expect("written");
    let before = engine.stats().expect("counted");
    let roots: Vec<_> = trees.iter().step_by(2).map(Tree::root).collect();
    let swept = collect(&engine, &roots);
    assert!(swept.removed_objects > 0 && swept.removed_packs > 0, "{swept:?}");
    assert!(swept.stored_bytes_before >= before.stored_bytes);
    let after = engine.stats().expect("counted");
    assert_eq!(swept.stored_bytes_after, after.stored_bytes);
    assert_eq!(after.directory_count, 6);
    assert_eq!(after.damaged_count, 0);

    // As large as a store that only ever had these, but for a tenth.
    let other = TempDir::new().expect("a temporary directory");
    let only = Engine::open(other.path(), &small_packs()).expect("a new store");
    for tree in trees.iter().step_by(2) {
        tree.put(&only);
    }
    write_record(&only, b"kept", Some(b"value")).expect("written");
    let wanted = only.stats().expect("counted");
    assert_eq!(
        (after.chunk_count, after.chunk_bytes, after.patched_chunk_count),
        (wanted.chunk_count, wanted.chunk_bytes, wanted.patched_chunk_count)
    );
    assert_eq!(after.divided_blob_count, wanted.divided_blob_count);
    let (size, ideal) = (pack_bytes(dir.path()), pack_bytes(other.path()));
    assert!(size * 10 <= ideal * 11, "{size} bytes, and {ideal} would do");

    let check = |engine: &Engine| {
        for (number, tree) in trees.iter().enumerate() {
            assert_eq!(tree.is_whole(engine), number % 2 == 0, "tree {number}");
        }
        assert_eq!(engine.record(KIND, b"kept").expect("readable").as_deref(), Some(&b"value"[..]));
    };
    check(&engine);
    drop(engine);
    let engine = open(dir.path()).expect("opens again");
    check(&engine);
    assert_eq!(engine.stats().expect("counted").chunk_count, wanted.chunk_count);
    drop(engine);
    // The packs alone say the same.
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let engine = open(dir.path()).expect("opens again");
    assert!(engine.report().rebuilt_index && engine.report().damage_count() == 0);
    check(&engine);
    let rebuilt = engine.stats().expect("counted");
    assert_eq!(
        (rebuilt.chunk_count, rebuilt.directory_count, rebuilt.divided_blob_count),
        (wanted.chunk_count, wanted.directory_count, wanted.divided_blob_count)
    );
    // What went can come again.
    trees[1].put(&engine);
    assert!(trees[1].is_whole(&engine));
}

#[test]
fn a_second_collection_finds_nothing_to_do() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = Engine::open(dir.path(), &small_packs()).expect("a new store");
    let trees: Vec<_> = (0..4).map(Tree::new).collect();
    for tree in &trees {
        tree.put(&engine);
    }
    let roots = [trees[0].root(), trees[3].root()];
    collect(&engine, &roots);
    let size = pack_bytes(dir.path());
    let swept = collect(&engine, &roots);
    assert_eq!((swept.removed_objects, swept.copied_bytes), (0, 0), "{swept:?}");
    assert!(pack_bytes(dir.path()) <= size);
    assert!(trees[0].is_whole(&engine) && trees[3].is_whole(&engine));
}

#[test]
fn nothing_is_left_of_nothing() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("a new store");
    assert_eq!(collect(&engine, &[]).removed_objects, 0, "of an empty store");
    Tree::new(1).put(&engine);
    let swept = collect(&engine, &[]);
    assert!(swept.removed_objects > 10, "{swept:?}");
    assert_eq!(engine.stats().expect("counted").pack_count, 0);
    assert!(pack_bytes(dir.path()) < 100, "an empty list of dead objects");
}

#[test]
fn what_is_deleted_stays_deleted() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = Engine::open(dir.path(), &small_packs()).expect("a new store");
    let tree = Tree::new(5);
    write_record(&engine, b"path", Some(b"old")).expect("written");
    tree.put(&engine);
    write_record(&engine, b"path", Some(b"newer")).expect("written");
    Tree::new(6).put(&engine);
    write_record(&engine, b"path", None).expect("deleted");
    write_record(&engine, b"other", Some(b"value")).expect("written");
    for round in 0..4 {
        collect(&engine, &[tree.root()]);
        assert_eq!(engine.record(KIND, b"path").expect("readable"), None, "round {round}");
    }
    drop(engine);
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let engine = open(dir.path()).expect("opens again");
    assert_eq!(engine.record(KIND, b"path").expect("readable"), None);
    assert_eq!(engine.record(KIND, b"other").expect("readable").as_deref(), Some(&b"value"[..]));
}

#[test]
fn what_an_upload_found_is_there_when_it_commits() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = Engine::open(dir.path(), &small_packs()).expect("a new store");
    let tree = Tree::new(1);
    tree.put(&engine);
    // Begun before, found before.
    let mut early = engine.batch().expect("open");
    for contents in &tree.files[..4] {
        early.put_blob(Bytes::copy_from_slice(contents)).expect("put");
    }
    let mut collection = engine.begin_collection(CollectionKind::Sweep).expect("none is under way");
    // Begun before, found meanwhile.
    for contents in &tree.files[4..8] {
        early.put_blob(Bytes::copy_from_slice(contents)).expect("put");
    }
    // Begun meanwhile.
    let mut late = engine.batch().expect("open");
    late.put_blob(Bytes::copy_from_slice(&tree.files[8])).expect("put");
    collection.condemn().expect("condemned");
    // Looked for once it was condemned: it is not there, and comes anew.
    assert_eq!(engine.stat(&BlobDigest::of(&tree.files[9])).expect("readable"), None);
    late.put_blob(Bytes::copy_from_slice(&tree.files[9])).expect("put");
    assert_eq!(engine.directory(&tree.root).expect("readable"), None);
    let mut third = engine.batch().expect("open");
    third.put_blob(Bytes::copy_from_slice(&tree.files[10])).expect("put");
    third.put_directory(&Tree::directory(&tree.files)).expect("put");
    third.commit().expect("committed");
    collection.sweep(&SWEEP).expect("swept");
    drop(collection);
    early.commit().expect("committed");
    late.commit().expect("committed");
    assert!(tree.is_whole(&engine));
    drop(engine);
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let engine = open(dir.path()).expect("opens again");
    assert!(tree.is_whole(&engine));
}

#[test]
fn what_is_touched_stays_for_as_long_as_the_hold() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("a new store");
    let (tree, other) = (Tree::new(1), Tree::new(2));
    tree.put(&engine);
    other.put(&engine);
    let hold = engine.hold();
    assert!(engine.touch(&tree.root(), Touch::Hold).expect("readable"));
    collect(&engine, &[]);
    assert!(tree.is_whole(&engine) && !other.is_whole(&engine));
    assert!(!engine.touch(&other.root(), Touch::Hold).expect("readable"), "it is gone");
    drop(hold);
    collect(&engine, &[]);
    assert!(!tree.is_whole(&engine), "nobody holds it any more");
}

#[test]
fn a_client_that_was_told_may_rely_on_it() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("a new store");
    let tree = Tree::new(1);
    tree.put(&engine);
    assert!(engine.touch(&tree.root(), Touch::Lease).expect("readable"));
    collect(&engine, &[]);
    assert!(tree.is_whole(&engine));
}

#[test]
fn a_lease_is_durable_and_ends() {
    let lease_for =
        |seconds| OpenOptions { lease: Duration::from_secs(seconds), ..OpenOptions::default() };
    let dir = TempDir::new().expect("a temporary directory");
    let engine = Engine::open(dir.path(), &lease_for(1_000)).expect("a new store");
    let tree = Tree::new(1);
    tree.put(&engine);
    let mut batch = engine.batch().expect("open");
    batch.lease(&tree.root()).expect("leased");
    batch.commit().expect("committed");
    let blob = b"leased on its own";
    let mut batch = engine.batch().expect("open");
    let digest = batch.put_blob(Bytes::from_static(blob)).expect("put");
    batch.lease(&Root::Blob(digest)).expect("leased");
    batch.commit().expect("committed");
    for index in ["kept", "lost"] {
        collect(&engine, &[]);
        assert!(tree.is_whole(&engine), "{index}");
        assert!(read_blob(&engine, &digest).expect("readable").is_some(), "{index}");
    }
    drop(engine);
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let engine = Engine::open(dir.path(), &lease_for(0)).expect("opens again");
    collect(&engine, &[]);
    assert!(tree.is_whole(&engine), "a rebuilt index knows of it");

    let over = b"over at once";
    let mut batch = engine.batch().expect("open");
    let digest = batch.put_blob(Bytes::from_static(over)).expect("put");
    batch.lease(&Root::Blob(digest)).expect("leased");
    batch.commit().expect("committed");
    std::thread::sleep(Duration::from_millis(2_100));
    collect(&engine, &[]);
    assert_eq!(read_blob(&engine, &digest).expect("readable"), None);
    assert!(
        engine
            .write_records(vec![granary_castore::RecordWrite {
                kind: granary_castore::RecordKind(255),
                key: Bytes::from_static(b"x"),
                value: None,
            }])
            .is_err_and(|error| matches!(error, Error::Invalid(_)))
    );
}

#[test]
fn one_collection_at_a_time() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("a new store");
    let first = engine.begin_collection(CollectionKind::Sweep).expect("none is under way");
    let error = engine.begin_collection(CollectionKind::Sweep).map(drop).expect_err("one is");
    assert!(matches!(error, Error::Unavailable(_)) && error.to_string().contains("under way"));
    drop(first);
    engine.begin_collection(CollectionKind::Sweep).expect("it has ended");
}

#[test]
fn readers_go_on_while_packs_move() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = Engine::open(dir.path(), &small_packs()).expect("a new store");
    let trees: Vec<_> = (0..8).map(Tree::new).collect();
    for tree in &trees {
        tree.put(&engine);
    }
    let kept = &trees[4];
    let mut readers = BTreeMap::new();
    for contents in &kept.files {
        let mut reader = BlobService::open(&engine, &BlobDigest::of(contents))
            .expect("readable")
            .expect("there");
        let extent = reader.extent_at(0, &mut std::iter::empty()).expect("readable");
        if let Some(at) = &extent {
            let bytes = at.extent.read().expect("readable");
            // Its pack is open now.
            assert_eq!(at.extent.read_now().as_ref(), Some(&bytes), "it is in memory");
        }
        readers.insert(contents.clone(), (reader, extent));
    }
    let gone = BlobService::open(&engine, &BlobDigest::of(&trees[1].files[8]));
    let mut gone = vec![gone.expect("readable").expect("there")];
    // Of one chunk, and of one that is patched.
    for file in [1, 9] {
        let reader = BlobService::open(&engine, &BlobDigest::of(&trees[1].files[file]));
        gone.push(reader.expect("readable").expect("there"));
    }
    collect(&engine, &[kept.root()]);
    for (contents, (mut reader, extent)) in readers {
        if let Some(at) = extent {
            // What is kept of its frame may still be had.
            let now = at.extent.read_now();
            assert!(now.is_none_or(|bytes| bytes == contents[..bytes.len()]));
            let bytes = at.extent.read().expect("it lies elsewhere now");
            assert_eq!(bytes, contents[..bytes.len()]);
        }
        let mut read = Vec::new();
        while read.len() < contents.len() {
            read.extend(reader.read_at(read.len() as u64, 1 << 20).expect("readable"));
        }
        assert!(read == contents);
    }
    for mut reader in gone {
        let error = reader.read_at(0, 100).expect_err("it was collected");
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
    }
    assert_eq!(engine.stats().expect("counted").damaged_count, 0, "that is no damage");
}

#[test]
fn weighing_changes_nothing() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = Engine::open(dir.path(), &small_packs()).expect("a new store");
    let trees: Vec<_> = (0..3).map(Tree::new).collect();
    for tree in &trees {
        tree.put(&engine);
    }
    let stored = engine.stats().expect("counted").stored_bytes;
    let mut collection =
        engine.begin_collection(CollectionKind::Survey).expect("none is under way");
    let kept = collection.keep(&trees[0].root()).expect("readable");
    let second = collection.weigh(&trees[1].root()).expect("readable");
    assert_eq!(collection.weigh(&trees[1].root()).expect("readable"), 0, "it was weighed");
    collection.weigh_anew();
    assert_eq!(collection.weigh(&trees[1].root()).expect("readable"), second);
    assert_eq!(collection.weigh(&trees[0].root()).expect("readable"), 0, "it is kept");
    let third = collection.weigh(&trees[2].root()).expect("readable");
    let survey = collection.survey().expect("readable");
    let error = collection.condemn().expect_err("it only looks");
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    drop(collection);
    // What is told by object adds up to what is told by pack.
    let close = |a: u64, b: u64| a.abs_diff(b) * 50 < a.max(b);
    assert!(close(second + third, survey.unused_bytes), "{second} {third} {survey:?}");
    assert!(close(kept + second + third, stored), "{kept} {second} {third} {stored}");
    assert!(survey.unused_objects > 10 && survey.stored_bytes >= stored);
    assert!(trees.iter().all(|tree| tree.is_whole(&engine)));
    put_blob(&engine, b"afterwards").expect("takes writes");
}

#[test]
fn what_is_damaged_stops_a_collection_and_nothing_goes() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("a new store");
    let (tree, other) = (Tree::new(1), Tree::new(2));
    for contents in &tree.files {
        put_blob(&engine, contents).expect("put");
    }
    other.put(&engine);
    // It ends the pack, so that the directory is alone in the next.
    drop(engine.begin_collection(CollectionKind::Sweep).expect("none is under way"));
    let packs = |dir: &Path| -> BTreeSet<_> {
        let entries = fs::read_dir(dir.join("packs")).expect("readable");
        entries.map(|entry| entry.expect("readable").path()).collect()
    };
    let before = packs(dir.path());
    tree.put(&engine);
    drop(engine);
    let pack = packs(dir.path()).into_iter().find(|pack| !before.contains(pack));
    let pack = pack.expect("there is a new pack");
    let mut bytes = fs::read(&pack).expect("readable");
    // Behind the headers of pack, segment and frame.
    bytes[64 + 64 + 24 + 5] ^= 1;
    fs::write(&pack, &bytes).expect("written");

    let engine = open(dir.path()).expect("opens");
    let mut collection = engine.begin_collection(CollectionKind::Sweep).expect("none is under way");
    let error = collection.keep(&tree.root()).expect_err("nobody knows what is below it");
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
    drop(collection);
    assert!(other.is_whole(&engine), "nothing went");
    let read = read_blob(&engine, &BlobDigest::of(&tree.files[0])).expect("readable");
    assert!(read.is_some(), "nothing went");
}

fn copy_index(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy_index(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

/// As a restored file system or a lost table may leave it.
#[test]
fn an_index_that_is_older_than_a_collection_brings_nothing_back() {
    let dir = TempDir::new().expect("a temporary directory");
    let index = dir.path().join("index");
    let trees: Vec<_> = (0..6).map(Tree::new).collect();
    let engine = Engine::open(dir.path(), &small_packs()).expect("a new store");
    write_record(&engine, b"deleted", Some(b"value")).expect("written");
    for tree in &trees {
        tree.put(&engine);
    }
    drop(engine);
    let older = TempDir::new().expect("a temporary directory");
    copy_index(&index, older.path());
    let engine = Engine::open(dir.path(), &small_packs()).expect("opens");
    write_record(&engine, b"deleted", None).expect("deleted");
    for _ in 0..3 {
        collect(&engine, &[trees[2].root(), trees[5].root()]);
    }
    drop(engine);
    fs::remove_dir_all(&index).expect("removed");
    copy_index(older.path(), &index);

    let engine = Engine::open(dir.path(), &small_packs()).expect("opens");
    assert_eq!(engine.report().damage_count(), 0, "{:?}", engine.report());
    for (number, tree) in trees.iter().enumerate() {
        assert_eq!(tree.is_whole(&engine), number % 3 == 2, "tree {number}");
        assert_eq!(engine.directory(&tree.root).expect("readable").is_some(), number % 3 == 2);
    }
    assert_eq!(engine.record(KIND, b"deleted").expect("readable"), None);
    for tree in &trees {
        tree.put(&engine);
        assert!(tree.is_whole(&engine), "it can come again");
    }
}

/// Whatever comes to such a pack would count as dead as soon as the index is built anew.
#[test]
fn a_pack_with_dead_objects_is_not_appended_to() {
    let dir = TempDir::new().expect("a temporary directory");
    let index = dir.path().join("index");
    let engine = open(dir.path()).expect("a new store");
    let (kept, other) = (Tree::new(1), Tree::new(2));
    kept.put(&engine);
    other.put(&engine);
    let mut collection = engine.begin_collection(CollectionKind::Sweep).expect("none is under way");
    collection.keep(&kept.root()).expect("readable");
    let stays = SweepOptions { max_unused_permille: 1000, ..SWEEP };
    assert_eq!(collection.sweep(&stays).expect("swept").removed_packs, 0);
    drop(collection);
    drop(engine);
    // Its footer is damaged, so that it looks as if it was not sealed.
    let packs = fs::read_dir(dir.path().join("packs")).expect("readable");
    let mut packs = packs.map(|entry| entry.expect("readable").path());
    let pack = packs.find(|path| path.extension().is_some_and(|end| end == "pack"));
    let pack = fs::File::options().write(true).open(pack.expect("there is one")).expect("opens");
    let len = pack.metadata().expect("there").len();
    pack.set_len(len - 1).expect("cut");
    for round in 0..2 {
        fs::remove_dir_all(&index).expect("removed");
        let engine = open(dir.path()).expect("opens");
        assert!(kept.is_whole(&engine), "round {round}");
        assert_eq!(other.is_whole(&engine), round == 1, "round {round}");
        other.put(&engine);
        assert!(other.is_whole(&engine));
    }
}

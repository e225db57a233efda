//! Garbage collection that is cut off or fails, at every operation on the disk.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use granary_castore::{
    BlobDigest, Castore, CollectionKind, CollectionObserver, Collector, Directory,
    DirectoryService, Node, NodeName, RecordStore, Result, Root, SweepOptions,
};
use granary_engine::{Engine, OpenError, OpenOptions};
use granary_testkit::{CrashDisk, Fault, Random};
use tempfile::TempDir;

use crate::support::{KIND, copy_dir, read_blob, write_record};

/// Trees that were put before.
const TREES: u64 = 5;

const SWEEP: SweepOptions<'_> =
    SweepOptions { max_unused_permille: 20, bytes_per_s: None, observer: &() };

pub(crate) fn open(disk: &CrashDisk, index: &Path) -> Result<Engine, OpenError> {
    let options = OpenOptions { pack_bytes: 25_000, ..OpenOptions::default() };
    Engine::open_on(Arc::new(disk.clone()), index, &options)
}

fn files(seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    vec![
        random.compressible(2_000),
        random.incompressible(12_000),
        Random::new(77).with_references(18_000, 5, 3_000, seed),
        // In every other tree.
        Random::new(500 + seed % 2).compressible(70_000),
    ]
}

fn directory(files: &[Vec<u8>]) -> Directory {
    let entries = files.iter().enumerate().map(|(number, contents)| {
        let name = NodeName::new(format!("f{number}").into_bytes()).expect("valid");
        let (digest, size_bytes) = (BlobDigest::of(contents), contents.len() as u64);
        (name, Node::File { digest, size_bytes, executable: false })
    });
    Directory::new(entries.collect()).expect("names differ")
}

fn root(seed: u64) -> Root {
    Root::Directory(directory(&files(seed)).digest())
}

fn put(engine: &Engine, seed: u64) -> Result<()> {
    let files = files(seed);
    let mut batch = engine.batch()?;
    for contents in &files {
        batch.put_blob(Bytes::copy_from_slice(contents))?;
    }
    batch.put_directory(&directory(&files))?;
    batch.commit()
}

/// Whether all of a tree is there; what is there is right in any case.
pub(crate) fn is_whole(engine: &Engine, seed: u64, what: &str) -> bool {
    let files = files(seed);
    let found = engine.directory(&directory(&files).digest()).expect("readable");
    let mut is_whole = found.is_some();
    for contents in &files {
        let read = read_blob(engine, &BlobDigest::of(contents));
        let read = read.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(read.as_ref().is_none_or(|read| read == contents), "{what}");
        is_whole &= read.is_some();
    }
    is_whole
}

pub(crate) fn fill(engine: &Engine) {
    for seed in 0..TREES {
        put(engine, seed).expect("put");
        write_record(engine, &[0], Some(&seed.to_le_bytes())).expect("written");
    }
    write_record(engine, b"deleted", Some(b"value")).expect("written");
    write_record(engine, b"deleted", None).expect("deleted");
}

/// What is kept: trees 1 and 4.
pub(crate) fn collect(engine: &Engine) -> Result<()> {
    let mut collection = engine.begin_collection(CollectionKind::Sweep)?;
    collection.keep(&root(1))?;
    collection.keep(&root(4))?;
    collection.condemn()?;
    // Somebody wants another after all.
    put(engine, 3)?;
    collection.sweep(&SWEEP)?;
    Ok(())
}

/// Generation of the list of dead objects; 0 if there is none.
fn dead_generation(disk: &CrashDisk) -> u64 {
    disk.contents("packs/dead")
        .map_or(0, |list| u64::from_le_bytes(list[12..20].try_into().expect("eight bytes")))
}

/// Sees to it that the list that is written first is newer than the one before.
struct Newer<'a> {
    disk: &'a CrashDisk,
    before: u64,
}

impl CollectionObserver for Newer<'_> {
    fn copied(&self, _done_bytes: u64, _total_bytes: u64) {
        assert!(dead_generation(self.disk) > self.before, "the index may have followed this one");
    }
}

/// As [`collect`].
fn collect_again(disk: &CrashDisk, engine: &Engine) -> Result<()> {
    let before = dead_generation(disk);
    let mut collection = engine.begin_collection(CollectionKind::Sweep)?;
    collection.keep(&root(1))?;
    collection.keep(&root(4))?;
    collection.condemn()?;
    put(engine, 3)?;
    collection.sweep(&SweepOptions { observer: &Newer { disk, before }, ..SWEEP })?;
    Ok(())
}

pub(crate) fn check(engine: &Engine, has_third: bool, what: &str) {
    assert_eq!(engine.report().damage_count(), 0, "{what}: {:?}", engine.report());
    assert!(is_whole(engine, 1, what) && is_whole(engine, 4, what), "{what}: kept");
    assert!(!has_third || is_whole(engine, 3, what), "{what}: put meanwhile");
    for seed in [0, 2] {
        is_whole(engine, seed, what);
    }
    let record = engine.record(KIND, &[0]).expect("readable");
    assert_eq!(record.as_deref(), Some(&(TREES - 1).to_le_bytes()[..]), "{what}");
    assert_eq!(engine.record(KIND, b"deleted").expect("readable"), None, "{what}");
}

/// Whatever was condemned and is not gone may be put again, and then stays.
pub(crate) fn put_again(engine: &Engine, what: &str) {
    for seed in [0, 2] {
        put(engine, seed).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(is_whole(engine, seed, what), "{what}: put again");
    }
}

/// Runs a collection in which the operation `at` fails; `None` if there are not so many.
fn collect_with(at: usize, fault: Fault) -> Option<(CrashDisk, TempDir, Engine, bool, bool)> {
    let (disk, dir) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
    let engine = open(&disk, &dir.path().join("index")).expect("a new store");
    fill(&engine);
    disk.set_fault(disk.operations() + at, fault);
    let result = collect(&engine);
    if !disk.fault_has_come() {
        result.expect("nothing fails");
        return None;
    }
    let has_third = result.is_ok() || is_whole_or_unread(&engine, 3);
    Some((disk, dir, engine, result.is_ok(), has_third))
}

/// As [`is_whole`], where the disk may not answer any more.
fn is_whole_or_unread(engine: &Engine, seed: u64) -> bool {
    files(seed).iter().all(|contents| {
        read_blob(engine, &BlobDigest::of(contents)).is_ok_and(|read| read.is_some())
    })
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_is_kept() {
    let mut points = 0;
    while let Some((disk, dir, engine, _, _)) = collect_with(points, Fault::Crash) {
        // As the process leaves it: what was not flushed of the index is lost.
        let index = dir.path().join("index");
        let index_then = dir.path().join("then");
        copy_dir(&index, &index_then);
        drop(engine);
        let mut random = Random::new(points as u64);
        for (variant, index_dir) in [("flushed", &index), ("as it was", &index_then)] {
            let disk = disk.after_crash(&mut random);
            let what = format!("operation {points}, index {variant}");
            let engine = open(&disk, index_dir).unwrap_or_else(|error| panic!("{what}: {error}"));
            check(&engine, false, &what);
            put_again(&engine, &what);
            check(&engine, false, &what);
            drop(engine);
            let what = format!("{what}, then lost");
            fs::remove_dir_all(index_dir).expect("removed");
            let engine = open(&disk, index_dir).unwrap_or_else(|error| panic!("{what}: {error}"));
            check(&engine, false, &what);
            assert!(is_whole(&engine, 0, &what) && is_whole(&engine, 2, &what), "{what}");
            collect(&engine).unwrap_or_else(|error| panic!("{what}: {error}"));
            check(&engine, true, &what);
        }
        let lost = dir.path().join("lost");
        let what = format!("operation {points}, index lost");
        let engine = open(&disk.after_crash(&mut random), &lost).expect("opens");
        check(&engine, false, &what);
        put_again(&engine, &what);
        points += 1;
    }
    assert!(points > 20, "too few operations: {points}");
}

#[test]
fn a_failing_operation_loses_nothing_and_the_next_collection_goes_on() {
    for fault in [Fault::IoError, Fault::DiskFull] {
        let mut points = 0;
        while let Some((disk, dir, engine, was_done, has_third)) = collect_with(points, fault) {
            let what = format!("operation {points}, {fault:?}");
            check(&engine, has_third, &what);
            // After a failed sync nothing is written until the store is opened anew.
            if put(&engine, 9).is_ok() {
                put_again(&engine, &what);
                let index_lost = dir.path().join("lost");
                {
                    let engine = open(&disk, &index_lost).expect("opens");
                    check(&engine, has_third, &what);
                    assert!(is_whole(&engine, 0, &what) && is_whole(&engine, 2, &what), "{what}");
                }
                collect_again(&disk, &engine).unwrap_or_else(|error| panic!("{what}: {error}"));
                check(&engine, true, &what);
                assert!(!is_whole(&engine, 9, &what), "{what}: collected");
                let left = disk.names().iter().filter(|name| name.contains(".pack")).count();
                let known = engine.stats().expect("counted").pack_count;
                assert_eq!(left as u64, known, "{what}: nothing is left behind");
            }
            drop(engine);
            let index = dir.path().join("index");
            let engine = open(&disk, &index).unwrap_or_else(|error| panic!("{what}: {error}"));
            check(&engine, has_third, &what);
            put_again(&engine, &what);
            assert!(was_done || points < 1_000);
            points += 1;
        }
        assert!(points > 20, "too few operations: {points}");
    }
}

/// The pack that the index has followed up to is gone, and another has got its handle.
#[test]
fn a_pack_that_follows_a_collected_one_is_read_from_its_beginning() {
    for at in 0.. {
        let (disk, dir) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
        let index = dir.path().join("index");
        let engine = open(&disk, &index).expect("a new store");
        put(&engine, 0).expect("put");
        let collection = engine.begin_collection(CollectionKind::Sweep);
        collection.expect("none is under way").sweep(&SWEEP).expect("swept");
        assert_eq!(engine.stats().expect("counted").pack_count, 0);
        drop(engine);

        let engine = open(&disk, &index).expect("opens");
        disk.set_fault(disk.operations() + at, Fault::DiskFull);
        let was_put = put(&engine, 1).is_ok();
        if !disk.fault_has_come() {
            assert!(was_put && at > 3, "operation {at}");
            break;
        }
        drop(engine);
        // As it is then, and as a process leaves it that is killed behind the next upload.
        let before = dir.path().join("before");
        copy_dir(&index, &before);
        let engine = open(&disk, &index).expect("opens");
        assert_eq!(engine.report().damage_count(), 0, "operation {at}: {:?}", engine.report());
        assert!(!was_put || is_whole(&engine, 1, "put"));
        put(&engine, 2).expect("there is space again");
        drop(engine);
        let what = format!("operation {at}");
        let engine = open(&disk, &before).expect("opens");
        assert_eq!(engine.report().damage_count(), 0, "{what}: {:?}", engine.report());
        assert!(is_whole(&engine, 2, &what), "{what}");
    }
}

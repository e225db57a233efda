//! Power failures and failing operations, at every write and sync.

use granary_castore::{BlobDigest, Castore, RecordStore as _, RecordWrite};
use granary_engine::Engine;
use granary_testkit::{CrashDisk, Fault, Random};
use tempfile::TempDir;

use crate::{
    support::{KIND, copy_dir, put_blob, read_blob},
    workload::{Acknowledged, check, check_there, open, work},
};

/// How many operations the work takes without a fault.
fn operations() -> usize {
    let (disk, index) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
    let engine = open(&disk, &index).expect("a new store");
    work(&engine, &mut Acknowledged::default()).expect("nothing fails");
    drop(engine);
    disk.operations()
}

#[test]
fn nothing_acknowledged_is_lost_in_a_crash() {
    let operations = operations();
    assert!(operations > 50, "the work is too little: {operations}");
    for at in 0..operations {
        let (disk, index) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
        disk.set_fault(at, Fault::Crash);
        let mut acknowledged = Acknowledged::default();
        if let Ok(engine) = open(&disk, &index) {
            let result = work(&engine, &mut acknowledged);
            drop(engine);
            assert!(result.is_err() || at + 2 >= operations, "operation {at}");
        }
        let mut random = Random::new(at as u64);
        for variant in 0..3 {
            let what = format!("crash at operation {at}, variant {variant}");
            let disk = disk.after_crash(&mut random);
            let index_left = TempDir::new().expect("a temporary directory");
            if variant > 0 && index.path().join("index").exists() {
                copy_dir(&index.path().join("index"), &index_left.path().join("index"));
            }
            let engine = open(&disk, &index_left).unwrap_or_else(|error| panic!("{what}: {error}"));
            check(&engine, &acknowledged, &what);
            drop(engine);
            let engine = open(&disk, &index_left).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(engine.report().cut_tails.is_empty(), "{what}: cut twice");
            check(&engine, &acknowledged, &what);
        }
    }
}

#[test]
fn a_failing_operation_loses_nothing_acknowledged() {
    let operations = operations();
    for at in 0..operations {
        for fault in [Fault::IoError, Fault::DiskFull] {
            let what = format!("{fault:?} at operation {at}");
            let disk = CrashDisk::default();
            let index = TempDir::new().expect("a temporary directory");
            disk.set_fault(at, fault);
            let mut acknowledged = Acknowledged::default();
            if let Ok(engine) = open(&disk, &index) {
                // Whatever failed failed; what was acknowledged must be readable at once.
                let result = work(&engine, &mut acknowledged);
                for contents in &acknowledged.blobs {
                    let read = read_blob(&engine, &BlobDigest::of(contents)).expect("readable");
                    assert!(read.as_ref() == Some(contents), "{what}");
                }
                assert!(result.is_err() || at + 6 >= operations, "{what}: nobody noticed");
            }
            let engine = open(&disk, &index).unwrap_or_else(|error| panic!("{what}: {error}"));
            check(&engine, &acknowledged, &what);
        }
    }
}

#[test]
fn records_behind_a_batch_wait_for_no_sync_of_their_own() {
    let (disk, index) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
    let engine = open(&disk, &index).expect("a new store");
    let (other, of_other) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
    let other = open(&other, &of_other).expect("a new store");
    put_blob(&engine, b"makes the first pack").expect("stored");
    let record = |value: u8| {
        let value = Some(vec![value].into());
        vec![RecordWrite { kind: KIND, key: vec![1].into(), value }]
    };
    for (value, of, operations) in [(1, &engine, 2), (2, &other, 2), (3, &engine, 2)] {
        let before = disk.operations();
        let mut batch = of.batch().expect("it takes writes");
        let digest = batch.put_blob(vec![value; 100].into()).expect("it takes writes");
        engine.commit_with_records(batch, record(value)).expect("both are stored");
        assert_eq!(disk.operations() - before, operations, "a write and a sync: {value}");
        assert_eq!(engine.record(KIND, &[1]).expect("readable").as_deref(), Some(&[value][..]));
        let read = read_blob(of, &digest).expect("readable");
        assert_eq!(read, Some(vec![value; 100]), "{value}");
    }
}

/// A process that is killed between a write and its sync leaves bytes that the next one
/// reads, but that are not durable.
#[test]
fn what_is_replayed_is_durable_before_anybody_relies_on_it() {
    let contents = Random::new(4).incompressible(9_000);
    for seed in 0..20 {
        let (disk, index) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
        let engine = open(&disk, &index).expect("a new store");
        put_blob(&engine, b"before").expect("stored");
        // The write succeeds and the sync after it does not.
        disk.set_fault(disk.operations() + 1, Fault::IoError);
        put_blob(&engine, &contents).expect_err("not synced");
        drop(engine);
        let engine = open(&disk, &index).expect("opens");
        put_blob(&engine, &contents).expect("acknowledged");
        drop(engine);
        let disk = disk.after_crash(&mut Random::new(seed));
        for index in [&index, &TempDir::new().expect("a temporary directory")] {
            let engine = open(&disk, index).expect("opens");
            let read = read_blob(&engine, &BlobDigest::of(&contents)).expect("readable");
            assert!(read.as_ref() == Some(&contents), "seed {seed}");
        }
    }
}

/// What a power failure usually leaves: an index that is older than the packs.
#[test]
fn an_older_index_is_brought_up_to_date() {
    let (disk, index) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
    let mut acknowledged = Acknowledged::default();
    let mut older = Vec::new();
    let mut random = Random::new(9);
    for _ in 0..6 {
        let engine = open(&disk, &index).expect("opens");
        let contents = random.incompressible(400_000);
        put_blob(&engine, &contents).expect("stored");
        acknowledged.blobs.push(contents);
        engine.close().expect("closed");
        drop(engine);
        let copy = TempDir::new().expect("a temporary directory");
        copy_dir(&index.path().join("index"), &copy.path().join("index"));
        older.push(copy);
    }
    assert!(disk.names().iter().filter(|name| name.starts_with("packs/")).count() > 2);
    for (age, older) in older.iter().enumerate() {
        let engine = open(&disk, older).expect("opens");
        assert!(!engine.report().rebuilt_index);
        check(&engine, &acknowledged, &format!("index {age}"));
    }
}

/// Batches of several threads, deduplicating against each other, while a write fails.
#[test]
fn a_batch_that_relied_on_a_lost_write_fails() {
    for at in 0..12 {
        let (disk, index) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
        let engine = open(&disk, &index).expect("a new store");
        disk.set_fault(disk.operations() + at, Fault::DiskFull);
        let acknowledged = std::sync::Mutex::new(Acknowledged::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // All write the same.
                    let mut random = Random::new(10);
                    for _ in 0..8 {
                        let contents = random.incompressible(70_000);
                        if put_blob(&engine, &contents).is_ok() {
                            let mut all = acknowledged.lock().expect("no panic");
                            all.blobs.push(contents);
                        }
                    }
                });
            }
        });
        let acknowledged = acknowledged.into_inner().expect("no panic");
        // The fault may have been a sync: then it takes no more writes.
        check_there(&engine, &acknowledged, &format!("operation {at}"));
        drop(engine);
        check(&open(&disk, &index).expect("opens"), &acknowledged, &format!("{at}, again"));
    }
}

/// A batch of several segments, none of which anybody waits for but the last.
#[test]
fn a_crash_in_a_large_batch_is_no_damage() {
    let large = |engine: &Engine| {
        let mut random = Random::new(8);
        let mut batch = engine.batch()?;
        for _ in 0..40 {
            batch.put_blob(random.incompressible(900_000).into())?;
        }
        batch.commit()
    };
    for back in 0..12 {
        let (disk, index) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
        let engine = open(&disk, &index).expect("a new store");
        put_blob(&engine, b"before").expect("stored");
        disk.set_fault(disk.operations() + back, Fault::Crash);
        let result = large(&engine);
        drop(engine);
        assert_eq!(result.is_err(), disk.fault_has_come());
        let disk = disk.after_crash(&mut Random::new(back as u64));
        for index in [&index, &TempDir::new().expect("a temporary directory")] {
            let engine = open(&disk, index).expect("opens");
            assert!(engine.report().damage.is_empty(), "{:?}", engine.report());
            let read = read_blob(&engine, &BlobDigest::of(b"before")).expect("readable");
            assert!(read.is_some());
            large(&engine).expect("can be done again");
        }
    }
}

#[test]
fn a_write_that_fails_can_be_tried_again() {
    let (disk, index) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
    let engine = open(&disk, &index).expect("a new store");
    put_blob(&engine, b"before").expect("stored");
    // The next operation is the write of a segment: a full disk is no broken disk.
    disk.set_fault(disk.operations(), Fault::DiskFull);
    let contents = Random::new(4).incompressible(50_000);
    let error = put_blob(&engine, &contents).expect_err("the disk is full");
    assert!(matches!(error, granary_castore::Error::Unavailable(_)), "{error}");
    assert_eq!(read_blob(&engine, &BlobDigest::of(&contents)).expect("readable"), None);
    put_blob(&engine, &contents).expect("there is room again");
    let read = read_blob(&engine, &BlobDigest::of(&contents)).expect("readable");
    assert!(read.as_ref() == Some(&contents));
}

/// A batch whose early part was lost, before it asked for anything to be durable.
#[test]
fn a_large_batch_learns_early_and_why() {
    let (disk, index) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
    let engine = open(&disk, &index).expect("a new store");
    put_blob(&engine, b"before").expect("stored");
    disk.set_fault(disk.operations(), Fault::DiskFull);
    let mut random = Random::new(11);
    let mut batch = engine.batch().expect("open");
    let refused =
        (0..200).find_map(|_| batch.put_blob(random.incompressible(900_000).into()).err());
    let error = refused.expect("180 MB after the first write failed, it knows");
    assert!(granary_castore::Chain(&error).to_string().contains("injected"), "{error:?}");
    let error = batch.commit().expect_err("a part of it is lost");
    assert!(granary_castore::Chain(&error).to_string().contains("injected"), "{error:?}");
    put_blob(&engine, b"afterwards").expect("there is room again");
}

#[test]
fn a_record_behind_what_was_lost_is_not_written() {
    let (disk, index) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
    let engine = open(&disk, &index).expect("a new store");
    put_blob(&engine, b"before").expect("stored");
    disk.set_fault(disk.operations(), Fault::DiskFull);
    let mut random = Random::new(11);
    let mut batch = engine.batch().expect("open");
    // More than a segment: the first is written, and lost, while the others come.
    for _ in 0..30 {
        if batch.put_blob(random.incompressible(900_000).into()).is_err() {
            break;
        }
    }
    let value = Some(vec![1].into());
    let record = RecordWrite { kind: KIND, key: vec![1].into(), value };
    engine.commit_with_records(batch, vec![record]).expect_err("a part of it is lost");
    assert!(disk.fault_has_come());
    put_blob(&engine, b"afterwards").expect("there is room again");
    assert_eq!(engine.record(KIND, &[1]).expect("readable"), None);
    drop(engine);
    let engine = open(&disk, &index).expect("opens");
    assert_eq!(engine.record(KIND, &[1]).expect("readable"), None);
}

#[test]
fn a_sync_that_fails_ends_writing_until_reopened() {
    let (disk, index) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
    let engine = open(&disk, &index).expect("a new store");
    put_blob(&engine, b"before").expect("stored");
    disk.set_fault(disk.operations() + 1, Fault::IoError);
    put_blob(&engine, b"not synced").expect_err("the sync fails");
    put_blob(&engine, b"later").expect_err("the kernel may have dropped anything");
    let read = read_blob(&engine, &BlobDigest::of(b"before")).expect("readable");
    assert_eq!(read.as_deref(), Some(&b"before"[..]));
    drop(engine);
    let engine = open(&disk, &index).expect("opens");
    put_blob(&engine, b"later").expect("stored");
}

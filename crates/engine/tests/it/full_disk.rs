//! A disk that is full: writes fail and say so, reads go on, and once there is room the same
//! store takes writes again.

use std::{fs, path::Path, sync::Arc};

use granary_castore::{
    BlobDigest, Castore as _, Chain, CollectionKind, Collector as _, Error, RecordStore as _,
    Result,
};
use granary_engine::{Engine, OpenError, OpenOptions};
use granary_testkit::{CrashDisk, Random, SmallDisk};
use tempfile::TempDir;

use crate::{
    collect_crash,
    support::{KIND, read_blob, write_record},
};

/// Small packs, so that there is no space to seal one or to begin the next, too.
fn open(disk: &CrashDisk, index: &Path) -> Engine {
    let options = OpenOptions { pack_bytes: 300_000, ..OpenOptions::default() };
    Engine::open_on(Arc::new(disk.clone()), index, &options).expect("opens")
}

/// What is written under a number: contents of one chunk, and some that are divided.
fn blobs(number: u64) -> [Vec<u8>; 2] {
    let mut random = Random::new(number);
    [random.compressible(3_000), random.incompressible(150_000)]
}

fn write(engine: &Engine, number: u64) -> Result<()> {
    let mut batch = engine.batch()?;
    for blob in blobs(number) {
        batch.put_blob(blob.into())?;
    }
    batch.commit()?;
    write_record(engine, &number.to_le_bytes(), Some(b"written"))
}

/// What was acknowledged is there, and of the rest nothing or all.
fn check(engine: &Engine, acknowledged: &[u64], numbers: u64, what: &str) {
    assert!(engine.report().damage.is_empty(), "{what}: {:?}", engine.report());
    for number in 0..numbers {
        let is_acknowledged = acknowledged.contains(&number);
        let record = engine.record(KIND, &number.to_le_bytes()).expect("readable");
        assert!(record.is_some() || !is_acknowledged, "{what}: the record of {number} is lost");
        for blob in blobs(number) {
            match read_blob(engine, &BlobDigest::of(&blob)).expect("readable") {
                Some(read) => assert!(read == blob, "{what}: wrong bytes"),
                None => assert!(record.is_none() && !is_acknowledged, "{what}: {number} is lost"),
            }
        }
    }
}

fn assert_says_what_to_do(error: &Error) {
    let text = Chain(error).to_string();
    assert!(matches!(error, Error::Unavailable(_)), "{text}");
    assert!(text.contains("free some space"), "{text}");
}

/// How many operations it takes to write `numbers` without a fault, and to have opened before.
fn operations(numbers: u64) -> (usize, usize) {
    let (disk, index) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
    let engine = open(&disk, &index.path().join("index"));
    let opened = disk.operations();
    (0..numbers).for_each(|number| write(&engine, number).expect("there is space"));
    assert!(disk.names().len() > 3, "several packs: {:?}", disk.names());
    (opened, disk.operations())
}

#[test]
fn packs_that_cannot_grow_do_so_once_they_can() {
    const NUMBERS: u64 = 8;
    let (opened, operations) = operations(NUMBERS);
    for full_from in opened..operations {
        let what = format!("full from operation {full_from} on");
        let (disk, dir) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
        let index = dir.path().join("index");
        let engine = open(&disk, &index);
        disk.fill_from(full_from);
        let (mut acknowledged, mut refused) = (Vec::new(), 0);
        for number in 0..NUMBERS {
            match write(&engine, number) {
                Ok(()) => acknowledged.push(number),
                Err(error) => {
                    assert_says_what_to_do(&error);
                    refused += 1;
                }
            }
            check(&engine, &acknowledged, number + 1, &what);
        }
        assert!(refused > 0 || full_from + 2 >= operations, "{what}: nobody noticed");
        disk.free();
        for number in 0..NUMBERS {
            write(&engine, number).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        }
        let all: Vec<_> = (0..NUMBERS).collect();
        check(&engine, &all, NUMBERS, &what);
        drop(engine);
        check(&open(&disk, &index), &all, NUMBERS, &what);
        let without_index = open(&disk, &dir.path().join("another"));
        assert!(without_index.report().cut_tails.is_empty(), "{what}");
        check(&without_index, &all, NUMBERS, &what);
    }
}

/// Opening takes no space, unless there is something to be set aside.
#[test]
fn a_store_is_opened_as_far_as_there_is_space() {
    let (disk, dir) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
    let index = dir.path().join("index");
    let try_open = || Engine::open_on(Arc::new(disk.clone()), &index, &OpenOptions::default());
    let refused = |what: &str| match try_open() {
        Err(OpenError::Failed(error)) => assert_says_what_to_do(&error),
        other => panic!("{what}: {:?}", other.map(drop)),
    };
    disk.fill_from(0);
    refused("there is no space for a new store");
    disk.free();
    write(&open(&disk, &index), 1).expect("there is space");

    disk.fill_from(0);
    let engine = try_open().expect("there is nothing to write");
    check(&engine, &[1], 1, "opened on a full disk");
    assert_says_what_to_do(&write(&engine, 2).expect_err("it is full"));
    drop(engine);

    let pack = disk.names().into_iter().rfind(|name| name.starts_with("packs/"));
    let pack = pack.expect("there is one");
    disk.tamper(&pack, |bytes| bytes.extend_from_slice(&[0xee; 5_000]));
    let torn = disk.contents(&pack);
    refused("the torn end cannot be set aside");
    assert_eq!(disk.contents(&pack), torn, "it is cut off only when it is kept elsewhere");
    disk.free();
    let engine = open(&disk, &index);
    assert_eq!(engine.report().cut_tails.len(), 1);
    check(&engine, &[1], 1, "freed");
    write(&engine, 2).expect("there is space again");
}

/// A collection needs some space before it makes any: it says so, and goes on once there is.
#[test]
fn a_collection_that_has_no_space_is_made_later() {
    let mut done = false;
    let mut full_from = 0;
    while !done {
        let what = format!("full from operation {full_from} of the collection on");
        let (disk, dir) = (CrashDisk::default(), TempDir::new().expect("a temporary directory"));
        let index = dir.path().join("index");
        let engine = collect_crash::open(&disk, &index).expect("a new store");
        collect_crash::fill(&engine);
        disk.fill_from(disk.operations() + full_from);
        let result = collect_crash::collect(&engine);
        done = result.is_ok();
        if let Err(error) = result {
            assert_says_what_to_do(&error);
        }
        let has_third = collect_crash::is_whole(&engine, 3, &what);
        collect_crash::check(&engine, has_third, &what);
        disk.free();
        collect_crash::put_again(&engine, &what);
        collect_crash::collect(&engine).unwrap_or_else(|error| panic!("{what}: {error}"));
        collect_crash::check(&engine, true, &what);
        drop(engine);
        collect_crash::check(&collect_crash::open(&disk, &index).expect("opens"), true, &what);
        full_from += 1;
    }
    assert!(full_from > 10, "it writes more often than that: {full_from}");
}

/// What fills the memory of the index after some of them.
fn value(number: u32) -> Vec<u8> {
    Random::new(number.into()).incompressible(1 << 20)
}

fn write_value(engine: &Engine, number: u32) -> Result<()> {
    write_record(engine, &number.to_le_bytes(), Some(&value(number)))
}

fn check_values(engine: &Engine, count: u32) {
    for number in 0..count {
        let read = engine.record(KIND, &number.to_le_bytes()).expect("readable");
        assert!(read.as_deref() == Some(&value(number)[..]), "value {number}");
    }
    let behind = engine.record(KIND, &count.to_le_bytes()).expect("readable");
    assert!(behind.is_none(), "what was refused is not there");
}

fn bytes_of_packs(disk: &CrashDisk) -> usize {
    disk.names().iter().map(|name| disk.contents(name).map_or(0, |bytes| bytes.len())).sum()
}

fn bytes_of_tables(index: &Path) -> u64 {
    let tables = fs::read_dir(index).expect("a directory");
    tables.map(|entry| entry.and_then(|entry| entry.metadata()).map_or(0, |file| file.len())).sum()
}

/// The index keeps what it cannot write in memory, up to a limit. Then nothing may be written to
/// the packs either, for it could not be indexed.
#[test]
fn an_index_that_cannot_grow_does_so_once_it_can() {
    const SLICE_BYTES: usize = 3 << 20;
    let (packs, small) = (CrashDisk::default(), SmallDisk::new(160 << 20));
    let index = small.path().join("index");
    let engine = open(&packs, &index);
    write(&engine, 1).expect("there is space");
    let ballast = small.fill("ballast", 0);
    let mut count = 0;
    let error = loop {
        match write_value(&engine, count) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 100, "memory is bounded");
    };
    assert_says_what_to_do(&error);
    let text = Chain(&error).to_string();
    assert!(text.contains("index") && text.contains("No space left on device"), "{text}");
    assert!(count > 10, "some fit into memory: {count}");
    let (in_packs, in_tables) = (bytes_of_packs(&packs), bytes_of_tables(&index));
    for round in 0..3 {
        assert_says_what_to_do(&write_value(&engine, count).expect_err("it is still full"));
        assert_says_what_to_do(&write(&engine, 2).expect_err("it is still full"));
        let collection = engine.begin_collection(CollectionKind::Sweep).map(drop);
        assert_says_what_to_do(&collection.expect_err("it is still full"));
        check(&engine, &[1], 3, "full");
        check_values(&engine, count);
        assert_eq!(bytes_of_packs(&packs), in_packs, "nothing was written before the refusal");
        // Less than a table needs. An attempt must not keep it.
        small.free(&ballast, SLICE_BYTES);
        assert!(bytes_of_tables(&index) <= in_tables, "round {round}: half a table is left");
    }
    fs::remove_file(ballast).expect("it is there");
    for number in count..count + 20 {
        write_value(&engine, number).expect("there is space again");
    }
    write(&engine, 2).expect("there is space again");
    drop(engine.begin_collection(CollectionKind::Sweep).expect("there is space again"));
    count += 20;
    check(&engine, &[1, 2], 3, "freed");
    check_values(&engine, count);
    engine.close().expect("closed");
    drop(engine);
    for index in [&index, &small.path().join("another")] {
        let engine = open(&packs, index);
        check(&engine, &[1, 2], 3, "reopened");
        check_values(&engine, count);
    }
}

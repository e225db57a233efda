//! Indexes that are not what was written: damaged files, and whole ones whose entries say
//! something else. The packs have everything, so nothing is lost for good, and what is read
//! is right.
//!
//! The first byte says what is changed, the rest how.

use std::path::Path;

use granary_castore::{BlobDigest, BlobService, DirectoryService, RecordStore};
use granary_engine::{Engine, OpenError};
use granary_tables::Tables;
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    edit::Script,
    engine_store::{KIND, disk_with, engine_store, index_with, open, read_blob},
};

/// Files are edited, not entries.
const FILES: u8 = 1;

/// And the list of tables has their checksums.
const SEALED: u8 = 2;

/// Entries that are edited go to so many tables, some of which say that keys were removed.
const TABLES: usize = 6;

/// Opens a store whose index was changed.
///
/// # Panics
///
/// If it serves what was never put into it, or building the index anew does not bring
/// everything back.
pub fn check(data: &[u8]) {
    let store = engine_store();
    let mut script = Script::new(data);
    let what = script.u8();
    let has_damaged_files = what & (FILES | SEALED) == FILES;
    let index = match what & (FILES | SEALED) {
        FILES => edited_files(&mut script),
        0 => edited_entries(&mut script),
        _ => resealed_files(&mut script),
    };
    merge(index.path());
    let disk = disk_with(&store.files);
    match open(&disk, index.path(), false) {
        Ok(engine) if has_damaged_files => {
            let read = store.read_all(&engine);
            assert_eq!(read.absent, 0, "what is lost in the index is not lost: {read:?}");
        }
        Ok(engine) => read(&engine),
        // It may also say that some pack is in an impossible state; building it anew helps.
        Err(OpenError::Failed(_)) => {}
        Err(error) => panic!("{error}"),
    }
    let engine = open(&disk, index.path(), true).expect("the packs are as they were");
    let read = store.read_all(&engine);
    assert_eq!((read.refused, read.absent), (0, 0), "{read:?}");
}

/// Reads everything by an index that may say anything.
fn read(engine: &Engine) {
    let store = engine_store();
    for blob in &store.blobs {
        let digest = BlobDigest::of(blob);
        if engine.chunks(&digest, usize::MAX).is_ok_and(|c| c.is_some_and(|c| c.is_empty())) {
            // One chunk: that one is checked as a whole.
            if let Ok(Some(found)) = read_blob(engine, &digest) {
                assert!(found == *blob, "other bytes were served");
            }
        } else if let Ok(Some(mut reader)) = BlobService::open(engine, &digest) {
            reader.read_at(0, 1 << 20).ok();
            let middle = reader.size_bytes() / 2;
            reader.read_at(middle, 1 << 20).ok();
            if let Ok(Some(extent)) = reader.extent_at(middle, &mut std::iter::empty()) {
                extent.extent.read().ok();
            }
        }
        engine.stat(&digest).ok();
    }
    for directory in &store.directories {
        if let Ok(Some(found)) = engine.directory(&directory.digest()) {
            assert_eq!(found, *directory);
        }
    }
    for (key, _) in &store.records {
        engine.record(KIND, key).ok();
    }
    engine.scan_records(KIND, None, 100).ok();
    engine.stats().ok();
}

/// An index with a file that the script names and edits.
fn edited_files(script: &mut Script<'_>) -> TempDir {
    let mut files = engine_store().index.clone();
    let number = usize::from(script.u8()) % files.len();
    script.edit(&mut files[number].1);
    index_with(&files)
}

/// An index with tables that the script edits, and whose checksums in the list are right.
fn resealed_files(script: &mut Script<'_>) -> TempDir {
    let mut files = engine_store().index.clone();
    let is_list = |name: &Path| name == Path::new(granary_tables::LIST_FILE);
    let mut tables: Vec<_> = files.iter_mut().filter(|(name, _)| !is_list(name)).collect();
    let number = usize::from(script.u8()) % tables.len();
    script.edit(&mut tables[number].1);
    let listed = files.iter().filter(|(name, _)| !is_list(name)).flat_map(|(name, bytes)| {
        let id = name.file_stem().and_then(|id| id.to_str()?.parse::<u64>().ok());
        let id = id.expect("tables have numbers for names").to_le_bytes();
        let len = (bytes.len() as u64).to_le_bytes();
        [&id[..], &len, &xxh3_128(bytes).to_le_bytes()].concat()
    });
    let mut list: Vec<_> = b"GRLIST\0\x01".iter().copied().chain(listed).collect();
    list.extend_from_slice(&xxh3_128(&list).to_le_bytes());
    for (name, bytes) in &mut files {
        if is_list(name) {
            *bytes = std::mem::take(&mut list);
        }
    }
    index_with(&files)
}

/// Merges the tables, if they can be opened.
fn merge(dir: &Path) {
    let dir = dir.join("index");
    let copy = TempDir::new().expect("a temporary directory");
    let copy = copy.path().join("index");
    std::fs::create_dir(&copy).expect("made");
    for file in std::fs::read_dir(dir).expect("an index") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), copy.join(file.file_name())).expect("copied");
    }
    if let Ok(tables) = Tables::open(&copy) {
        tables.range(b"", b"").for_each(drop);
        tables.merge_all().ok();
    }
}

/// An index whose tables are whole, and in which some entries are others.
fn edited_entries(script: &mut Script<'_>) -> TempDir {
    let original = index_with(&engine_store().index);
    let mut entries = entries(&original.path().join("index"));
    while !script.is_empty() {
        let number = usize::from(script.u16()) % entries.len();
        let (key, value) = &mut entries[number];
        match script.u8() % 4 {
            0 => script.edit_once(key),
            1 | 2 => script.edit_once(value),
            _ => {
                entries.swap_remove(number);
            }
        }
        if entries.is_empty() {
            break;
        }
    }
    entries.sort();
    entries.dedup_by(|a, b| a.0 == b.0);
    let edited = TempDir::new().expect("a temporary directory");
    write_entries(&edited.path().join("index"), &entries);
    edited
}

type Entry = (Vec<u8>, Vec<u8>);

fn entries(dir: &Path) -> Vec<Entry> {
    let tables = Tables::open(dir).expect("an index");
    tables.range(b"", b"").collect::<Result<_, _>>().expect("whole tables")
}

fn write_entries(dir: &Path, entries: &[Entry]) {
    let tables = Tables::open(dir).expect("a new index");
    for table in 0..TABLES {
        let of_table = entries.iter().enumerate().filter_map(|(number, (key, value))| {
            // What one table has, the one before it removes.
            let is_here = number % TABLES == table;
            let is_removed = number % TABLES == table + 1;
            (is_here || is_removed).then_some((&key[..], is_here.then_some(&value[..])))
        });
        let of_table: Vec<_> = of_table.collect();
        tables.add(of_table.into_iter()).expect("tables can be written");
    }
}

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

use crate::{
    edit::Script,
    engine_store::{KIND, disk_with, engine_store, index_with, open, read_blob},
};

/// Files are edited, not entries.
const FILES: u8 = 1;

/// Opens a store whose index was changed.
///
/// # Panics
///
/// If it serves what was never put into it, or building the index anew does not bring
/// everything back.
pub fn check(data: &[u8]) {
    let store = engine_store();
    let mut script = Script::new(data);
    let has_damaged_files = script.u8() & FILES != 0;
    let index =
        if has_damaged_files { edited_files(&mut script) } else { edited_entries(&mut script) };
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
    let entries = entries.iter().map(|(key, value)| (&key[..], Some(&value[..])));
    tables.add(entries).expect("tables can be written");
}

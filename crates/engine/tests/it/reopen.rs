//! Closing and opening again, with and without an index.

use std::{fs, path::Path};

use granary_castore::{Castore, DirectoryService, RecordStore};
use granary_engine::{Engine, OpenError, OpenOptions};
use granary_testkit::Random;
use tempfile::TempDir;

use crate::support::{
    KIND, directory, open, pack_count, put_blob, put_directory, read_blob, write_record,
};

/// A store with something of everything, closed.
struct Filled {
    dir: TempDir,
    contents: Vec<Vec<u8>>,
}

impl Filled {
    fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let mut random = Random::new(1);
        let contents: Vec<_> =
            [0, 1, 1000, 20_000, 300_000, 3 << 20].map(|len| random.compressible(len)).into();
        let engine = open(dir.path()).expect("a new store");
        for contents in &contents {
            put_blob(&engine, contents).expect("stored");
        }
        put_directory(&engine, &directory("a")).expect("stored");
        write_record(&engine, b"kept", Some(b"old")).expect("stored");
        write_record(&engine, b"kept", Some(b"new")).expect("stored");
        write_record(&engine, b"gone", Some(b"x")).expect("stored");
        write_record(&engine, b"gone", None).expect("stored");
        engine.close().expect("closed");
        Self { dir, contents }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn check(&self, engine: &Engine) {
        for contents in &self.contents {
            let digest = granary_castore::BlobDigest::of(contents);
            let read = read_blob(engine, &digest).expect("readable");
            assert!(read.as_deref() == Some(contents), "a blob of {} bytes", contents.len());
        }
        let directory = directory("a");
        assert_eq!(engine.directory(&directory.digest()).expect("readable"), Some(directory));
        let kept = engine.record(KIND, b"kept").expect("readable");
        assert_eq!(kept.as_deref(), Some(&b"new"[..]));
        assert_eq!(engine.record(KIND, b"gone").expect("readable"), None);
        assert_eq!(engine.scan_records(KIND, None, 9).expect("readable").len(), 1);
        assert!(engine.report().damage.is_empty());
        assert_eq!(engine.stats().expect("counted").damaged_count, 0);
    }
}

#[test]
fn everything_is_there_and_nothing_is_replayed() {
    let filled = Filled::new();
    let engine = open(filled.path()).expect("opens");
    assert_eq!(engine.report().replayed_segments, 0);
    assert!(!engine.report().rebuilt_index);
    filled.check(&engine);
}

#[test]
fn opening_and_closing_writes_no_table() {
    let filled = Filled::new();
    let tables = || {
        let tables = fs::read_dir(filled.path().join("index")).expect("a directory");
        let mut tables: Vec<_> = tables.map(|entry| entry.expect("an entry").path()).collect();
        tables.sort();
        tables
    };
    let before = tables();
    for _ in 0..5 {
        let engine = open(filled.path()).expect("opens");
        filled.check(&engine);
        engine.close().expect("closed");
    }
    assert_eq!(tables(), before);
}

#[test]
fn a_missing_index_is_built_anew() {
    let filled = Filled::new();
    let before = open(filled.path()).expect("opens").stats().expect("counted");
    fs::remove_dir_all(filled.path().join("index")).expect("removed");
    let engine = open(filled.path()).expect("opens");
    assert!(engine.report().rebuilt_index);
    filled.check(&engine);
    assert_eq!(engine.stats().expect("counted"), before);
}

#[test]
fn a_broken_index_is_built_anew() {
    for garble in [garble_every_file as fn(&Path), cut_every_file, remove_every_file] {
        let filled = Filled::new();
        garble(&filled.path().join("index"));
        let engine = open(filled.path()).expect("opens");
        filled.check(&engine);
        put_blob(&engine, b"more").expect("still takes writes");
    }
}

fn each_file(dir: &Path, change: &dyn Fn(&Path)) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { each_file(&path, change) } else { change(&path) }
    }
}

fn garble_every_file(dir: &Path) {
    each_file(dir, &|path| {
        let mut bytes = fs::read(path).expect("readable");
        for byte in &mut bytes {
            *byte ^= 0x5a;
        }
        fs::write(path, bytes).expect("writable");
    });
}

fn cut_every_file(dir: &Path) {
    each_file(dir, &|path| {
        let bytes = fs::read(path).expect("readable");
        fs::write(path, &bytes[..bytes.len() / 2]).expect("writable");
    });
}

fn remove_every_file(dir: &Path) {
    each_file(dir, &|path| fs::remove_file(path).expect("removable"));
}

#[test]
fn rebuilding_on_demand() {
    let filled = Filled::new();
    let options = OpenOptions { rebuild_index: true, ..OpenOptions::default() };
    let engine = Engine::open(filled.path(), &options).expect("opens");
    assert!(engine.report().rebuilt_index);
    assert!(engine.report().replayed_segments > 0);
    filled.check(&engine);
}

#[test]
fn an_unsealed_pack_is_continued() {
    let dir = TempDir::new().expect("a temporary directory");
    for round in 0..20_u32 {
        if round % 5 == 4 {
            fs::remove_dir_all(dir.path().join("index")).expect("removed");
        }
        let engine = open(dir.path()).expect("opens");
        put_blob(&engine, &round.to_le_bytes()).expect("stored");
        drop(engine);
    }
    assert_eq!(pack_count(dir.path()), 1);
}

#[test]
fn full_packs_are_sealed_and_read_by_their_footer() {
    let dir = TempDir::new().expect("a temporary directory");
    let mut random = Random::new(2);
    let contents: Vec<_> = (0..5).map(|_| random.incompressible(30 << 20)).collect();
    let engine = open(dir.path()).expect("a new store");
    for contents in &contents {
        put_blob(&engine, contents).expect("stored");
    }
    drop(engine);
    assert_eq!(pack_count(dir.path()), 3);
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let engine = open(dir.path()).expect("opens");
    for contents in &contents {
        let digest = granary_castore::BlobDigest::of(contents);
        assert!(read_blob(&engine, &digest).expect("readable").as_deref() == Some(contents));
    }
    put_blob(&engine, b"more").expect("stored");
    drop(engine);
    assert_eq!(pack_count(dir.path()), 3, "the last pack was not full");
}

#[test]
fn only_one_at_a_time() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("a new store");
    let refused = open(dir.path()).map(drop);
    assert!(matches!(refused, Err(OpenError::InUse { data_dir }) if data_dir == dir.path()));
    drop(engine);
    open(dir.path()).expect("free again");
}

#[test]
fn other_versions_are_refused_clearly() {
    let filled = Filled::new();
    let store = filled.path().join("store");
    let header = fs::read(&store).expect("readable");
    let refuse = |file: &Path, change: &dyn Fn(&mut [u8]), expected: &str| {
        let good = fs::read(file).expect("readable");
        let mut bad = good.clone();
        change(&mut bad);
        fs::write(file, bad).expect("writable");
        match open(filled.path()).map(drop) {
            Err(error @ OpenError::Incompatible { .. }) => {
                assert!(error.to_string().contains(expected), "{error}");
            }
            other => panic!("{other:?}"),
        }
        fs::write(file, good).expect("writable");
    };
    refuse(&store, &|bytes| bytes[8] = 9, "format version 9");
    refuse(&store, &|bytes| bytes[30] ^= 1, "damaged");
    let pack = fs::read_dir(filled.path().join("packs")).expect("packs").next();
    let pack = pack.expect("a pack").expect("readable").path();
    refuse(&pack, &|bytes| bytes[8] = 9, "format version 9");
    fs::remove_file(&store).expect("removable");
    let without_header = open(filled.path()).map(drop);
    assert!(matches!(without_header, Err(OpenError::Incompatible { .. })));
    fs::write(&store, header).expect("writable");
    filled.check(&open(filled.path()).expect("opens"));
}

#[test]
fn a_pack_of_another_store_is_refused() {
    let (filled, other) = (Filled::new(), Filled::new());
    let pack = fs::read_dir(other.path().join("packs")).expect("packs").next();
    let pack = pack.expect("a pack").expect("readable");
    fs::copy(pack.path(), filled.path().join("packs").join(pack.file_name())).expect("copied");
    assert!(matches!(open(filled.path()).map(drop), Err(OpenError::Incompatible { .. })));
}

#[test]
fn closing_ends_writes_but_not_reads() {
    let filled = Filled::new();
    let engine = open(filled.path()).expect("opens");
    engine.close().expect("closed");
    engine.close().expect("twice is fine");
    filled.check(&engine);
    assert!(put_blob(&engine, b"too late").is_err());
}

#[test]
fn what_is_stored_is_not_stored_again() {
    let filled = Filled::new();
    let engine = open(filled.path()).expect("opens");
    let before = engine.stats().expect("counted");
    for contents in &filled.contents {
        put_blob(&engine, contents).expect("stored");
        let mut batch = engine.batch().expect("open");
        for piece in contents.chunks(777) {
            batch.write(piece).expect("written");
        }
        batch.finish_blob().expect("written");
        batch.commit().expect("stored");
    }
    assert_eq!(engine.stats().expect("counted"), before);
}

//! Files of the index that were cut, flipped or are gone. The index is derived, so nothing is lost
//! by that: opening checks all of it, and builds it anew. What is damaged while it is in use is an
//! error, never an absence, and is built anew at the next start.

use std::{
    fs,
    path::{Path, PathBuf},
};

use granary_castore::{
    BlobDigest, Castore as _, DirectoryService as _, Error, RecordKind, RecordStore as _,
    RecordWrite, Result,
};
use granary_engine::{Engine, OpenOptions};
use granary_testkit::Random;
use tempfile::TempDir;

use crate::support::{KIND, copy_dir, directory, put_blob, put_directory, read_blob, write_record};

/// As many runs leave several tables, some of them merged.
const RUNS: u8 = 7;

/// Records of another kind, enough for blocks that opening does not read.
const MANY: u32 = 3_000;
const MANY_KIND: RecordKind = RecordKind(8);

/// Flips of each file.
const FLIPS: u64 = 25;

struct Store {
    dir: TempDir,
    /// The index as the last run left it.
    index: TempDir,
    blobs: Vec<Vec<u8>>,
}

impl Store {
    fn new() -> Self {
        let [dir, index] = [(); 2].map(|()| TempDir::new().expect("a temporary directory"));
        let mut store = Self { dir, index, blobs: Vec::new() };
        let mut random = Random::new(12);
        for run in 0..RUNS {
            let engine = store.open();
            let mut batch = engine.batch().expect("open");
            for len in [10, 3_000, 400_000] {
                let blob = random.compressible(len);
                batch.put_blob(blob.clone().into()).expect("put");
                store.blobs.push(blob);
            }
            batch.commit().expect("committed");
            put_directory(&engine, &directory(&run.to_string())).expect("stored");
            write_record(&engine, &[run], Some(&[run])).expect("stored");
            write_record(&engine, b"replaced", Some(&[run])).expect("stored");
            if run == 0 {
                let write = |number: u32| RecordWrite {
                    kind: MANY_KIND,
                    key: number.to_be_bytes().to_vec().into(),
                    value: Some(number.to_le_bytes().to_vec().into()),
                };
                engine.write_records((0..MANY).map(write).collect()).expect("stored");
            }
            engine.close().expect("closed");
        }
        copy_dir(&store.index_dir(), store.index.path());
        store
    }

    fn index_dir(&self) -> PathBuf {
        self.dir.path().join("index")
    }

    fn open(&self) -> Engine {
        let options = OpenOptions { pack_bytes: 1 << 20, ..OpenOptions::default() };
        Engine::open(self.dir.path(), &options).expect("a broken index is no reason not to open")
    }

    /// Its files, relative to its directory.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.index.path()).expect("a directory");
        let mut files: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into()).collect();
        files.sort();
        files
    }

    /// How many objects and records do not come. The others are right.
    fn missed(&self, engine: &Engine) -> usize {
        let mut missed = 0;
        let mut note = |is_right: Result<bool>| match is_right {
            Ok(is_right) => assert!(is_right, "something is gone or wrong"),
            Err(Error::Corrupt(_)) => missed += 1,
            Err(other) => panic!("{other:?}"),
        };
        for blob in &self.blobs {
            note(read_blob(engine, &BlobDigest::of(blob)).map(|read| read.as_ref() == Some(blob)));
        }
        for run in 0..RUNS {
            let directory = directory(&run.to_string());
            let read = engine.directory(&directory.digest());
            note(read.map(|read| read == Some(directory)));
            let read = engine.record(KIND, &[run]);
            note(read.map(|read| read.as_deref() == Some(&[run][..])));
        }
        for number in 0..MANY {
            let read = engine.record(MANY_KIND, &number.to_be_bytes());
            note(read.map(|read| read.as_deref() == Some(&number.to_le_bytes()[..])));
        }
        let scanned = engine.scan_records(MANY_KIND, None, MANY as usize + 1);
        note(scanned.map(|records| records.len() == MANY as usize));
        let read = engine.record(KIND, b"replaced");
        note(read.map(|read| read.as_deref() == Some(&[RUNS - 1][..])));
        let scanned = engine.scan_records(KIND, None, 100);
        note(scanned.map(|records| records.len() == usize::from(RUNS) + 1));
        missed
    }

    /// The index as the last run left it.
    fn restore(&self) -> PathBuf {
        let index = self.index_dir();
        fs::remove_dir_all(&index).expect("there is one");
        copy_dir(self.index.path(), &index);
        index
    }

    /// Opens it with an index in which `damage` was done: everything is there, at once and later.
    fn survives(&self, what: &str, damage: impl FnOnce(&Path)) {
        damage(&self.restore());
        for run in ["the first run", "the next"] {
            let engine = self.open();
            assert!(engine.report().damage.is_empty(), "{what}, {run}: the packs are good");
            assert!(engine.report().cut_tails.is_empty(), "{what}, {run}: nothing was torn");
            assert_eq!(self.missed(&engine), 0, "{what}, {run}");
            put_blob(&engine, what.as_bytes()).expect("it takes writes");
            drop(engine);
        }
    }

    /// Does `damage` to the index while it is open. How many objects did not come; the next run
    /// has them all.
    fn survives_while_open(&self, what: &str, damage: impl FnOnce(&Path)) -> usize {
        let index = self.restore();
        let engine = self.open();
        damage(&index);
        let missed = self.missed(&engine);
        put_blob(&engine, what.as_bytes()).expect("it takes writes");
        drop(engine);
        let engine = self.open();
        assert_eq!(self.missed(&engine), 0, "{what}: still missed, {missed} at first");
        assert!(engine.report().rebuilt_index || missed == 0, "{what}: what is right now?");
        let written = read_blob(&engine, &BlobDigest::of(what.as_bytes())).expect("readable");
        assert!(written.is_some(), "{what}: what was written with a broken index is lost");
        missed
    }
}

/// Flips some bits of a file.
fn flip(path: &Path, random: &mut Random) {
    let mut bytes = fs::read(path).expect("readable");
    for _ in 0..=random.below(3) {
        let bit = random.below(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    // In its place: it may be open.
    let file = fs::File::options().write(true).open(path).expect("writable");
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("the disk takes it");
}

#[test]
fn cut() {
    let store = Store::new();
    for file in store.files() {
        let len = fs::metadata(store.index.path().join(&file)).expect("it is there").len();
        for kept in [0, 1, len / 4, len / 2, len.saturating_sub(40), len - 1] {
            store.survives(&format!("{} cut to {kept}", file.display()), |index| {
                let file = fs::File::options().write(true).open(index.join(&file));
                file.and_then(|file| file.set_len(kept)).expect("it can be cut");
            });
        }
    }
}

#[test]
fn flipped() {
    let store = Store::new();
    let mut random = Random::new(13);
    for file in store.files() {
        for round in 0..FLIPS {
            store.survives(&format!("{} flipped, {round}", file.display()), |index| {
                flip(&index.join(&file), &mut random);
            });
        }
    }
}

#[test]
fn flipped_while_it_is_open() {
    let store = Store::new();
    let (mut random, mut showed) = (Random::new(14), 0);
    for file in store.files().iter().filter(|file| file.extension().is_some()) {
        for round in 0..FLIPS {
            let what = format!("{} flipped while open, {round}", file.display());
            let missed = store.survives_while_open(&what, |index| {
                flip(&index.join(file), &mut random);
            });
            showed += usize::from(missed > 0);
        }
    }
    assert!(showed > 0, "no flip hit a block that was read");
}

#[test]
fn gone() {
    let store = Store::new();
    let files = store.files();
    assert!(files.len() > 2, "several tables: {files:?}");
    for (number, first) in files.iter().enumerate() {
        for second in &files[number..] {
            let what = format!("{} and {} gone", first.display(), second.display());
            store.survives(&what, |index| {
                fs::remove_file(index.join(first)).expect("it is there");
                if second != first {
                    fs::remove_file(index.join(second)).expect("it is there");
                }
            });
        }
    }
}

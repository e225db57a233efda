//! The engine against maps, with closing, losing the index and rebuilding in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use granary_castore::{BlobDigest, Castore, DirectoryService, RecordStore};
use granary_engine::{Engine, OpenOptions};
use granary_testkit::Random;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::{KIND, directory, open, put_directory, read_blob, write_record};

#[derive(Debug, Clone)]
enum Step {
    /// A batch of blobs of these (seed, length).
    Blobs(Vec<(u64, usize)>),
    /// A blob in pieces.
    Pieces(u64, usize, usize),
    /// A batch that is dropped.
    Dropped(u64, usize),
    Directory(u8),
    Record(u8, Option<u8>),
    Reopen,
    LoseIndex,
    Rebuild,
}

fn step() -> impl Strategy<Value = Step> {
    // Few seeds and lengths, so that the same contents come again.
    let len = prop_oneof![0..2_000_usize, 10_000..40_000_usize, Just(200_000), Just(700_000)];
    let blob = (0..6_u64, len);
    prop_oneof![
        3 => prop::collection::vec(blob.clone(), 1..6).prop_map(Step::Blobs),
        2 => (blob.clone(), 1..100_000_usize)
            .prop_map(|((seed, len), piece)| Step::Pieces(seed, len, piece)),
        1 => blob.prop_map(|(seed, len)| Step::Dropped(seed, len)),
        2 => (0..9_u8).prop_map(Step::Directory),
        4 => (0..9_u8, proptest::option::of(any::<u8>()))
            .prop_map(|(key, value)| Step::Record(key, value)),
        1 => Just(Step::Reopen),
        1 => Just(Step::LoseIndex),
        1 => Just(Step::Rebuild),
    ]
}

#[derive(Default)]
struct Model {
    blobs: BTreeSet<(u64, usize)>,
    directories: BTreeSet<u8>,
    records: BTreeMap<u8, u8>,
}

fn contents(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    match seed % 3 {
        0 => random.compressible(len),
        1 => random.incompressible(len),
        // The same but for the hashes.
        _ => Random::new(9).with_references(len, 5, 3_000, seed),
    }
}

fn run(engine: &Engine, model: &mut Model, step: &Step) {
    match step {
        Step::Blobs(blobs) => {
            let mut batch = engine.batch().expect("open");
            for (seed, len) in blobs {
                batch.put_blob(contents(*seed, *len).into()).expect("put");
            }
            batch.commit().expect("committed");
            model.blobs.extend(blobs);
        }
        Step::Pieces(seed, len, piece) => {
            let mut batch = engine.batch().expect("open");
            for piece in contents(*seed, *len).chunks(*piece) {
                batch.write(piece).expect("written");
            }
            batch.finish_blob().expect("finished");
            batch.commit().expect("committed");
            model.blobs.insert((*seed, *len));
        }
        Step::Dropped(seed, len) => {
            let mut batch = engine.batch().expect("open");
            batch.write(&contents(*seed, *len)).expect("written");
        }
        Step::Directory(number) => {
            put_directory(engine, &directory(&number.to_string())).expect("put");
            model.directories.insert(*number);
        }
        Step::Record(key, value) => {
            write_record(engine, &[*key], value.as_ref().map(std::slice::from_ref)).expect("put");
            match value {
                Some(value) => model.records.insert(*key, *value),
                None => model.records.remove(key),
            };
        }
        Step::Reopen | Step::LoseIndex | Step::Rebuild => {}
    }
}

fn check(engine: &Engine, model: &Model) {
    for (seed, len) in &model.blobs {
        let expected = contents(*seed, *len);
        let read = read_blob(engine, &BlobDigest::of(&expected)).expect("readable");
        assert!(read.as_ref() == Some(&expected), "blob {seed} of {len} bytes");
    }
    for number in &model.directories {
        let directory = directory(&number.to_string());
        assert_eq!(engine.directory(&directory.digest()).expect("readable"), Some(directory));
    }
    let records = engine.scan_records(KIND, None, 100).expect("readable");
    let records: Vec<_> = records.iter().map(|(key, value)| (key[0], value[0])).collect();
    let expected: Vec<_> = model.records.iter().map(|(key, value)| (*key, *value)).collect();
    assert_eq!(records, expected);
    assert!(engine.report().damage.is_empty());
    assert!(engine.report().cut_tails.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, fork: false, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_maps(steps in prop::collection::vec(step(), 1..25)) {
        let dir = TempDir::new().expect("a temporary directory");
        let mut model = Model::default();
        let mut engine = open(dir.path()).expect("a new store");
        for step in &steps {
            run(&engine, &mut model, step);
            match step {
                Step::Reopen => {
                    drop(engine);
                    engine = open(dir.path()).expect("opens");
                }
                Step::LoseIndex => {
                    drop(engine);
                    fs::remove_dir_all(dir.path().join("index")).expect("removed");
                    engine = open(dir.path()).expect("opens");
                }
                Step::Rebuild => {
                    let before = engine.stats().expect("counted");
                    drop(engine);
                    let options = OpenOptions { rebuild_index: true, ..OpenOptions::default() };
                    engine = Engine::open(dir.path(), &options).expect("opens");
                    prop_assert_eq!(engine.stats().expect("counted"), before);
                }
                _ => {}
            }
        }
        check(&engine, &model);
        drop(engine);
        check(&open(dir.path()).expect("opens"), &model);
    }
}

//! An index that knows only the beginning of what the packs have, as a crash leaves it of a store
//! with more than one memtable.

use std::{fs, path::Path};

use granary_castore::{BlobDigest, Castore as _, RecordStore as _};
use granary_engine::{Engine, OpenOptions};
use granary_testkit::Random;
use tempfile::TempDir;

use crate::support::{KIND, copy_dir, read_blob, write_record};

const ROUNDS: u8 = 14;

/// So that the packs behind the index are several, most of them sealed.
fn open(dir: &Path) -> Engine {
    let options = OpenOptions { pack_bytes: 500_000, ..OpenOptions::default() };
    Engine::open(dir, &options).expect("opens")
}

/// What one round writes: small files that share frames, a large one, and a record that is
/// replaced or deleted by later rounds.
fn write(engine: &Engine, round: u8) -> Vec<Vec<u8>> {
    let mut random = Random::new(round.into());
    let large = random.incompressible(if round.is_multiple_of(3) { 600_000 } else { 100_000 });
    let mut blobs: Vec<_> = (0..30).map(|_| random.compressible(8_000)).collect();
    blobs.push(large);
    let mut batch = engine.batch().expect("open");
    for blob in &blobs {
        batch.put_literals(b"between").expect("taken");
        batch.put_blob(blob.clone().into()).expect("put");
    }
    batch.commit().expect("committed");
    let value = [round];
    let value = (round % 5 != 4).then_some(&value[..]);
    write_record(engine, &[round % 4], value).expect("written");
    blobs
}

#[test]
fn an_index_of_any_moment_is_brought_up_to_date() {
    let (dir, saved) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let index = dir.path().join("index");
    let mut blobs = Vec::new();
    for round in 0..ROUNDS {
        let engine = open(dir.path());
        assert_eq!(engine.report().replayed_segments, 0);
        blobs.extend(write(&engine, round));
        engine.close().expect("closed");
        drop(engine);
        copy_dir(&index, &saved.path().join(round.to_string()));
    }
    let records = |engine: &Engine| {
        (0..4).map(|key| engine.record(KIND, &[key]).expect("readable")).collect::<Vec<_>>()
    };
    let engine = open(dir.path());
    let (stats, expected) = (engine.stats().expect("counted"), records(&engine));
    assert!(stats.pack_count > 4, "{stats:?}");
    drop(engine);
    for round in 0..ROUNDS {
        fs::remove_dir_all(&index).expect("it is there");
        copy_dir(&saved.path().join(round.to_string()), &index);
        let engine = open(dir.path());
        let report = engine.report();
        assert_eq!(report.replayed_segments > 0, round + 1 < ROUNDS, "{round}");
        assert!(report.damage.is_empty() && report.cut_tails.is_empty(), "{report:?}");
        assert_eq!(engine.stats().expect("counted"), stats, "{round}");
        assert_eq!(records(&engine), expected, "{round}");
        for blob in &blobs {
            let read = read_blob(&engine, &BlobDigest::of(blob)).expect("readable");
            assert!(read.as_ref() == Some(blob), "{round}");
        }
        drop(engine);
        assert_eq!(open(dir.path()).report().replayed_segments, 0, "{round}");
    }
}

//! A little of everything, and whether it is there afterwards: for tests in which something
//! fails meanwhile.

use std::{collections::BTreeMap, sync::Arc};

use granary_castore::{BlobDigest, Castore as _, RecordStore as _, RecordWrite};
use granary_engine::{Engine, OpenError, OpenOptions};
use granary_testkit::{CrashDisk, Random};
use tempfile::TempDir;

use crate::support::{KIND, directory, put_blob, put_directory, read_blob, write_record};

/// How often the work is done.
const ROUNDS: u8 = 6;

/// Key of the first record that names a blob.
const FIRST_NAME: u8 = 100;

/// What was acknowledged before the fault.
#[derive(Default)]
pub(crate) struct Acknowledged {
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) directories: Vec<String>,
    /// How many batches had a record behind them that names one of their blobs.
    pub(crate) named: u8,
    /// The last state that was acknowledged, and one that may have come after it.
    pub(crate) records: BTreeMap<u8, (RecordState, RecordState)>,
}

/// What is known of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RecordState {
    #[default]
    Absent,
    Value(u8),
}

/// Small packs, so that sealing one and beginning the next is cut too.
pub(crate) fn options() -> OpenOptions<'static> {
    OpenOptions { pack_bytes: 700_000, ..OpenOptions::default() }
}

pub(crate) fn open(disk: &CrashDisk, index: &TempDir) -> Result<Engine, OpenError> {
    Engine::open_on(Arc::new(disk.clone()), &index.path().join("index"), &options())
}

/// Writes this and that until something fails, or to the end.
pub(crate) fn work(
    engine: &Engine,
    acknowledged: &mut Acknowledged,
) -> granary_castore::Result<()> {
    let mut random = Random::new(3);
    for round in 0..ROUNDS {
        let contents = random.compressible(500 + usize::from(round) * 3000);
        put_blob(engine, &contents)?;
        acknowledged.blobs.push(contents);

        let target = format!("{round}");
        put_directory(engine, &directory(&target))?;
        acknowledged.directories.push(target);

        let key = round % 3;
        let (state, value) = if round % 4 == 3 {
            (RecordState::Absent, None)
        } else {
            (RecordState::Value(round), Some([round]))
        };
        acknowledged.records.entry(key).or_default().1 = state;
        write_record(engine, &[key], value.as_ref().map(<[u8; 1]>::as_slice))?;
        acknowledged.records.insert(key, (state, state));

        let (large, small) = (random.incompressible(300_000), random.compressible(100));
        // Of which all rounds but the first store nothing but patches.
        let patched = Random::new(4).with_references(40_000, 3, 2_000, round.into());
        let mut batch = engine.batch()?;
        batch.put_blob(large.clone().into())?;
        batch.put_blob(small.clone().into())?;
        batch.put_blob(patched.clone().into())?;
        let digest = BlobDigest::of(&large);
        engine.commit_with_records(batch, vec![name(round, &digest)])?;
        acknowledged.blobs.extend([large, small, patched]);
        acknowledged.named += 1;
    }
    Ok(())
}

/// A record that names a blob.
fn name(round: u8, digest: &BlobDigest) -> RecordWrite {
    let (key, value) = (vec![FIRST_NAME + round].into(), Some(digest.as_bytes().to_vec().into()));
    RecordWrite { kind: KIND, key, value }
}

/// All of it is there, and the store works on.
pub(crate) fn check(engine: &Engine, acknowledged: &Acknowledged, what: &str) {
    check_there(engine, acknowledged, what);
    put_blob(engine, b"afterwards").expect("takes writes again");
}

pub(crate) fn check_there(engine: &Engine, acknowledged: &Acknowledged, what: &str) {
    assert!(engine.report().damage.is_empty(), "{what}: {:?}", engine.report().damage);
    for contents in &acknowledged.blobs {
        let read = read_blob(engine, &BlobDigest::of(contents)).expect("readable");
        assert!(read.as_ref() == Some(contents), "{what}: a blob of {} bytes", contents.len());
    }
    for target in &acknowledged.directories {
        let directory = directory(target);
        let read = granary_castore::DirectoryService::directory(engine, &directory.digest());
        assert_eq!(read.expect("readable"), Some(directory), "{what}");
    }
    for round in 0..ROUNDS {
        let named = engine.record(KIND, &[FIRST_NAME + round]).expect("readable");
        assert!(named.is_some() || round >= acknowledged.named, "{what}: the name of {round}");
        if let Some(digest) = named {
            let digest = BlobDigest::from_bytes(digest[..].try_into().expect("a digest"));
            let read = read_blob(engine, &digest).expect("readable");
            assert!(read.is_some(), "{what}: {round} is named, and not there");
        }
    }
    for (key, (last, later)) in &acknowledged.records {
        let read = engine.record(KIND, &[*key]).expect("readable");
        let read = read.map_or(RecordState::Absent, |value| RecordState::Value(value[0]));
        assert!(read == *last || read == *later, "{what}: record {key} is {read:?}");
    }
}

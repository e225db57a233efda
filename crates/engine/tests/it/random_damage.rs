//! Bits that flip and files that are cut, at random places of packs and index: whatever comes of
//! it, nothing wrong is served, and what does not come is told of.

use std::{collections::BTreeMap, env, fs, ops::Range, path::PathBuf, sync::Arc};

use granary_castore::{
    BlobDigest, BlobService as _, Castore as _, Directory, DirectoryService as _, Error,
    RecordStore as _, Result,
};
use granary_engine::{Engine, OpenError, OpenOptions};
use granary_testkit::{CrashDisk, Random, SmallDisk};
use tempfile::TempDir;

use crate::support::{KIND, copy_dir, directory, put_blob, put_directory, read_blob, write_record};

/// How often something is damaged, packs and index together, unless [`ROUNDS_VARIABLE`] says
/// otherwise.
const ROUNDS: u64 = 1_000;

/// The environment variable for that; `make soak` sets it.
const ROUNDS_VARIABLE: &str = "GRANARY_DAMAGE_ROUNDS";

/// Most bits that flip at once.
const MAX_FLIPS: usize = 8;

/// Of four rounds, those that damage packs. The others damage the index.
const PACK_ROUNDS: u64 = 3;

/// What a record had before its last value. Without the segment of that, it comes back, and the
/// damage is told.
const REPLACED: u8 = 200;

/// Room for the indexes of all rounds that run at a time.
const SMALL_BYTES: usize = 256 << 20;

fn rounds() -> u64 {
    env::var(ROUNDS_VARIABLE).map_or(ROUNDS, |rounds| {
        rounds.parse().unwrap_or_else(|_| panic!("{ROUNDS_VARIABLE} is {rounds:?}, no number"))
    })
}

fn options() -> OpenOptions<'static> {
    OpenOptions { pack_bytes: 200_000, average_chunk_bytes: 4 << 10, ..OpenOptions::default() }
}

/// A small store with something of everything.
struct Store {
    disk: CrashDisk,
    index: TempDir,
    blobs: Arc<BTreeMap<BlobDigest, Vec<u8>>>,
    directories: Vec<Directory>,
    /// In memory: thousands of them are written, and syncing would be most of the work.
    small: Arc<SmallDisk>,
}

impl Store {
    fn new() -> Self {
        let small = Arc::new(SmallDisk::new(SMALL_BYTES));
        let index = TempDir::new_in(small.path()).expect("there is room");
        let (disk, blobs, directories) = Default::default();
        let mut store = Self { disk, index, blobs, directories, small };
        let mut random = Random::new(21);
        for run in 0..4_u8 {
            let engine = store.open().expect("opens");
            let mut batch = engine.batch().expect("open");
            // Small ones share frames, with literals between; of the large ones the last has so
            // many chunks that they are in lists.
            for len in [0, 1, 700, 2_000, 9_000, 40_000, 200_000] {
                batch.put_literals(b"between two files").expect("taken");
                store.put(&mut *batch, random.compressible(len));
            }
            store.put(&mut *batch, random.incompressible(300_000));
            // Patched, but for the first.
            store.put(&mut *batch, Random::new(22).with_references(60_000, 4, 900, run.into()));
            batch.commit().expect("committed");
            let directory = directory(&run.to_string());
            put_directory(&engine, &directory).expect("stored");
            store.directories.push(directory);
            write_record(&engine, &[run], Some(&[run])).expect("stored");
            write_record(&engine, &[REPLACED], Some(&[run])).expect("stored");
            engine.close().expect("closed");
        }
        let engine = store.open().expect("opens");
        let mut batch = engine.batch().expect("open");
        store.put(&mut *batch, random.compressible(5 << 20));
        batch.commit().expect("committed");
        let stats = engine.stats().expect("counted");
        assert!(stats.pack_count > 3 && stats.patched_chunk_count > 2, "{stats:?}");
        assert!(stats.chunk_count > 1_100, "enough for lists: {stats:?}");
        drop(engine);
        store
    }

    fn put(&mut self, batch: &mut dyn granary_castore::WriteBatch, contents: Vec<u8>) {
        let digest = batch.put_blob(contents.clone().into()).expect("put");
        Arc::get_mut(&mut self.blobs).expect("no copy yet").insert(digest, contents);
    }

    fn open(&self) -> Result<Engine, OpenError> {
        let index = self.index.path().join("index");
        Engine::open_on(Arc::new(self.disk.clone()), &index, &options())
    }

    /// Another one with the same bytes.
    fn copy(&self) -> Self {
        let index = TempDir::new_in(self.small.path()).expect("there is room");
        copy_dir(self.index.path(), index.path());
        let (blobs, directories) = (Arc::clone(&self.blobs), self.directories.clone());
        let (disk, small) = (self.disk.copy(), Arc::clone(&self.small));
        Self { disk, index, blobs, directories, small }
    }

    fn packs(&self) -> Vec<String> {
        let names = self.disk.names().into_iter();
        names.filter(|name| name.starts_with("packs/")).collect()
    }

    fn index_files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.index.path().join("index")).expect("a directory");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        files
    }
}

/// Flips some bits, or cuts the end off.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) -> String {
    if random.one_in(4) {
        let len = random.below(bytes.len());
        bytes.truncate(len);
        return format!("cut to {len}");
    }
    let mut flipped = Vec::new();
    for _ in 0..=random.below(MAX_FLIPS) {
        let bit = random.below(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        flipped.push(bit);
    }
    format!("bits {flipped:?} flipped")
}

/// What became of the objects of a damaged store.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    right: usize,
    /// Refused as damaged.
    refused: usize,
    absent: usize,
    /// Records that have an older value.
    older: usize,
}

impl Outcome {
    fn note(&mut self, found: Result<Option<bool>>, what: &str) {
        match found {
            Ok(Some(true)) => self.right += 1,
            Ok(Some(false)) => panic!("{what}: wrong bytes were served"),
            Ok(None) => self.absent += 1,
            Err(Error::Corrupt(_)) => self.refused += 1,
            Err(other) => panic!("{what}: {other:?}"),
        }
    }

    fn is_whole(self) -> bool {
        (self.refused, self.absent, self.older) == (0, 0, 0)
    }
}

/// Reads everything in every way there is.
fn read_all(store: &Store, engine: &Engine, what: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for (digest, contents) in &*store.blobs {
        let read = read_blob(engine, digest);
        outcome.note(read.map(|read| read.map(|read| read == *contents)), what);
        let stat = engine.stat(digest);
        let is_right = |stat: granary_castore::BlobStat| stat.size_bytes == contents.len() as u64;
        outcome.note(stat.map(|stat| stat.map(is_right)), what);
        outcome.note(chunks_are_right(engine, digest, contents), what);
        outcome.note(stored_frames_are_right(engine, digest, contents), what);
    }
    for directory in &store.directories {
        let read = engine.directory(&directory.digest());
        outcome.note(read.map(|read| read.map(|read| read == *directory)), what);
    }
    for run in 0..4_u8 {
        let read = engine.record(KIND, &[run]);
        outcome.note(read.map(|read| read.map(|value| value[..] == [run])), what);
    }
    match engine.record(KIND, &[REPLACED]) {
        Ok(Some(value)) if value[..] != [3] => {
            assert!(value.len() == 1 && value[0] < 3, "{what}: {value:?}");
            outcome.older += 1;
        }
        read => outcome.note(read.map(|read| read.map(|_| true)), what),
    }
    outcome
}

fn chunks_are_right(engine: &Engine, digest: &BlobDigest, contents: &[u8]) -> Result<Option<bool>> {
    let Some(chunks) = engine.chunks(digest, usize::MAX)? else { return Ok(None) };
    let mut start = 0;
    let mut is_right = true;
    for chunk in &chunks {
        let end = start + usize::try_from(chunk.size_bytes).expect("small");
        let bytes = contents.get(start..end);
        is_right &=
            bytes.is_some_and(|bytes| blake3::hash(bytes).as_bytes() == chunk.digest.as_bytes());
        start = end;
    }
    Ok(Some(is_right && (chunks.is_empty() || start == contents.len())))
}

/// What is sent to clients as it is stored.
fn stored_frames_are_right(
    engine: &Engine,
    digest: &BlobDigest,
    contents: &[u8],
) -> Result<Option<bool>> {
    let Some(mut reader) = engine.open(digest)? else { return Ok(None) };
    let mut offset = 0;
    while let Some(at) = reader.extent_at(offset, &mut std::iter::empty())? {
        let start = usize::try_from(at.start).expect("small");
        let end = start + usize::try_from(at.extent.size_bytes()).expect("small");
        if at.extent.read_now().is_some_and(|bytes| contents.get(start..end) != Some(&bytes[..])) {
            return Ok(Some(false));
        }
        for frame in [at.extent.read_zstd_now(), at.extent.read_zstd()?].into_iter().flatten() {
            let bytes = zstd::decode_all(&frame[..]).expect("it is sent as valid zstd");
            if contents.get(start..end) != Some(&bytes[..]) {
                return Ok(Some(false));
            }
        }
        offset = end as u64;
    }
    Ok(Some(true))
}

/// Opens a store in which something was damaged, and reads everything. What was lost, and
/// whether anybody was told.
fn outcome(store: &Store, what: &str) -> Option<Outcome> {
    let engine = match store.open() {
        Ok(engine) => engine,
        // The number of the version was hit: nothing at all is served.
        Err(OpenError::Incompatible { .. }) => return None,
        Err(error) => panic!("{what}: {error:?}"),
    };
    let outcome = read_all(store, &engine, what);
    let report = engine.report();
    let is_told = !report.damage.is_empty() || !report.cut_tails.is_empty();
    assert!(outcome.absent + outcome.older == 0 || is_told, "{what}: nobody knows of {outcome:?}");
    put_blob(&engine, b"afterwards").expect("it takes writes");
    assert!(read_blob(&engine, &BlobDigest::of(b"afterwards")).expect("readable").is_some());
    Some(outcome)
}

/// Damages packs in rounds, with an index or without, and counts how often something was lost.
fn damage_packs(good: &Store, rounds: Range<u64>) -> usize {
    let mut lost = 0;
    for round in rounds {
        let mut random = Random::new(round);
        let store = good.copy();
        let packs = store.packs();
        let mut what = format!("round {round}:");
        for _ in 0..=random.below(2) {
            let pack = &packs[random.below(packs.len())];
            store.disk.tamper(pack, |bytes| {
                if !bytes.is_empty() {
                    what = format!("{what} {pack} {}", damage(bytes, &mut random));
                }
            });
        }
        if random.one_in(3) {
            what += ", without an index";
            fs::remove_dir_all(store.index.path().join("index")).expect("there is one");
        }
        lost += usize::from(outcome(&store, &what).is_none_or(|outcome| !outcome.is_whole()));
    }
    lost
}

/// Damages the index in rounds. Nothing is lost by that; how often something did not come at
/// first.
fn damage_index(good: &Store, rounds: Range<u64>) -> usize {
    let mut late = 0;
    for round in rounds {
        let mut random = Random::new(round);
        let store = good.copy();
        let files = store.index_files();
        let file = &files[random.below(files.len())];
        let mut bytes = fs::read(file).expect("readable");
        let how = damage(&mut bytes, &mut random);
        fs::write(file, bytes).expect("writable");
        let what = format!("round {round}: {} {how}", file.display());
        let first = outcome(&store, &what).expect("the index has no version that matters");
        assert_eq!((first.absent, first.older), (0, 0), "{what}: it is in the packs");
        late += usize::from(first.refused > 0);
        let again = outcome(&store, &what).expect("the index has no version that matters");
        assert!(again.is_whole(), "{what}: not built anew: {again:?}");
    }
    late
}

/// Runs rounds on all cores, and sums up what they return.
fn on_all_cores(rounds: u64, run: impl Fn(Range<u64>) -> usize + Sync) -> usize {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| rounds * part / threads..rounds * (part + 1) / threads)
            .map(|part| scope.spawn(|| run(part)))
            .collect();
        parts.into_iter().map(|part| part.join().expect("the rounds go well")).sum()
    })
}

#[test]
fn of_packs_is_never_served() {
    let (store, rounds) = (Store::new(), rounds() * PACK_ROUNDS / 4);
    assert!(read_all(&store, &store.copy().open().expect("opens"), "undamaged").is_whole());
    let lost = on_all_cores(rounds, |rounds| damage_packs(&store, rounds));
    println!("{rounds} rounds, something was lost in {lost}");
    assert!(lost as u64 > rounds / 2, "most damage hits something: {lost} of {rounds}");
}

#[test]
fn of_the_index_loses_nothing() {
    let store = Store::new();
    let rounds = rounds() - rounds() * PACK_ROUNDS / 4;
    let late = on_all_cores(rounds, |rounds| damage_index(&store, rounds));
    println!("{rounds} rounds, something did not come at first in {late}");
}

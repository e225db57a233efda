//! Verification finds each kind of damage, and nothing where there is none.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use granary_castore::{
    BlobDigest, Castore as _, CollectionKind, Collector as _, Error, ObjectName, ObjectType,
    RecordStore as _, Root, Severity, SweepOptions,
};
use granary_engine::{
    Disk as _, Effect, Engine, OpenOptions, Progress, VerifyFinding, VerifyObserver, VerifyOptions,
    VerifyReport,
};
use granary_testkit::{CrashDisk, Random};
use tempfile::TempDir;

use crate::support::{directory, put_blob, put_directory, read_blob, write_record};

/// Both levels.
const STRUCTURE: VerifyOptions =
    VerifyOptions { data: false, threads: std::num::NonZero::<usize>::MIN };
const DATA: VerifyOptions = VerifyOptions { data: true, ..STRUCTURE };

/// Where the first segment of a pack begins, and its first frame.
const SEGMENT_AT: usize = 64;
const FRAME_AT: usize = SEGMENT_AT + 64;

struct Fixture {
    disk: CrashDisk,
    index: TempDir,
    engine: Option<Engine>,
    /// In the order in which they were stored.
    contents: Vec<Vec<u8>>,
}

impl Fixture {
    /// Blobs of one chunk, of several, of patched ones; directories and records; in two packs.
    fn new() -> Self {
        let mut this = Self {
            disk: CrashDisk::default(),
            index: TempDir::new().expect("a temporary directory"),
            engine: None,
            contents: Vec::new(),
        };
        let mut random = Random::new(5);
        this.contents.push(random.incompressible(3_000));
        this.contents.push(random.incompressible(900_000));
        let text = random.compressible(300_000);
        for hash in ["0123456789abcdfghijklmnpqrsvwxyz", "zyxwvsrqpnmlkjihgfdcba9876543210"] {
            let mut text = text.clone();
            for at in (0..text.len()).step_by(50_000) {
                let reference = format!("/nix/store/{hash}-x");
                text[at..at + reference.len()].copy_from_slice(reference.as_bytes());
            }
            this.contents.push(text);
        }
        this.contents.push(random.incompressible(5_000));
        let contents = this.contents.clone();
        let engine = this.open(false);
        for contents in &contents {
            put_blob(engine, contents).expect("stored");
        }
        put_directory(engine, &directory("somewhere")).expect("stored");
        write_record(engine, b"key", Some(b"value")).expect("stored");
        write_record(engine, b"key", Some(b"newer")).expect("stored");
        write_record(engine, b"other", None).expect("stored");
        let stats = engine.stats().expect("counted");
        assert!(stats.patched_chunk_count > 0 && stats.divided_blob_count > 1, "{stats:?}");
        assert!(stats.pack_count > 1, "{stats:?}");
        this
    }

    fn open(&mut self, rebuild_index: bool) -> &Engine {
        // First the one before.
        self.engine = None;
        let options = OpenOptions { rebuild_index, pack_bytes: 700_000, ..OpenOptions::default() };
        let engine = Engine::open_on(
            Arc::new(self.disk.clone()),
            &self.index.path().join("index"),
            &options,
        );
        self.engine.insert(engine.expect("damage is no reason not to open"))
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("it is open")
    }

    fn verify(&self, options: &VerifyOptions) -> VerifyReport {
        self.engine().verify(options, &()).expect("the store answers")
    }

    /// The packs, that with the first blob before the others.
    fn packs(&self) -> Vec<String> {
        let needle = &self.contents[0][100..200];
        let mut packs: Vec<_> =
            self.disk.names().into_iter().filter(|name| name.starts_with("packs/")).collect();
        packs.sort_by_key(|name| {
            let contents = self.disk.contents(name).expect("it is there");
            !contents.windows(needle.len()).any(|window| window == needle)
        });
        packs
    }

    fn flip(&self, pack: &str, at: usize) {
        self.disk.tamper(pack, |bytes| bytes[at] ^= 4);
    }

    /// Each blob comes back right or is refused; how many are refused.
    fn refused(&self) -> usize {
        let refused = self.contents.iter().filter(|contents| {
            match read_blob(self.engine(), &BlobDigest::of(contents)) {
                Ok(Some(read)) => {
                    assert!(read == **contents, "wrong bytes were served");
                    false
                }
                Ok(None) | Err(Error::Corrupt(_)) => true,
                Err(other) => panic!("{other}"),
            }
        });
        refused.count()
    }
}

fn errors(report: &VerifyReport) -> Vec<&VerifyFinding> {
    let errors: Vec<_> =
        report.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert_eq!(errors.len() as u64, report.error_count);
    errors
}

fn assert_clean(report: &VerifyReport) {
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert!(report.unreadable.is_empty() && report.unreadable_blobs.is_empty());
}

#[test]
fn a_whole_store_is_clean() {
    let mut fixture = Fixture::new();
    for rebuild_index in [false, true] {
        fixture.open(rebuild_index);
        let structure = fixture.verify(&STRUCTURE);
        assert_clean(&structure);
        let data = fixture.verify(&DATA);
        assert_clean(&data);
        assert_eq!(data.pack_count, fixture.packs().len() as u64);
        assert_eq!(data.object_count, structure.object_count);
        assert!(data.checked_bytes > 900_000, "{data:?}");
        assert!(structure.checked_bytes < 100_000, "{structure:?}");
    }
}

#[test]
fn what_is_not_closed_yet_is_clean_too() {
    let fixture = Fixture::new();
    assert_clean(&fixture.verify(&DATA));
    assert_clean(&fixture.verify(&STRUCTURE));
}

#[test]
fn a_flipped_bit_in_a_frame() {
    let fixture = Fixture::new();
    let pack = &fixture.packs()[0];
    fixture.flip(pack, FRAME_AT + 24 + 1_000);
    assert_clean(&fixture.verify(&STRUCTURE));
    let report = fixture.verify(&DATA);
    let digest = BlobDigest::of(&fixture.contents[0]);
    let name = ObjectName { kind: ObjectType::Chunk, digest: *digest.as_bytes() };
    let [finding] = errors(&report)[..] else { panic!("{report:#?}") };
    assert_eq!((finding.offset, &finding.objects[..]), (FRAME_AT as u64, &[name][..]));
    assert_eq!(finding.effect, Effect::Unreadable);
    assert!(pack.contains(&finding.pack.expect("in a pack").to_string()));
    assert!(report.unreadable_blobs.contains_key(&digest), "{report:#?}");
    assert_eq!(fixture.engine().stats().expect("counted").damaged_count, 1);
    assert_eq!(fixture.refused(), 1);
    // However often it is read and verified, it is one object.
    fixture.verify(&DATA);
    assert_eq!(fixture.engine().stats().expect("counted").damaged_count, 1);
}

#[test]
fn blobs_are_named_that_lack_a_chunk() {
    let fixture = Fixture::new();
    let pack = fixture.packs()[0].clone();
    let needle = &fixture.contents[1][400_000..400_050];
    let at = |bytes: &[u8]| bytes.windows(50).position(|window| window == needle);
    let contents = fixture.disk.contents(&pack).expect("it is there");
    fixture.flip(&pack, at(&contents).expect("it is stored as it is"));
    let report = fixture.verify(&DATA);
    let divided = BlobDigest::of(&fixture.contents[1]);
    assert!(report.unreadable_blobs.contains_key(&divided), "{report:#?}");
    assert!(!report.unreadable.is_empty());
    assert_eq!(fixture.refused(), 1);
}

#[test]
fn every_flipped_bit_is_found() {
    let mut fixture = Fixture::new();
    let mut random = Random::new(8);
    for round in 0..40 {
        let packs = fixture.packs();
        let pack = &packs[round % packs.len()];
        let good = fixture.disk.contents(pack).expect("it is there");
        let at = random.below(good.len());
        fixture.open(false);
        fixture.flip(pack, at);
        let report = fixture.verify(&DATA);
        // But for the reserved bytes of a footer, which say nothing.
        assert!(!report.findings.is_empty(), "byte {at} of {}", good.len());
        let refused = fixture.refused();
        assert!(refused == 0 || report.error_count > 0, "byte {at}: {report:#?}");
        let unreadable =
            |contents: &&Vec<u8>| report.unreadable_blobs.contains_key(&BlobDigest::of(contents));
        assert_eq!(fixture.contents.iter().filter(unreadable).count(), refused, "byte {at}");
        fixture.disk.tamper(pack, |bytes| bytes.clone_from(&good));
    }
}

#[test]
fn a_flipped_bit_in_a_record() {
    let fixture = Fixture::new();
    let pack = &fixture.packs()[0];
    // Behind the frame of the first blob, which has 3000 bytes and does not compress.
    fixture.flip(pack, FRAME_AT + 24 + 3_000 + 20);
    for options in [STRUCTURE, DATA] {
        let report = fixture.verify(&options);
        let problems: Vec<_> = errors(&report).iter().map(|finding| finding.effect).collect();
        assert_eq!(problems, [Effect::None, Effect::Unrecorded], "{report:#?}");
        assert_eq!(report.findings[0].offset, SEGMENT_AT as u64);
        assert!(report.unreadable_blobs.is_empty());
    }
    assert_eq!(fixture.refused(), 0);
}

#[test]
fn a_pack_that_is_missing() {
    let mut fixture = Fixture::new();
    let pack = fixture.packs()[0].clone();
    fixture.disk.remove(&pack).expect("it is there");
    fixture.open(false);
    for options in [STRUCTURE, DATA] {
        let report = fixture.verify(&options);
        let errors = errors(&report);
        assert_eq!(errors[0].problem, "the pack is missing");
        assert!(errors.iter().any(|finding| finding.effect == Effect::Unreadable), "{report:#?}");
        let first = BlobDigest::of(&fixture.contents[0]);
        assert!(report.unreadable_blobs.contains_key(&first), "{report:#?}");
        let refused = fixture.refused();
        assert!(report.unreadable_blobs.len() >= refused, "{report:#?}");
    }
}

#[test]
fn a_pack_that_is_cut() {
    let mut fixture = Fixture::new();
    let packs = fixture.packs();
    for pack in &packs {
        let good = fixture.disk.contents(pack).expect("it is there");
        fixture.disk.tamper(pack, |bytes| bytes.truncate(2_000));
        fixture.open(false);
        for options in [STRUCTURE, DATA] {
            let report = fixture.verify(&options);
            assert!(!errors(&report).is_empty());
            let unreadable = |contents: &&Vec<u8>| {
                report.unreadable_blobs.contains_key(&BlobDigest::of(contents))
            };
            let told = fixture.contents.iter().filter(unreadable).count();
            assert_eq!(told, fixture.refused(), "{report:#?}");
        }
        fixture.disk.tamper(pack, |bytes| bytes.clone_from(&good));
    }
}

#[test]
fn a_footer_is_no_more_than_a_warning() {
    let mut fixture = Fixture::new();
    let pack = fixture.packs()[0].clone();
    let len = fixture.disk.contents(&pack).expect("it is there").len();
    fixture.flip(&pack, len - 20);
    fixture.open(false);
    let report = fixture.verify(&STRUCTURE);
    assert!(report.findings.iter().any(|f| f.severity == Severity::Warning), "{report:#?}");
    assert_eq!(fixture.refused(), 0);
}

#[test]
fn a_damaged_index_is_found_or_built_anew() {
    let mut fixture = Fixture::new();
    let mut batch = fixture.engine().batch().expect("it takes writes");
    for number in 0..3_000_u32 {
        batch.put_blob(number.to_le_bytes().to_vec().into()).expect("taken");
    }
    batch.commit().expect("stored");
    fixture.engine = None;
    let (mut found, mut rebuilt) = (0, 0);
    for table in tables_of(&fixture) {
        let len = std::fs::metadata(&table).expect("it is there").len();
        for at in (0..len).step_by(9_000) {
            let Ok(mut bytes) = std::fs::read(&table) else { break };
            let Some(byte) = bytes.get_mut(usize::try_from(at).expect("small")) else { break };
            *byte ^= 1;
            std::fs::write(&table, &bytes).expect("written");
            rebuilt += usize::from(fixture.open(false).report().rebuilt_index);
            assert_clean(&fixture.verify(&STRUCTURE));
            // It may be damaged while it is in use as well: once it is in tables.
            fixture.engine = None;
            fixture.open(false);
            for table in tables_of(&fixture) {
                let mut bytes = std::fs::read(&table).expect("it is there");
                let len = u64::try_from(bytes.len()).expect("small");
                bytes[usize::try_from(at % len).expect("small")] ^= 1;
                std::fs::write(&table, &bytes).expect("written");
            }
            found += usize::from(fixture.verify(&STRUCTURE).error_count > 0);
            fixture.engine = None;
            // In any case it can be built anew.
            fixture.open(true);
            assert_clean(&fixture.verify(&STRUCTURE));
            fixture.engine = None;
        }
    }
    assert!(found > 0 && rebuilt > 0, "found {found} times, and built anew {rebuilt} times");
}

fn tables_of(fixture: &Fixture) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(fixture.index.path().join("index")).expect("there is an index");
    let files = files.map(|file| file.expect("a file").path());
    files.filter(|path| path.extension().is_some_and(|end| end == "table")).collect()
}

/// Notes what it is told.
#[derive(Default)]
struct Noting {
    progress: Mutex<Vec<Progress>>,
    stop: AtomicBool,
}

impl VerifyObserver for Noting {
    fn progress(&self, progress: Progress) -> ControlFlow<()> {
        self.progress.lock().expect("no panic").push(progress);
        if self.stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

#[test]
fn progress_goes_up_to_the_end_and_can_stop_it() {
    let fixture = Fixture::new();
    for options in [STRUCTURE, DATA] {
        let observer = Noting::default();
        fixture.engine().verify(&options, &observer).expect("it runs");
        let told = observer.progress.into_inner().expect("no panic");
        assert!(told.is_sorted_by_key(|progress| progress.done_bytes));
        let Progress { done_bytes, total_bytes } = told[told.len() - 1];
        assert!(done_bytes <= total_bytes && total_bytes - done_bytes < 5_000, "{told:?}");
    }
    let observer = Noting { stop: true.into(), ..Noting::default() };
    let error = fixture.engine().verify(&DATA, &observer).expect_err("it was stopped");
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    assert_eq!(observer.progress.into_inner().expect("no panic").len(), 1);
}

#[test]
fn one_pack_at_a_time() {
    let fixture = Fixture::new();
    let ids = fixture.engine().pack_ids().expect("known");
    assert_eq!(ids.len(), fixture.packs().len());
    let bad = fixture.packs()[0].clone();
    fixture.flip(&bad, FRAME_AT + 24 + 1_000);
    for id in ids {
        let report = fixture.engine().verify_pack(id, &()).expect("it runs").expect("a pack");
        assert_eq!(report.error_count > 0, bad.contains(&id.to_string()), "{report:#?}");
    }
    assert_eq!(fixture.engine().stats().expect("counted").damaged_count, 1);
}

#[test]
fn writing_goes_on_meanwhile() {
    let fixture = Fixture::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(17);
            while !stop.load(Ordering::Relaxed) {
                put_blob(fixture.engine(), &random.incompressible(200_000)).expect("stored");
                write_record(fixture.engine(), b"key", Some(b"again")).expect("stored");
            }
        });
        for round in 0..10 {
            assert_clean(&fixture.verify(if round % 2 == 0 { &DATA } else { &STRUCTURE }));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Every flipped bit in a frame is repaired by storing the same again, and leaves no error.
#[test]
fn what_is_given_up_can_be_stored_again() {
    let mut fixture = Fixture::new();
    let mut random = Random::new(21);
    let mut given_up_in_all = 0;
    for round in 0..12 {
        let packs = fixture.packs();
        let pack = &packs[round % packs.len()];
        let len = fixture.disk.contents(pack).expect("it is there").len();
        fixture.open(false);
        fixture.flip(pack, 64 + random.below(len - 64));
        let report = fixture.verify(&DATA);
        if report.unreadable.is_empty() {
            // It hit a record or a footer, and is not for this to repair.
            fixture = Fixture::new();
            continue;
        }
        let names: Vec<_> = report.unreadable.iter().copied().collect();
        let refused = fixture.refused();
        let given_up = fixture.engine().quarantine(&names).expect("durable");
        assert!(given_up >= names.len() as u64);
        given_up_in_all += given_up;
        assert_eq!(fixture.engine().stats().expect("counted").damaged_count, 0);
        // It stays so, whatever becomes of the index.
        for rebuild_index in [false, true] {
            fixture.open(rebuild_index);
            let report = fixture.verify(&DATA);
            assert_eq!(report.error_count, 0, "{report:#?}");
            for contents in &fixture.contents {
                let digest = BlobDigest::of(contents);
                let read = read_blob(fixture.engine(), &digest).expect("there, or not stored");
                assert!(read.is_none_or(|read| read == *contents));
            }
            assert_eq!(fixture.refused(), refused);
        }
        for contents in &fixture.contents {
            put_blob(fixture.engine(), contents).expect("stored");
        }
        put_directory(fixture.engine(), &directory("somewhere")).expect("stored");
        assert_eq!(fixture.refused(), 0);
        for rebuild_index in [false, true] {
            fixture.open(rebuild_index);
            let report = fixture.verify(&DATA);
            assert_eq!(report.error_count, 0, "{report:#?}");
            assert_eq!(fixture.refused(), 0);
        }
    }
    assert!(given_up_in_all > 10, "{given_up_in_all}");
}

#[test]
fn what_can_be_read_is_not_given_up() {
    let fixture = Fixture::new();
    let names: Vec<_> = fixture
        .contents
        .iter()
        .flat_map(|contents| {
            let digest = *BlobDigest::of(contents).as_bytes();
            ObjectType::ALL.map(|kind| ObjectName { kind, digest })
        })
        .collect();
    assert_eq!(fixture.engine().quarantine(&names).expect("nothing to do"), 0);
    assert_eq!(fixture.refused(), 0);
}

/// The records that a store has, and the blobs that can be read.
fn holdings(fixture: &Fixture) -> (Option<Vec<u8>>, usize) {
    let value = fixture.engine().record(crate::support::KIND, b"key").expect("it answers");
    (value.map(|value| value.to_vec()), fixture.contents.len() - fixture.refused())
}

/// Whatever happens to a pack but to its frames, all that the index knows moves out of it, and
/// nothing is lost with the index any more.
#[test]
fn what_is_left_moves_out_of_a_broken_pack() {
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let header = |bytes: &mut Vec<u8>| bytes[20] ^= 1;
    let records = |bytes: &mut Vec<u8>| {
        // All segment headers: the records behind them are told by nobody.
        for at in 0..bytes.len() - 8 {
            if bytes[at..].starts_with(b"GRANSEGM") {
                bytes[at + 30] ^= 1;
            }
        }
    };
    for (number, damage) in [cut, header, records].into_iter().enumerate() {
        for at in 0..2 {
            let mut fixture = Fixture::new();
            let pack = fixture.packs()[at].clone();
            fixture.open(false);
            fixture.disk.tamper(&pack, damage);
            fixture.open(false);
            check_evacuation(&mut fixture, &pack, &format!("damage {number} of pack {at}"));
        }
    }
    for at in 0..2 {
        let mut fixture = Fixture::new();
        let pack = fixture.packs()[at].clone();
        fixture.disk.remove(&pack).expect("it is there");
        fixture.open(false);
        check_evacuation(&mut fixture, &pack, &format!("missing pack {at}"));
    }
}

fn check_evacuation(fixture: &mut Fixture, pack: &str, what: &str) {
    let report = fixture.verify(&DATA);
    assert!(report.error_count > 0, "{what}");
    let names: Vec<_> = report.unreadable.iter().copied().collect();
    fixture.engine().quarantine(&names).expect("durable");
    let before = holdings(fixture);
    assert_eq!(before.0.as_deref(), Some(&b"newer"[..]), "{what}");
    for id in fixture.engine().pack_ids().expect("known") {
        let evacuated = fixture.engine().evacuate(id).expect("durable");
        assert_eq!(evacuated, pack.contains(&id.to_string()), "{what}");
    }
    for rebuild_index in [false, true] {
        let report = fixture.verify(&DATA);
        assert_eq!(report.error_count, 0, "{what}: {report:#?}");
        assert_eq!(holdings(fixture), before, "{what}");
        fixture.open(rebuild_index);
        assert!(fixture.engine().report().damage.is_empty(), "{what}");
    }
    for contents in &fixture.contents {
        put_blob(fixture.engine(), contents).expect("stored");
    }
    put_directory(fixture.engine(), &directory("somewhere")).expect("stored");
    assert_eq!(fixture.refused(), 0, "{what}");
}

#[test]
fn a_sound_pack_stays() {
    let fixture = Fixture::new();
    for id in fixture.engine().pack_ids().expect("known") {
        assert!(!fixture.engine().evacuate(id).expect("it is looked at"));
    }
    // Nor does one of which only a frame is damaged.
    fixture.flip(&fixture.packs()[0], FRAME_AT + 24 + 1_000);
    for id in fixture.engine().pack_ids().expect("known") {
        assert!(!fixture.engine().evacuate(id).expect("it is looked at"));
    }
}

#[test]
fn what_is_in_memory_hides_no_damage() {
    let fixture = Fixture::new();
    // Small, and beside others: what is read stays in memory.
    let mut batch = fixture.engine().batch().expect("it takes writes");
    let mut random = Random::new(77);
    let small: Vec<_> = (0..20).map(|_| random.incompressible(2_000)).collect();
    for contents in &small {
        batch.put_blob(contents.clone().into()).expect("taken");
    }
    batch.commit().expect("stored");
    let digest = BlobDigest::of(&small[7]);
    let read = || read_blob(fixture.engine(), &digest);
    assert_eq!(read().expect("whole").as_ref(), Some(&small[7]));
    let needle = &small[7][500..550];
    let pack = fixture.packs().into_iter().find_map(|pack| {
        let bytes = fixture.disk.contents(&pack).expect("it is there");
        Some((bytes.windows(50).position(|window| window == needle)?, pack))
    });
    let (at, pack) = pack.expect("it is stored as it is");
    fixture.flip(&pack, at);
    let names: Vec<_> = fixture.verify(&DATA).unreadable.into_iter().collect();
    assert_eq!(names.len(), 20, "all of the frame");
    assert_eq!(fixture.engine().stats().expect("counted").damaged_count, 20);
    assert_eq!(fixture.engine().quarantine(&names).expect("durable"), 20);
    assert_eq!(read().expect("it counts as not stored"), None);
}

/// Packs come and go under it, and nothing of that is damage.
#[test]
fn collections_go_on_meanwhile() {
    let dir = TempDir::new().expect("a temporary directory");
    let options = OpenOptions { pack_bytes: 200_000, ..OpenOptions::default() };
    let engine = Engine::open(dir.path(), &options).expect("a new store");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut round, mut kept) = (0_u64, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                let mut random = Random::new(round);
                for number in 0..4_u64 {
                    let contents = match number {
                        0 => random.with_references(60_000, 9, 4_000, round),
                        1 => Random::new(3).with_references(90_000, 9, 4_000, round),
                        _ => random.compressible(90_000),
                    };
                    kept.push(put_blob(&engine, &contents).expect("stored"));
                }
                write_record(&engine, &round.to_le_bytes()[..1], Some(b"x")).expect("stored");
                // About half of what is there.
                kept.retain(|digest| {
                    !(digest.as_bytes()[0] ^ round.to_le_bytes()[0]).is_multiple_of(3)
                });
                let mut collection =
                    engine.begin_collection(CollectionKind::Sweep).expect("none is under way");
                for digest in &kept {
                    collection.keep(&Root::Blob(*digest)).expect("readable");
                }
                let sweep =
                    SweepOptions { max_unused_permille: 10, bytes_per_s: None, observer: &() };
                collection.sweep(&sweep).expect("swept");
            }
        });
        for round in 0..20 {
            let options = if round % 2 == 0 { &DATA } else { &STRUCTURE };
            let report = engine.verify(options, &()).expect("the store answers");
            let errors = errors(&report);
            if !errors.is_empty() {
                stop.store(true, Ordering::Relaxed);
                panic!("{errors:#?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

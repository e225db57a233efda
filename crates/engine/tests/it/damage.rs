//! Bytes that are not what they were.

use std::{fs, sync::Arc};

use granary_castore::{BlobDigest, Error, Root};
use granary_engine::{Engine, OpenOptions};
use granary_testkit::{CrashDisk, Random};
use tempfile::TempDir;

use crate::support::{open, put_blob, read_blob};

struct Damaged {
    disk: CrashDisk,
    index: TempDir,
    contents: Vec<Vec<u8>>,
    pack: String,
}

impl Damaged {
    fn new() -> Self {
        let disk = CrashDisk::default();
        let index = TempDir::new().expect("a temporary directory");
        let this = Self { disk, index, contents: Vec::new(), pack: String::new() };
        let engine = this.open(false);
        let mut random = Random::new(5);
        let contents: Vec<_> = (0..8).map(|_| random.incompressible(3000)).collect();
        for contents in &contents {
            put_blob(&engine, contents).expect("stored");
        }
        drop(engine);
        let pack = this.disk.names().into_iter().find(|name| name.starts_with("packs/"));
        Self { contents, pack: pack.expect("a pack"), ..this }
    }

    fn open(&self, rebuild_index: bool) -> Engine {
        let options = OpenOptions { rebuild_index, ..OpenOptions::default() };
        Engine::open_on(Arc::new(self.disk.clone()), &self.index.path().join("index"), &options)
            .expect("damage is no reason not to open")
    }

    fn len(&self) -> usize {
        self.disk.contents(&self.pack).expect("the pack").len()
    }

    /// How many blobs are right, refused as damaged, absent. Wrong ones end the test.
    fn read_all(&self, engine: &Engine) -> (usize, usize, usize) {
        let (mut right, mut damaged, mut absent) = (0, 0, 0);
        for contents in &self.contents {
            match read_blob(engine, &BlobDigest::of(contents)) {
                Ok(Some(read)) => {
                    assert!(read == *contents, "wrong bytes were served");
                    right += 1;
                }
                Ok(None) => absent += 1,
                Err(Error::Corrupt(_)) => damaged += 1,
                Err(other) => panic!("{other}"),
            }
        }
        (right, damaged, absent)
    }
}

#[test]
fn flipped_bits_are_never_served() {
    let store = Damaged::new();
    let good = store.disk.contents(&store.pack).expect("the pack");
    let mut random = Random::new(6);
    let mut found = 0;
    for _ in 0..60 {
        // Behind the header of the pack: that one is not needed for reading.
        let bit = (64 + random.below(good.len() - 64)) * 8 + random.below(8);
        store.disk.tamper(&store.pack, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let engine = store.open(false);
        let (right, damaged, absent) = store.read_all(&engine);
        assert_eq!((right + damaged, absent), (8, 0));
        assert!(damaged <= 1, "one bit, {damaged} blobs");
        found += damaged;
        assert_eq!(engine.stats().expect("counted").damaged_count, damaged as u64);
        drop(engine);
        // Without the index, damage in the middle is reported and the rest is kept.
        let engine = store.open(true);
        let (right, damaged, absent) = store.read_all(&engine);
        assert!(right >= 7, "{right} right, {damaged} damaged, {absent} absent");
        let report = engine.report();
        assert_eq!(report.damage.len() + report.cut_tails.len(), 1, "{report:?}");
        drop(engine);
        for name in store.disk.names() {
            if name.starts_with("packs/") && name != store.pack {
                store.disk.tamper(&name, Vec::clear);
            }
        }
        store.disk.tamper(&store.pack, |bytes| bytes.clone_from(&good));
        drop(store.open(true));
    }
    assert!(found > 30, "most bits lie in frames: {found}");
}

/// Whoever can upload decides what lies in a pack; recovery must not take it for its own.
#[test]
fn segments_inside_of_a_blob_are_contents() {
    let (store, other) = (Damaged::new(), Damaged::new());
    let foreign = other.disk.contents(&other.pack).expect("the pack")[64..].to_vec();
    let engine = store.open(false);
    let mut random = Random::new(9);
    let contents = [random.incompressible(6000), foreign, random.incompressible(6000)].concat();
    put_blob(&engine, &contents).expect("stored");
    drop(engine);
    let len = store.len();
    store.disk.tamper(&store.pack, |bytes| bytes.truncate(len - 500));
    let engine = store.open(true);
    let report = engine.report();
    assert_eq!((report.damage.len(), report.cut_tails.len()), (0, 1), "{report:?}");
    assert_eq!(store.read_all(&engine), (8, 0, 0));
    assert_eq!(other.read_all(&engine), (8, 0, 0), "the same contents, from the other part");
}

#[test]
fn a_pack_that_got_nothing_is_no_newer_pack() {
    let store = Damaged::new();
    let len = store.len();
    let mut header = store.disk.contents(&store.pack).expect("the pack")[..64].to_vec();
    header[12..28].fill(7);
    let sum = blake3::hash(&header[..56]);
    header[56..].copy_from_slice(&sum.as_bytes()[..8]);
    let empty = format!("packs/{}.pack", "07".repeat(16));
    let file = granary_engine::Disk::create(&store.disk, &empty).expect("made");
    file.write_at(&header, 0).expect("written");
    store.disk.tamper(&store.pack, |bytes| bytes.extend_from_slice(&[0xee; 100]));
    for rebuild_index in [false, true] {
        let engine = store.open(rebuild_index);
        assert!(engine.report().damage.is_empty(), "{:?}", engine.report());
        assert_eq!(store.read_all(&engine), (8, 0, 0));
    }
    assert_eq!(store.len(), len);
    assert!(store.disk.contents(&empty).is_none(), "it had nothing");
}

#[test]
fn a_torn_tail_is_cut_and_kept_aside() {
    let store = Damaged::new();
    let len = store.len();
    store.disk.tamper(&store.pack, |bytes| bytes.extend_from_slice(&[0xee; 1000]));
    let engine = store.open(false);
    let report = engine.report();
    assert_eq!(report.cut_tails.len(), 1);
    assert_eq!((report.cut_tails[0].offset, report.cut_tails[0].len), (len as u64, 1000));
    assert_eq!(store.len(), len);
    let kept = store.disk.contents(&report.cut_tails[0].kept_in).expect("kept aside");
    assert_eq!(kept, [0xee; 1000]);
    assert_eq!(store.read_all(&engine), (8, 0, 0));
    put_blob(&engine, b"more").expect("stored");
}

#[test]
fn nothing_before_the_watermark_is_cut() {
    let store = Damaged::new();
    let len = store.len();
    // The last segment is in the index, and now invalid.
    store.disk.tamper(&store.pack, |bytes| bytes[len - 1] ^= 1);
    let engine = store.open(false);
    assert!(engine.report().cut_tails.is_empty());
    assert_eq!(store.len(), len);
    drop(engine);
    // A file that is shorter than the index knows is damage too, and nothing is appended.
    store.disk.tamper(&store.pack, |bytes| bytes.truncate(len - 2000));
    let engine = store.open(false);
    assert_eq!(engine.report().damage.len(), 1);
    put_blob(&engine, b"more").expect("into another pack");
    assert_eq!(store.len(), len - 2000);
    let (right, damaged, absent) = store.read_all(&engine);
    assert_eq!((right, damaged, absent), (7, 1, 0));
}

#[test]
fn damage_before_valid_segments_is_not_cut() {
    let store = Damaged::new();
    let len = store.len();
    store.disk.tamper(&store.pack, |bytes| bytes[len / 2] ^= 1);
    let engine = store.open(true);
    assert_eq!(engine.report().damage.len(), 1);
    assert!(engine.report().cut_tails.is_empty());
    assert_eq!(store.len(), len);
    let (right, _, _) = store.read_all(&engine);
    assert_eq!(right, 7);
    put_blob(&engine, b"more").expect("into another pack");
    assert_eq!(store.len(), len, "a damaged pack is left as it is");
}

/// Nothing but the index says where it ends then; and nothing but the index knows what the segment has.
#[test]
fn behind_a_damaged_segment_header_nothing_is_cut_and_the_index_stays() {
    for segment in [1, 7] {
        let store = Damaged::new();
        let (len, torn) = (store.len(), [0xee; 1000]);
        let good = store.disk.contents(&store.pack).expect("the pack");
        let begins: Vec<_> = (64..len - 4).filter(|&at| good[at..at + 4] == good[64..68]).collect();
        assert_eq!(begins.len(), 8, "one for each blob");
        store.disk.tamper(&store.pack, |bytes| {
            bytes[begins[segment] + 20] ^= 1;
            bytes.extend_from_slice(&torn);
        });
        for start in 0..3 {
            let engine = store.open(false);
            let report = engine.report();
            assert!(!report.rebuilt_index && report.cut_tails.is_empty(), "{report:?}");
            let damage: Vec<_> = report.damage.iter().map(|damage| damage.offset).collect();
            assert_eq!(damage, [begins[segment] as u64, len as u64], "start {start}");
            assert_eq!(store.len(), len + torn.len());
            assert_eq!(store.read_all(&engine), (8, 0, 0), "frames are found without headers");
        }
        let engine = store.open(false);
        put_blob(&engine, b"more").expect("into another pack");
        assert_eq!(store.len(), len + torn.len(), "a damaged pack is left as it is");
    }
}

#[test]
fn a_missing_pack_is_damage() {
    let store = Damaged::new();
    let pack = store.disk.contents(&store.pack).expect("the pack");
    granary_engine::Disk::remove(&store.disk, &store.pack).expect("removed");
    let engine = store.open(false);
    assert_eq!(engine.report().damage.len(), 1);
    assert_eq!(store.read_all(&engine), (0, 8, 0));
    drop(engine);
    let file = granary_engine::Disk::create(&store.disk, &store.pack).expect("made");
    file.write_at(&pack, 0).expect("written");
    assert_eq!(store.read_all(&store.open(false)), (8, 0, 0));
}

#[test]
fn what_was_forgotten_can_come_again() {
    let dir = TempDir::new().expect("a temporary directory");
    let contents = Random::new(8).incompressible(10_000);
    let engine = open(dir.path()).expect("a new store");
    put_blob(&engine, &contents).expect("put");
    put_blob(&engine, b"another").expect("put");
    drop(engine);
    let pack = fs::read_dir(dir.path().join("packs")).expect("readable").next();
    let pack = pack.expect("there is one").expect("readable").path();
    let mut bytes = fs::read(&pack).expect("readable");
    bytes[1_000] ^= 1;
    fs::write(&pack, &bytes).expect("written");

    let digest = BlobDigest::of(&contents);
    let engine = open(dir.path()).expect("opens");
    read_blob(&engine, &digest).expect_err("it is damaged");
    put_blob(&engine, &contents).expect("put");
    read_blob(&engine, &digest).expect_err("it counts as stored");
    assert_eq!(engine.forget(&[Root::Blob(digest)]).expect("forgotten"), 1);
    assert_eq!(read_blob(&engine, &digest).expect("readable"), None);
    for again in ["at once", "reopened", "with another index"] {
        put_blob(&engine, &contents).expect("put");
        assert!(
            read_blob(&engine, &digest).expect("readable").as_ref() == Some(&contents),
            "{again}"
        );
    }
    drop(engine);
    let engine = open(dir.path()).expect("opens");
    assert!(read_blob(&engine, &digest).expect("readable").as_ref() == Some(&contents));
    drop(engine);
    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let engine = open(dir.path()).expect("opens");
    assert!(read_blob(&engine, &digest).expect("readable").as_ref() == Some(&contents));
    let another = read_blob(&engine, &BlobDigest::of(b"another")).expect("readable");
    assert_eq!(another.as_deref(), Some(&b"another"[..]));
}

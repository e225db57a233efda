//! Extents: each stored frame is read once, and can be had as it is stored.

use std::sync::Arc;

use granary_castore::{BlobDigest, BlobService, Castore, Error, ExtentAt};
use granary_engine::{Engine, FrameSizes, OpenOptions};
use granary_testkit::{CrashDisk, Random};
use tempfile::TempDir;

use crate::support::{open, put_blob};

/// The extents of a blob in order.
fn extents(engine: &Engine, contents: &[u8]) -> Vec<ExtentAt> {
    let digest = BlobDigest::of(contents);
    let mut reader = BlobService::open(engine, &digest).expect("opens").expect("it is there");
    let mut extents = Vec::new();
    let mut offset = 0;
    while let Some(extent) = reader.extent_at(offset, &mut std::iter::empty()).expect("readable") {
        assert_eq!(extent.start, offset, "in order, each begins where the last one ended");
        offset += extent.extent.size_bytes();
        extents.push(extent);
    }
    assert_eq!(offset, contents.len() as u64);
    extents
}

/// Checks every extent against `contents`, and says how many bytes could be had as stored.
fn check(engine: &Engine, contents: &[u8]) -> u64 {
    let mut as_stored = 0;
    for ExtentAt { start, extent } in extents(engine, contents) {
        let start = usize::try_from(start).expect("small");
        let end = start + usize::try_from(extent.size_bytes()).expect("small");
        assert!(extent.read().expect("readable") == contents[start..end]);
        if let Some(frame) = extent.read_zstd().expect("readable") {
            let raw = zstd::bulk::decompress(&frame, end - start).expect("a frame");
            assert!(raw == contents[start..end]);
            let size = zstd::zstd_safe::get_frame_content_size(&frame).expect("a frame");
            assert_eq!(size, Some(extent.size_bytes()));
            as_stored += extent.size_bytes();
        }
    }
    as_stored
}

#[test]
fn large_contents_can_be_had_as_they_are_stored() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("opens");
    let plain = Random::new(1).compressible(5_000_000);
    put_blob(&engine, &plain).expect("stored");
    assert!(check(&engine, &plain) >= 4_900_000);
    // A few references spoil a few chunks.
    let mut with_references = Random::new(2).with_references(100_000, 2, 10_000, 3);
    with_references.extend(Random::new(3).compressible(4_000_000));
    put_blob(&engine, &with_references).expect("stored");
    let as_stored = check(&engine, &with_references);
    assert!((3_400_000..4_100_000).contains(&as_stored), "{as_stored}");
    // What would not become shorter can be had so too.
    let noise = Random::new(4).incompressible(900_000);
    put_blob(&engine, &noise).expect("stored");
    assert_eq!(check(&engine, &noise), 900_000);
    // What shares a frame with others cannot.
    let small = Random::new(5).compressible(30_000);
    put_blob(&engine, &small).expect("stored");
    assert_eq!(check(&engine, &small), 0);
    // A middle-sized one has a frame for itself.
    let middle = Random::new(6).compressible(100_000);
    put_blob(&engine, &middle).expect("stored");
    assert_eq!(check(&engine, &middle), 100_000);
}

#[test]
fn what_is_in_memory_can_be_had_at_once() {
    let disk = CrashDisk::default();
    let index = TempDir::new().expect("a temporary directory");
    let open = || {
        let options = OpenOptions::default();
        Engine::open_on(Arc::new(disk.clone()), &index.path().join("index"), &options)
            .expect("opens")
    };
    let engine = open();
    let (text, noise) =
        (Random::new(1).compressible(3_000_000), Random::new(2).incompressible(3_000_000));
    let small = Random::new(3).compressible(30_000);
    let patched = Random::new(4).with_references(400_000, 2, 40_000, 3);
    for contents in [&text, &noise, &small, &patched] {
        put_blob(&engine, contents).expect("stored");
    }
    assert!(engine.stats().expect("counted").patched_chunk_count > 2);
    engine.close().expect("closed");
    drop(engine);
    let engine = open();
    let first = &extents(&engine, &noise)[0].extent;
    let before_any_read = [first.read_zstd_now(), first.read_now()];
    assert_eq!(before_any_read, [None, None], "what is not open must be looked for on the disk");
    for (contents, expected) in [(&text, true), (&noise, true), (&small, false)] {
        let mut held = Vec::new();
        for ExtentAt { start, extent } in extents(&engine, contents) {
            let waited_for = extent.read_zstd().expect("readable");
            let now = extent.read_zstd_now();
            assert!(now == waited_for, "{start}");
            assert_eq!(now.is_some(), expected, "{start}");
            held.extend(now.zip(waited_for));
        }
        // What was read later went elsewhere.
        assert!(held.iter().all(|(now, waited_for)| now == waited_for));
    }
    for contents in [&text, &noise, &small, &patched] {
        let mut held = Vec::new();
        for ExtentAt { start, extent } in extents(&engine, contents) {
            let now = extent.read_now().unwrap_or_else(|| panic!("{start} is in memory"));
            held.extend_from_slice(&now);
            assert!(now == extent.read().expect("readable"), "{start}");
        }
        assert!(held == *contents);
    }
}

#[test]
fn what_takes_long_to_decompress_is_not_had_at_once() {
    let dir = TempDir::new().expect("a temporary directory");
    let frame_sizes = FrameSizes { run_bytes: 16 << 20, ..FrameSizes::default() };
    let options = OpenOptions { frame_sizes, ..OpenOptions::default() };
    let engine = Engine::open(dir.path(), &options).expect("opens");
    for (len, is_had) in [(6 << 20, false), (2 << 20, true)] {
        let contents = Random::new(len as u64).compressible(len);
        put_blob(&engine, &contents).expect("stored");
        let mut reader = BlobService::open(&engine, &BlobDigest::of(&contents))
            .expect("opens")
            .expect("it is there");
        let first = reader.extent_at(0, &mut std::iter::empty()).expect("readable");
        let ExtentAt { start, extent } = first.expect("it has bytes");
        // Which opens its pack.
        extent.read_zstd().expect("readable");
        assert_eq!((start, extent.read_now().is_some()), (0, is_had), "of {len} bytes");
        assert!(contents.starts_with(&extent.read().expect("readable")));
    }
}

#[test]
fn contents_that_share_chunks_with_others_are_read_right() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("opens");
    let (one, two) =
        (Random::new(7).compressible(3_000_000), Random::new(8).compressible(3_000_000));
    put_blob(&engine, &one).expect("stored");
    put_blob(&engine, &two).expect("stored");
    let mixed = [&one[1_000_000..2_500_000], &two[..1_500_000], &one[..700_000]].concat();
    put_blob(&engine, &mixed).expect("stored");
    for contents in [&one, &two, &mixed] {
        check(&engine, contents);
    }
}

/// Two small files that share a frame, an empty one behind them, and one that is both together.
#[test]
fn empty_objects_in_a_frame_are_no_damage() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("opens");
    let probe_dir = TempDir::new().expect("a temporary directory");
    let probe = open(probe_dir.path()).expect("opens");
    let is_small = |len: &usize| *len < 64 << 10;
    let (contents, first, second) = (0..200)
        .find_map(|seed| {
            let contents = Random::new(seed).compressible(300_000);
            put_blob(&probe, &contents).expect("stored");
            let chunks = probe.chunks(&BlobDigest::of(&contents), 100).expect("readable")?;
            let len = |at: usize| usize::try_from(chunks.get(at)?.size_bytes).ok();
            let (first, second) = (len(0).filter(is_small)?, len(1).filter(is_small)?);
            (first + second >= 64 << 10).then_some((contents, first, second))
        })
        .expect("one of them is cut so");
    let both = &contents[..first + second];
    let mut batch = engine.batch().expect("open");
    for blob in [&both[..first], &both[first..], b"", both] {
        batch.put_blob(blob.to_vec().into()).expect("put");
    }
    batch.commit().expect("committed");
    check(&engine, both);
    assert_eq!(engine.stats().expect("counted").damaged_count, 0);
}

#[test]
fn an_extent_is_found_from_every_byte_of_it() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("opens");
    let contents = Random::new(9).with_references(2_500_000, 4, 90_000, 1);
    put_blob(&engine, &contents).expect("stored");
    let all = extents(&engine, &contents);
    assert!(all.len() > 5);
    let digest = BlobDigest::of(&contents);
    for ExtentAt { start, extent } in &all {
        let end = start + extent.size_bytes();
        for offset in [*start, start + 1, (start + end) / 2, end - 1] {
            let mut reader = BlobService::open(&engine, &digest).expect("opens").expect("there");
            let found = reader
                .extent_at(offset, &mut std::iter::empty())
                .expect("readable")
                .expect("in the blob");
            assert_eq!((found.start, found.extent.size_bytes()), (*start, extent.size_bytes()));
        }
    }
}

#[test]
fn damaged_frames_are_never_given_as_stored() {
    let disk = CrashDisk::default();
    let index = TempDir::new().expect("a temporary directory");
    let open = || {
        let options = OpenOptions::default();
        Engine::open_on(Arc::new(disk.clone()), &index.path().join("index"), &options)
            .expect("opens")
    };
    let engine = open();
    let contents = Random::new(10).compressible(2_000_000);
    let mut batch = engine.batch().expect("open");
    batch.put_blob(contents.clone().into()).expect("put");
    batch.commit().expect("committed");
    engine.close().expect("closed");
    drop(engine);
    let names = disk.names();
    let pack = names.iter().find(|name| name.starts_with("packs/")).expect("a pack");
    let good = disk.contents(pack).expect("the pack");
    let mut random = Random::new(11);
    let mut refused = 0;
    for _ in 0..40 {
        let bit = (128 + random.below(good.len() - 128)) * 8 + random.below(8);
        disk.tamper(pack, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let engine = open();
        for ExtentAt { start, extent } in extents(&engine, &contents) {
            let len = usize::try_from(extent.size_bytes()).expect("small");
            let start = usize::try_from(start).expect("small");
            let waited_for = extent.read_zstd();
            let now = extent.read_zstd_now();
            for frame in waited_for.iter().flatten().chain(&now) {
                let raw = zstd::bulk::decompress(frame, len).expect("a frame");
                assert!(raw == contents[start..start + len]);
            }
            let bytes = extent.read();
            match extent.read_now() {
                Some(now) => assert!(now == bytes.expect("it was had at once")),
                None => assert!(matches!(bytes, Err(Error::Corrupt(_)))),
            }
            match waited_for {
                Ok(frame) => assert!(now == frame),
                Err(Error::Corrupt(_)) => refused += usize::from(now.is_none()),
                Err(other) => panic!("{other}"),
            }
        }
        drop(engine);
        disk.tamper(pack, |bytes| bytes.clone_from(&good));
    }
    assert!(refused > 20, "{refused} of 40 flipped bits were noticed");
}

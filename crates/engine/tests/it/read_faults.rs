//! A disk that does not answer once, at every read: that is an error, and nothing more. It is
//! neither damage nor absence, and nothing is cut off or set aside for it.

use std::{collections::BTreeMap, fs};

use granary_castore::{BlobDigest, DirectoryService as _, Error, Result};
use granary_engine::{Disk as _, Engine, OpenError};
use granary_testkit::{CrashDisk, SmallDisk};
use tempfile::TempDir;

use crate::{
    collect_crash,
    support::{copy_dir, directory, read_blob},
    workload::{Acknowledged, check, open, work},
};

/// Room for indexes. They are in memory: hundreds are written, and syncing would be most of the
/// work.
const SMALL_BYTES: usize = 64 << 20;

fn directory_on(small: &SmallDisk) -> TempDir {
    TempDir::new_in(small.path()).expect("there is room")
}

/// A store that was closed, to be opened again and again.
struct Closed {
    disk: CrashDisk,
    index: TempDir,
    acknowledged: Acknowledged,
    small: SmallDisk,
}

impl Closed {
    fn new() -> Self {
        let (disk, small) = (CrashDisk::default(), SmallDisk::new(SMALL_BYTES));
        let index = directory_on(&small);
        let mut acknowledged = Acknowledged::default();
        let engine = open(&disk, &index).expect("a new store");
        work(&engine, &mut acknowledged).expect("nothing fails");
        drop(engine);
        Self { disk, index, acknowledged, small }
    }

    /// With an index of an earlier moment.
    fn with_older_index() -> Self {
        let (disk, small) = (CrashDisk::default(), SmallDisk::new(SMALL_BYTES));
        let index = directory_on(&small);
        let mut acknowledged = Acknowledged::default();
        drop(open(&disk, &index).expect("a new store"));
        let older = directory_on(&small);
        copy_dir(index.path(), older.path());
        work(&open(&disk, &index).expect("opens"), &mut acknowledged).expect("nothing fails");
        Self { disk, index: older, acknowledged, small }
    }

    fn without_index() -> Self {
        let closed = Self::new();
        fs::remove_dir_all(closed.index.path().join("index")).expect("there is one");
        closed
    }

    /// As a crash may leave it: the end of the newest pack is torn, and there are a pack that got
    /// nothing and one that did not even get its header.
    fn torn() -> Self {
        let closed = Self::with_older_index();
        let packs: Vec<_> = closed.disk.names();
        let packs: Vec<_> = packs.into_iter().filter(|name| name.starts_with("packs/")).collect();
        let unsealed = |name: &&String| {
            let bytes = closed.disk.contents(name).expect("it is there");
            !bytes.ends_with(b"GRANFOOT")
        };
        let newest = packs.iter().find(unsealed).expect("one is appended to");
        closed.disk.tamper(newest, |bytes| bytes.extend_from_slice(&[0xee; 3_000]));
        let headerless = format!("packs/{}.pack", "06".repeat(16));
        let file = closed.disk.create(&headerless).expect("made");
        file.write_at(b"GRAN", 0).expect("written");
        closed
    }

    /// A copy to open, and one of its index.
    fn copy(&self) -> (CrashDisk, TempDir) {
        let index = directory_on(&self.small);
        copy_dir(self.index.path(), index.path());
        (self.disk.copy(), index)
    }

    /// Opens a copy for each read that opening makes, and lets that one fail. `may_be` says
    /// whether files may be so after an attempt that failed.
    fn fail_every_read_of_opening(&self, may_be: impl Fn(&BTreeMap<String, Vec<u8>>) -> bool) {
        let (disk, index) = self.copy();
        drop(open(&disk, &index).expect("nothing fails"));
        let reads = disk.reads();
        assert!(reads > 10, "opening reads more than that: {reads}");
        for at in 0..reads {
            let (disk, index) = self.copy();
            disk.set_failing_read(at);
            match open(&disk, &index).map(drop) {
                Err(OpenError::Failed(Error::Unavailable(_))) => {}
                other => panic!("read {at} failed, and opening said {other:?}"),
            }
            assert!(may_be(&disk.all_contents()), "read {at}: files have changed");
            let engine = open(&disk, &index).unwrap_or_else(|error| panic!("read {at}: {error}"));
            check(&engine, &self.acknowledged, &format!("read {at} failed at first"));
        }
    }
}

#[test]
fn while_opening() {
    for closed in [Closed::new(), Closed::with_older_index(), Closed::without_index()] {
        let before = closed.disk.all_contents();
        closed.fail_every_read_of_opening(|files| *files == before);
    }
}

#[test]
fn while_mending_what_a_crash_left() {
    let closed = Closed::torn();
    let before = closed.disk.all_contents();
    let (disk, index) = closed.copy();
    let report = open(&disk, &index).expect("nothing fails").report().clone();
    assert_eq!(report.cut_tails.len(), 2, "{report:?}");
    let after = disk.all_contents();
    closed.fail_every_read_of_opening(|files| {
        // Each file is as it was or as it will be; a copy that is set aside may be begun.
        let is_pack = |name: &&String| !name.starts_with("set-aside/");
        let names = files.keys().chain(before.keys()).chain(after.keys());
        names.filter(is_pack).all(|name| {
            let file = files.get(name);
            file == before.get(name) || file == after.get(name)
        })
    });
}

/// Everything is read; each object is right or does not come. How many did not.
fn read_all(engine: &Engine, acknowledged: &Acknowledged) -> usize {
    let mut failed = 0;
    let mut note = |is_right: Result<bool>, what: &str| match is_right {
        Ok(is_right) => assert!(is_right, "{what} is gone or wrong"),
        Err(Error::Unavailable(_)) => failed += 1,
        Err(other) => panic!("{what}: that is no damage: {other:?}"),
    };
    for contents in &acknowledged.blobs {
        let read = read_blob(engine, &BlobDigest::of(contents));
        note(read.map(|read| read.as_ref() == Some(contents)), "a blob");
    }
    for target in &acknowledged.directories {
        let directory = directory(target);
        let read = engine.directory(&directory.digest());
        note(read.map(|read| read == Some(directory)), "a directory");
    }
    note(engine.stats().map(|stats| stats.damaged_count == 0), "the count of damage");
    failed
}

#[test]
fn while_reading() {
    let closed = Closed::new();
    let (disk, index) = closed.copy();
    let engine = open(&disk, &index).expect("opens");
    let opened = disk.reads();
    assert_eq!(read_all(&engine, &closed.acknowledged), 0);
    let reads = disk.reads();
    assert!(reads > opened + 20, "{opened} to {reads}");
    drop(engine);
    for at in opened..reads {
        let (disk, index) = closed.copy();
        let engine = open(&disk, &index).expect("opens");
        disk.set_failing_read(at);
        let failed = read_all(&engine, &closed.acknowledged);
        assert_eq!(failed, 1, "read {at}");
        assert_eq!(read_all(&engine, &closed.acknowledged), 0, "read {at} failed once");
    }
}

/// Whoever writes looks at what is stored already, and seldom reads it.
#[test]
fn while_writing() {
    let closed = Closed::new();
    // How many reads there were once it was opened, and once it was written to.
    let write = |at: Option<usize>| {
        let (disk, index) = closed.copy();
        let engine = open(&disk, &index).expect("opens");
        let opened = disk.reads();
        if let Some(at) = at {
            disk.set_failing_read(at);
        }
        let mut again = Acknowledged::default();
        let result = work(&engine, &mut again);
        assert_eq!(result.is_err(), at.is_some(), "read {at:?}: {result:?}");
        let written = disk.reads();
        check(&engine, &again, "written again");
        assert_eq!(read_all(&engine, &closed.acknowledged), 0, "what was there before");
        (opened, written)
    };
    let (opened, written) = write(None);
    assert!(written > opened, "it looks at what it wrote");
    for at in opened..written {
        write(Some(at));
    }
}

/// A collection gives up, or leaves what it could not read where it is: it takes that neither for
/// garbage nor for damage.
#[test]
fn while_collecting() {
    let small = SmallDisk::new(SMALL_BYTES);
    let filled = || {
        let (disk, dir) = (CrashDisk::default(), directory_on(&small));
        let engine = collect_crash::open(&disk, &dir.path().join("index")).expect("a new store");
        collect_crash::fill(&engine);
        (disk, dir, engine)
    };
    let (disk, _dir, engine) = filled();
    let begun = disk.reads();
    collect_crash::collect(&engine).expect("nothing fails");
    let reads = disk.reads() - begun;
    assert!(reads > 20, "it reads what it moves: {reads}");
    for at in 0..reads {
        let what = format!("read {at}");
        let (disk, dir, engine) = filled();
        disk.set_failing_read(disk.reads() + at);
        let result = collect_crash::collect(&engine);
        assert!(disk.read_has_failed(), "{what}");
        assert!(matches!(result, Ok(()) | Err(Error::Unavailable(_))), "{what}: {result:?}");
        assert_eq!(engine.stats().expect("counted").damaged_count, 0, "{what}");
        let has_third = collect_crash::is_whole(&engine, 3, &what);
        collect_crash::check(&engine, has_third, &what);
        collect_crash::put_again(&engine, &what);
        collect_crash::collect(&engine).unwrap_or_else(|error| panic!("{what}: {error}"));
        collect_crash::check(&engine, true, &what);
        drop(engine);
        for index in ["index", "another"] {
            let engine = collect_crash::open(&disk, &dir.path().join(index)).expect("opens");
            collect_crash::check(&engine, true, &what);
        }
    }
}

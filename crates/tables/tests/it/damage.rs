//! Files that are not what was written: an error, never something else, and no panic.

use std::{collections::BTreeMap, fs, os::unix::fs::FileExt as _, path::Path};

use granary_tables::{Error, Tables};
use granary_testkit::Random;

use crate::support::{Key, Value, add, all, files, open, place};

const KEYS: u32 = 300;

fn entries() -> BTreeMap<Key, Option<Value>> {
    (0..KEYS)
        .map(|key| {
            let digest = Random::new(key.into()).incompressible(32);
            ([&b"c"[..], &digest].concat(), Some(key.to_le_bytes().to_vec()))
        })
        .collect()
}

fn assert_damaged(opened: Result<Tables, Error>, what: &str) {
    let error = opened.map(drop).expect_err(what);
    assert!(matches!(error, Error::Damaged { .. } | Error::Io { .. }), "{what}: {error}");
}

fn flip(path: &Path, bit: usize) {
    let mut bytes = fs::read(path).expect("readable");
    bytes[bit / 8] ^= 1 << (bit % 8);
    // In its place: it may be open.
    let file = fs::File::options().write(true).open(path).expect("writable");
    file.write_all_at(&bytes, 0).expect("the disk takes it");
}

#[test]
fn every_change_shows_when_they_are_opened() {
    let (_dir, dir) = place();
    add(&open(&dir), &entries());
    let mut random = Random::new(3);
    for file in files(&dir) {
        let whole = fs::read(&file).expect("readable");
        for _ in 0..200 {
            let bit = random.below(whole.len() * 8);
            flip(&file, bit);
            assert_damaged(Tables::open(&dir), &format!("{} bit {bit}", file.display()));
            flip(&file, bit);
        }
        for len in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
            fs::write(&file, &whole[..len]).expect("written");
            assert_damaged(Tables::open(&dir), &format!("{} cut to {len}", file.display()));
        }
        fs::write(&file, [&whole[..], &[0]].concat()).expect("written");
        assert_damaged(Tables::open(&dir), &format!("{} and a byte more", file.display()));
        fs::remove_file(&file).expect("removed");
        assert_damaged(Tables::open(&dir), &format!("{} gone", file.display()));
        fs::write(&file, &whole).expect("written");
    }
    assert_eq!(all(&open(&dir)).len(), KEYS as usize);
}

#[test]
fn what_is_damaged_while_it_is_open_is_an_error_when_it_is_read() {
    let (_dir, dir) = place();
    let (tables, entries) = (open(&dir), entries());
    add(&tables, &entries);
    let table = &files(&dir)[0];
    // Behind the magic are blocks: one of several is hit.
    for bit in [9 * 8, 700 * 8 + 3, 3_000 * 8] {
        flip(table, bit);
        let mut missed = 0;
        for (key, value) in &entries {
            match tables.get(key, <[u8]>::to_vec) {
                Ok(found) => assert_eq!(found, *value, "something is gone or wrong"),
                Err(Error::Damaged { .. }) => missed += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!((1..KEYS).contains(&missed), "{missed} of one block");
        assert!(tables.range(b"", b"").any(|entry| entry.is_err()));
        let mut range = tables.range(b"", b"").skip_while(Result::is_ok);
        assert!(matches!(range.next(), Some(Err(Error::Damaged { .. }))));
        assert!(range.next().is_none(), "an error ends it");
        flip(table, bit);
    }
    assert_eq!(all(&tables).len(), KEYS as usize);
}

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

/// The list with the checksum that the only table has now.
fn seal(dir: &Path) {
    let files = files(dir);
    let [table, list] = &files[..] else { panic!("one table and the list") };
    let table = fs::read(table).expect("readable");
    let mut sealed = fs::read(list).expect("readable");
    sealed.truncate(sealed.len() - 16);
    sealed[24..40].copy_from_slice(&twox_hash::XxHash3_128::oneshot(&table).to_le_bytes());
    let sum = twox_hash::XxHash3_128::oneshot(&sealed);
    fs::write(list, [&sealed[..], &sum.to_le_bytes()].concat()).expect("written");
}

#[test]
fn counts_that_cannot_be_are_damage_though_checksums_are_right() {
    let (_dir, dir) = place();
    add(&open(&dir), &entries());
    let table = &files(&dir)[0];
    let whole = fs::read(table).expect("readable");
    seal(&dir);
    assert_eq!(all(&open(&dir)).len(), KEYS as usize, "nothing was changed yet");
    for field in 0..3 {
        for count in [0, 1, 1 << 40, u64::MAX] {
            let mut forged = whole.clone();
            let at = whole.len() - 24 + 8 * field;
            forged[at..at + 8].copy_from_slice(&count.to_le_bytes());
            fs::write(table, &forged).expect("written");
            seal(&dir);
            assert_damaged(Tables::open(&dir), &format!("count {field} is {count}"));
        }
    }
    let mut random = Random::new(11);
    for round in 0..60 {
        let mut forged = whole.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(whole.len());
            forged[at] = random.next_u64().to_le_bytes()[0];
        }
        fs::write(table, &forged).expect("written");
        seal(&dir);
        if let Ok(tables) = Tables::open(&dir) {
            let others = (0..5_u8).map(|round| vec![round]);
            for key in others {
                tables.add([(&key[..], None)].into_iter()).expect("written");
            }
            tables.range(b"", b"").for_each(drop);
            if let Err(error) = tables.merge_all() {
                assert!(matches!(error, Error::Damaged { .. }), "round {round}: {error}");
            }
        }
        for file in files(&dir) {
            fs::remove_file(file).expect("removed");
        }
        add(&open(&dir), &entries());
    }
}

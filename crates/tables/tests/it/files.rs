//! Which files there are, and what is in them.

use std::{collections::BTreeMap, fs};

use granary_tables::{Error, LIST_FILE, Turn};

use crate::support::{Key, Value, add, all, files, get, open, place};

fn entries(round: u8, keys: u8) -> BTreeMap<Key, Option<Value>> {
    (0..keys).map(|key| (vec![key], Some(vec![round, key]))).collect()
}

#[test]
fn a_table_byte_for_byte() {
    let (_dir, dir) = place();
    let tables = open(&dir);
    let entries = [(&b"ca1"[..], Some(&b"one"[..])), (b"ca22", None), (b"cb", Some(b""))];
    // The first table has nothing to remove.
    tables.add([(&b"z"[..], Some(&b""[..]))].into_iter()).expect("written");
    tables.add(entries.into_iter()).expect("written");
    let table = fs::read(dir.join("00000001.table")).expect("the second table");
    let (block, filter) = (&table[8..34], filter(&[b"ca1", b"ca22", b"cb"]));
    let expected = [
        &b"GRTABLE\x01"[..],
        &block[..8],
        b"\x01c\x00",
        b"\x02a1\x04one",
        b"\x03a22\x00",
        b"\x01b\x01",
        b"ca1\0\0\0\0\0\x1a\0\0\0",
        &filter,
        b"\x03\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0",
    ]
    .concat();
    assert_eq!(table, expected);
    let checksum = twox_hash::XxHash3_64::oneshot(&block[8..]);
    assert_eq!(block[..8], checksum.to_le_bytes());

    let list = fs::read(dir.join(LIST_FILE)).expect("the list");
    let first = fs::read(dir.join("00000000.table")).expect("the first table");
    let listed = [(1_u64, &table), (0, &first)].map(|(id, table)| {
        let sum = twox_hash::XxHash3_128::oneshot(table);
        [&id.to_le_bytes()[..], &(table.len() as u64).to_le_bytes(), &sum.to_le_bytes()].concat()
    });
    let expected = [&b"GRLIST\x00\x01"[..], &listed.concat()].concat();
    let sum = twox_hash::XxHash3_128::oneshot(&expected);
    assert_eq!(list, [&expected[..], &sum.to_le_bytes()].concat());
}

/// The only line of a filter of some keys, as `docs/index-format.md` has it.
fn filter(keys: &[&[u8]]) -> [u8; 64] {
    let mut line = [0_u8; 64];
    for key in keys {
        let hash = twox_hash::XxHash3_64::oneshot(key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for number in 0..6 {
            let bit = usize::try_from((hash >> (9 * number)) & 511).expect("nine bits");
            line[bit / 8] |= 1 << (bit % 8);
        }
    }
    line
}

#[test]
fn few_tables_stay_and_many_are_merged() {
    let (_dir, dir) = place();
    let tables = open(&dir);
    for round in 0..40 {
        add(&tables, &entries(round, 200));
        while tables.merge_some(u64::MAX, || Turn::GoOn).expect("merged") {}
        let count = files(&dir).len() - 1;
        assert!(count <= 8, "{count} tables after {round}");
        assert!(all(&tables).into_iter().eq(entries(round, 200).into_iter().map(|(k, v)| {
            let value = v.expect("nothing was removed");
            (k, value)
        })));
    }
}

#[test]
fn a_large_table_is_left_alone_until_the_others_are_a_part_of_it() {
    let (_dir, dir) = place();
    let tables = open(&dir);
    let large: BTreeMap<Key, _> =
        (0..20_000_u32).map(|key| (key.to_be_bytes().to_vec(), Some(vec![0; 20]))).collect();
    add(&tables, &large);
    let first = dir.join("00000000.table");
    for round in 0..10 {
        add(&tables, &entries(round, 200));
        while tables.merge_some(u64::MAX, || Turn::GoOn).expect("merged") {}
    }
    assert!(first.exists(), "it would have been written anew for a few entries");
    for round in 0..12 {
        let other: BTreeMap<Key, _> = (0..2_000_u32)
            .map(|key| ([&[9, round][..], &key.to_be_bytes()].concat(), Some(vec![0; 20])))
            .collect();
        add(&tables, &other);
        while tables.merge_some(u64::MAX, || Turn::GoOn).expect("merged") {}
    }
    assert!(!first.exists(), "others have grown to a third of it");
}

#[test]
fn what_was_removed_takes_no_space_once_all_are_merged() {
    let (_dir, dir) = place();
    let tables = open(&dir);
    add(&tables, &entries(0, 100));
    let removed: BTreeMap<Key, Option<Value>> = (0..100).map(|key| (vec![key], None)).collect();
    add(&tables, &removed);
    assert_eq!(get(&tables, &[7]), None);
    assert_eq!(files(&dir).len(), 3);
    tables.merge_all().expect("merged");
    assert_eq!(files(&dir), [dir.join(LIST_FILE)], "nothing is left to say");
    add(&tables, &removed);
    assert_eq!(files(&dir), [dir.join(LIST_FILE)], "there is nothing to remove");
}

#[test]
fn what_was_removed_stays_removed_while_older_tables_have_it() {
    let (_dir, dir) = place();
    let tables = open(&dir);
    let large: BTreeMap<Key, _> =
        (0..20_000_u32).map(|key| (key.to_be_bytes().to_vec(), Some(vec![0; 20]))).collect();
    add(&tables, &large);
    let gone = 5_u32.to_be_bytes();
    tables.add([(&gone[..], None)].into_iter()).expect("written");
    for round in 0..5 {
        add(&tables, &entries(round, 20));
    }
    assert!(tables.merge_some(u64::MAX, || Turn::GoOn).expect("merged"));
    assert_eq!(files(&dir).len(), 3, "the large one is no part of it");
    assert_eq!(get(&tables, &gone), None);
    assert!(all(&tables).into_iter().all(|(key, _)| key != gone));
    tables.merge_all().expect("merged");
    assert_eq!(get(&tables, &gone), None);
}

#[test]
fn whoever_merges_large_values_asks_as_often() {
    const MIB: usize = 1 << 20;
    let (_dir, dir) = place();
    let tables = open(&dir);
    let value = vec![1; MIB / 2];
    for key in 0..10_u8 {
        tables.add([(&[key][..], Some(&value[..]))].into_iter()).expect("written");
    }
    let mut asked = 0;
    let turn = || {
        asked += 1;
        Turn::GoOn
    };
    assert!(tables.merge_some(u64::MAX, turn).expect("merged"));
    assert_eq!(asked, 5, "once for each MiB");
}

#[test]
fn a_range_is_of_the_moment_it_was_asked_for() {
    let (_dir, dir) = place();
    let tables = open(&dir);
    add(&tables, &entries(0, 50));
    let before = tables.range(b"", b"");
    add(&tables, &entries(1, 100));
    tables.merge_all().expect("merged");
    let before: Vec<_> = before.collect::<Result<_, _>>().expect("its files are open");
    assert!(before.into_iter().eq((0..50).map(|key| (vec![key], vec![0, key]))));
}

#[test]
fn a_merger_that_is_stopped_changes_nothing() {
    let (_dir, dir) = place();
    let tables = open(&dir);
    for round in 0..6_u8 {
        let keys = (0..3_000_u32).map(|key| [&key.to_be_bytes()[..], &[round]].concat());
        let keys = keys.chain([b"the same".to_vec()]);
        let many: BTreeMap<Key, _> = keys.map(|key| (key, Some(vec![round; 100]))).collect();
        add(&tables, &many);
    }
    let before = files(&dir);
    let mut asked = 0;
    let merged = tables.merge_some(u64::MAX, || {
        asked += 1;
        // Meanwhile others may be added.
        add(&tables, &entries(9, 10));
        Turn::Stop
    });
    assert!(!merged.expect("not merged") && asked == 1, "asked {asked} times");
    assert_eq!(files(&dir).len(), before.len() + 1, "only what was added");
    let merged = tables.merge_some(u64::MAX, || {
        add(&tables, &entries(10, 10));
        Turn::GoOn
    });
    assert!(merged.expect("merged"));
    assert_eq!(get(&tables, &[3]), Some(vec![10, 3]), "what came meanwhile is newer");
    assert_eq!(get(&tables, b"the same"), Some(vec![5; 100]));
    drop(tables);
    assert_eq!(get(&open(&dir), &[3]), Some(vec![10, 3]));
}

#[test]
fn what_a_process_left_is_removed() {
    let (_dir, dir) = place();
    let tables = open(&dir);
    add(&tables, &entries(0, 10));
    drop(tables);
    let whole = files(&dir);
    fs::write(dir.join("00000007.table"), b"half a table").expect("written");
    let tables = open(&dir);
    assert_eq!(files(&dir), whole);
    add(&tables, &entries(1, 10));
    assert_eq!(get(&tables, &[1]), Some(vec![1, 1]));
    drop(tables);
    // What cannot be removed is not in the way.
    fs::create_dir_all(dir.join("00000009.table/kept")).expect("made");
    let tables = open(&dir);
    for round in 2..5 {
        add(&tables, &entries(round, 10));
    }
    assert!(dir.join("00000010.table").exists());
}

#[test]
fn what_cannot_be_written_is_not_there() {
    let (_dir, dir) = place();
    let tables = open(&dir);
    add(&tables, &entries(0, 10));
    // A directory in the place of the list that is to be.
    let obstacle = dir.join("list.new");
    fs::create_dir(&obstacle).expect("made");
    let before = files(&dir);
    for _ in 0..2 {
        let error = tables.add([(&[1][..], Some(&[2][..]))].into_iter()).expect_err("no list");
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert_eq!(files(&dir), before, "half a change is left");
    }
    assert_eq!(get(&tables, &[1]), Some(vec![0, 1]));
    fs::remove_dir(obstacle).expect("removed");
    add(&tables, &entries(1, 10));
    drop(tables);
    assert_eq!(get(&open(&dir), &[1]), Some(vec![1, 1]));
}

#[test]
fn a_directory_without_a_list_is_no_place_for_tables() {
    let (_dir, dir) = place();
    fs::create_dir(&dir).expect("made");
    drop(open(&dir));
    fs::remove_file(dir.join(LIST_FILE)).expect("removed");
    drop(open(&dir));
    fs::rename(dir.join(LIST_FILE), dir.join("other")).expect("renamed");
    let error = granary_tables::Tables::open(&dir).expect_err("it is not ours");
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

//! Mergers where there is not much room.

use std::collections::BTreeMap;

use granary_tables::Turn;
use granary_testkit::{Random, SmallDisk};

use crate::support::{Key, Value, add, files, get, open};

const MIB: usize = 1 << 20;

/// Entries of four MiB.
fn entries(table: u8) -> BTreeMap<Key, Option<Value>> {
    (0..4)
        .map(|key| (vec![table, key], Some(Random::new(table.into()).incompressible(MIB))))
        .collect()
}

#[test]
fn a_merger_takes_half_of_the_free_space_at_most() {
    const TABLES: u8 = 6;
    let disk = SmallDisk::new((4 * usize::from(TABLES) + 20) * MIB);
    let dir = disk.path().join("tables");
    let tables = open(&dir);
    (0..TABLES).for_each(|table| add(&tables, &entries(table)));
    let before = files(&dir).len();
    // Two of them together have eight MiB, three would have more than half of what is free.
    assert!(tables.merge_some(u64::MAX, || Turn::GoOn).expect("there is room for two"));
    assert_eq!(files(&dir).len(), before - 1);
    let ballast = disk.fill("ballast", 4 * MIB);
    let before = files(&dir);
    assert!(!tables.merge_some(u64::MAX, || Turn::GoOn).expect("none is begun"));
    assert_eq!(files(&dir), before);
    let error = tables.merge_all().expect_err("there is no room for all of them");
    assert!(error.to_string().contains("cannot"), "{error}");
    assert_eq!(files(&dir), before, "half a table is left");
    for table in 0..TABLES {
        for (key, value) in entries(table) {
            assert_eq!(get(&tables, &key), value);
        }
    }
    std::fs::remove_file(ballast).expect("it is there");
}

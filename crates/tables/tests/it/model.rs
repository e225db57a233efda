//! Tables do what a map in memory does, whatever is merged and opened anew.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use granary_tables::Turn;
use granary_testkit::Random;
use proptest::prelude::*;

use crate::support::{Key, Value, add, all, get, open, place};

#[derive(Debug, Clone)]
enum Step {
    Add(BTreeMap<Key, Option<Value>>),
    /// Of at most so many bytes together.
    MergeSome(u64),
    MergeAll,
    Reopen,
}

/// Short ones of few letters, and long ones that begin with the same bytes: a block may hold
/// three of these.
fn key() -> impl Strategy<Value = Key> {
    let long = (0..40_u8).prop_map(|number| [&[1; 700][..], &[number]].concat());
    let digest = (0..200_u64).prop_map(|seed| {
        let digest = Random::new(seed).incompressible(32);
        [&b"c"[..], &digest].concat()
    });
    prop_oneof![prop::collection::vec(0..3_u8, 0..5), long, digest]
}

fn value() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        3 => Just(None),
        4 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Some),
        // Larger than a block.
        1 => (0..9_000_usize).prop_map(|len| Some(vec![7; len])),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => prop::collection::btree_map(key(), value(), 0..60).prop_map(Step::Add),
        4 => prop_oneof![Just(u64::MAX), 0..60_000_u64].prop_map(Step::MergeSome),
        1 => Just(Step::MergeAll),
        2 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn they_are_a_map(
        steps in prop::collection::vec(step(), 1..40),
        asked in prop::collection::vec(key(), 20),
        start in key(),
        prefix in prop::collection::vec(0..3_u8, 0..2),
    ) {
        let (_dir, dir) = place();
        let (mut tables, mut model) = (open(&dir), BTreeMap::new());
        for step in steps {
            match step {
                Step::Add(entries) => {
                    add(&tables, &entries);
                    for (key, value) in entries {
                        match value {
                            Some(value) => model.insert(key, value),
                            None => model.remove(&key),
                        };
                    }
                }
                Step::MergeSome(max_bytes) => {
                    tables.merge_some(max_bytes, || Turn::GoOn).expect("merged");
                }
                Step::MergeAll => tables.merge_all().expect("merged"),
                Step::Reopen => {
                    drop(tables);
                    tables = open(&dir);
                }
            }
            for key in asked.iter().chain(model.keys()) {
                prop_assert_eq!(get(&tables, key), model.get(key).cloned());
            }
            let from = model.range::<Key, _>((Bound::Included(&start), Bound::Unbounded));
            let expected: Vec<_> = from
                .filter(|(key, _)| key.starts_with(&prefix))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            let found: Vec<_> =
                tables.range(&start, &prefix).collect::<Result<_, _>>().expect("readable");
            prop_assert_eq!(found, expected);
        }
        prop_assert!(all(&tables).into_iter().eq(model));
    }
}

/// One thread adds and reads, and two merge.
#[test]
fn mergers_beside_additions_change_nothing() {
    let (_dir, dir) = place();
    let (tables, mut model) = (open(&dir), BTreeMap::new());
    let is_done = AtomicBool::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                tables.merge_all().expect("merged");
            }
        });
        scope.spawn(|| {
            let mut random = Random::new(8);
            while !is_done.load(Ordering::Relaxed) {
                tables.merge_some(random.next_u64() % 20_000, || Turn::GoOn).expect("merged");
            }
        });
        let mut random = Random::new(9);
        for round in 0..100_u32 {
            let entries: BTreeMap<Key, Option<Value>> = (0..30)
                .map(|_| {
                    let key = vec![u8::try_from(random.below(256)).expect("a byte")];
                    (key, (!random.one_in(3)).then(|| round.to_le_bytes().to_vec()))
                })
                .collect();
            add(&tables, &entries);
            for (key, value) in entries {
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
            for key in 0..=u8::MAX {
                assert_eq!(get(&tables, &[key]), model.get(&[key][..]).cloned());
            }
            assert!(all(&tables).into_iter().eq(model.clone()), "round {round}");
        }
        is_done.store(true, Ordering::Relaxed);
    });
    drop(tables);
    assert!(all(&open(&dir)).into_iter().eq(model));
}

/// Enough for blocks whose places are guessed.
#[test]
fn many_digests_are_found() {
    let (_dir, dir) = place();
    let tables = open(&dir);
    let mut random = Random::new(5);
    let mut entries: BTreeMap<Key, Option<Value>> = BTreeMap::new();
    for tag in *b"cdb" {
        for _ in 0..20_000 {
            let key = [&[tag][..], &random.incompressible(32)].concat();
            entries.insert(key, Some(random.incompressible(12)));
        }
    }
    entries.insert(b"v\x01a name".to_vec(), Some(b"x".to_vec()));
    add(&tables, &entries);
    for (key, value) in &entries {
        assert_eq!(get(&tables, key), *value);
        let mut absent = key.clone();
        *absent.last_mut().expect("it has bytes") ^= 1;
        assert_eq!(get(&tables, &absent), None);
    }
}

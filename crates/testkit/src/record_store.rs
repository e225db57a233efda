//! The conformance suite of [`RecordStore`].

use std::{collections::BTreeMap, sync::Arc, thread};

use bytes::Bytes;
use granary_castore::{
    BlobService as _, Castore as _, MemoryStore, RecordKind, RecordStore, RecordWrite,
};

use crate::{
    Random,
    checks::{self, checks},
};

/// Runs the suite, each check on a new, empty store from `make`.
///
/// # Panics
///
/// If a check fails, with the names of all that have.
pub fn run(make: &dyn Fn() -> Arc<dyn RecordStore>) {
    checks::run(
        "record_store",
        make,
        checks![
            absent_is_none,
            newest_wins,
            last_of_a_write_wins,
            deleted_is_gone,
            behind_a_batch,
            kinds_are_apart,
            any_bytes,
            scan_pages,
            scan_of_nothing,
            several_writers,
            like_a_map,
        ],
    );
}

type Store = Arc<dyn RecordStore>;

const KIND: RecordKind = RecordKind(200);
const OTHER: RecordKind = RecordKind(201);

fn set(kind: RecordKind, key: &[u8], value: &[u8]) -> RecordWrite {
    let value = Some(Bytes::copy_from_slice(value));
    RecordWrite { kind, key: Bytes::copy_from_slice(key), value }
}

fn delete(kind: RecordKind, key: &[u8]) -> RecordWrite {
    RecordWrite { kind, key: Bytes::copy_from_slice(key), value: None }
}

fn write(store: &Store, writes: Vec<RecordWrite>) {
    store.write_records(writes).expect("records are written");
}

fn get(store: &Store, kind: RecordKind, key: &[u8]) -> Option<Bytes> {
    store.record(kind, key).expect("the store answers")
}

/// All records of a kind, `page` at a time.
fn scan(store: &Store, kind: RecordKind, page: usize) -> Vec<(Bytes, Bytes)> {
    let mut all: Vec<(Bytes, Bytes)> = Vec::new();
    loop {
        let after = all.last().map(|(key, _)| key.clone());
        let found = store.scan_records(kind, after.as_deref(), page).expect("the store answers");
        assert!(found.len() <= page, "{} records for at most {page}", found.len());
        let is_last = found.len() < page;
        all.extend(found);
        if is_last {
            return all;
        }
    }
}

fn absent_is_none(store: &Store) {
    assert_eq!(get(store, KIND, b"absent"), None);
    write(store, vec![delete(KIND, b"absent")]);
    assert_eq!(get(store, KIND, b"absent"), None);
}

fn newest_wins(store: &Store) {
    for value in [&b"one"[..], b"two", b"", b"three"] {
        write(store, vec![set(KIND, b"key", value)]);
        assert_eq!(get(store, KIND, b"key").as_deref(), Some(value));
    }
    assert_eq!(scan(store, KIND, 10).len(), 1);
}

fn last_of_a_write_wins(store: &Store) {
    write(
        store,
        vec![
            set(KIND, b"set", b"1"),
            set(KIND, b"gone", b"1"),
            delete(KIND, b"back"),
            set(KIND, b"set", b"2"),
            delete(KIND, b"gone"),
            set(KIND, b"back", b"2"),
        ],
    );
    assert_eq!(get(store, KIND, b"set").as_deref(), Some(&b"2"[..]));
    assert_eq!(get(store, KIND, b"gone"), None);
    assert_eq!(get(store, KIND, b"back").as_deref(), Some(&b"2"[..]));
}

fn behind_a_batch(store: &Store) {
    // Of another store, which is committed all the same.
    let contents = MemoryStore::default();
    for value in [&b"one"[..], b"two"] {
        let mut batch = contents.batch().expect("memory takes writes");
        let digest = batch.put_blob(Bytes::from_static(value)).expect("memory takes writes");
        let writes = vec![set(KIND, b"key", value), delete(KIND, b"other")];
        store.commit_with_records(batch, writes).expect("both are written");
        assert!(contents.stat(&digest).expect("memory can be read").is_some());
        assert_eq!(get(store, KIND, b"key").as_deref(), Some(value));
    }
}

fn deleted_is_gone(store: &Store) {
    write(store, vec![set(KIND, b"a", b"1"), set(KIND, b"b", b"2")]);
    write(store, vec![delete(KIND, b"a")]);
    assert_eq!(get(store, KIND, b"a"), None);
    assert_eq!(scan(store, KIND, 10), [(Bytes::from_static(b"b"), Bytes::from_static(b"2"))]);
    write(store, vec![set(KIND, b"a", b"3")]);
    assert_eq!(get(store, KIND, b"a").as_deref(), Some(&b"3"[..]));
}

fn kinds_are_apart(store: &Store) {
    write(store, vec![set(KIND, b"key", b"one"), set(OTHER, b"key", b"other")]);
    assert_eq!(get(store, KIND, b"key").as_deref(), Some(&b"one"[..]));
    assert_eq!(get(store, OTHER, b"key").as_deref(), Some(&b"other"[..]));
    write(store, vec![delete(KIND, b"key")]);
    assert_eq!(get(store, OTHER, b"key").as_deref(), Some(&b"other"[..]));
    assert_eq!(scan(store, KIND, 10), []);
    assert_eq!(scan(store, OTHER, 10).len(), 1);
}

fn any_bytes(store: &Store) {
    let keys = [&[0][..], &[0, 0], &[0xff], &[0xff; 255], b"\x00\xff", b"a", b"a\x00"];
    let value = Random::new(31).incompressible(300_000);
    write(store, keys.iter().map(|key| set(KIND, key, key)).collect());
    write(store, vec![set(KIND, b"large", &value)]);
    for key in keys {
        assert_eq!(get(store, KIND, key).as_deref(), Some(key), "key {key:?}");
    }
    assert_eq!(get(store, KIND, b"large").as_deref(), Some(&value[..]));
    let found = scan(store, KIND, 2);
    assert!(found.is_sorted_by(|a, b| a.0 < b.0), "a scan goes in key order");
    assert_eq!(found.len(), keys.len() + 1);
}

fn scan_pages(store: &Store) {
    let mut expected = BTreeMap::new();
    let mut random = Random::new(32);
    for number in 0..500_usize {
        let (key, value) = (random.next_u64().to_be_bytes(), number.to_le_bytes());
        write(store, vec![set(KIND, &key, &value)]);
        expected.insert(Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
    }
    let expected: Vec<_> = expected.into_iter().collect();
    for page in [1, 7, 499, 500, 501] {
        assert!(scan(store, KIND, page) == expected, "{page} at a time");
    }
    // From a key that is not there.
    let found = store.scan_records(KIND, Some(&[0x80]), 3).expect("the store answers");
    let behind: Vec<_> =
        expected.iter().filter(|(key, _)| key[..] > [0x80][..]).take(3).cloned().collect();
    assert_eq!(found, behind);
}

fn scan_of_nothing(store: &Store) {
    assert_eq!(scan(store, KIND, 10), []);
    write(store, vec![set(KIND, b"key", b"value")]);
    let behind = store.scan_records(KIND, Some(b"key"), 10).expect("the store answers");
    assert_eq!(behind, []);
    let none = store.scan_records(KIND, None, 0).expect("the store answers");
    assert_eq!(none, []);
}

fn several_writers(store: &Store) {
    thread::scope(|scope| {
        for writer in 0..4_u8 {
            let store = Arc::clone(store);
            scope.spawn(move || {
                for number in 0..50 {
                    write(&store, vec![set(KIND, &[writer, number], &[number])]);
                    assert_eq!(
                        get(&store, KIND, &[writer, number]).as_deref(),
                        Some(&[number][..])
                    );
                }
            });
        }
    });
    assert_eq!(scan(store, KIND, 33).len(), 200);
}

/// Random writes, held against a map.
fn like_a_map(store: &Store) {
    let mut random = Random::new(33);
    let mut model = BTreeMap::new();
    for _ in 0..200 {
        let mut writes = Vec::new();
        for _ in 0..=random.below(5) {
            let key = vec![b'k', u8::try_from(random.below(40)).expect("small")];
            if random.one_in(3) {
                model.remove(&key[..]);
                writes.push(delete(KIND, &key));
            } else {
                let value = random.next_u64().to_le_bytes();
                writes.push(set(KIND, &key, &value));
                model.insert(Bytes::from(key), Bytes::copy_from_slice(&value));
            }
        }
        write(store, writes);
    }
    let expected: Vec<_> = model.into_iter().collect();
    assert!(scan(store, KIND, 11) == expected, "the store differs from the map");
}

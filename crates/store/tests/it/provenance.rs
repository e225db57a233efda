//! What answers are made of: every write that could change one is noticed, whenever it comes.

use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use granary_castore::{
    Error, MemoryStore, Node, RecordKind, RecordStore, RecordWrite, Result, SymlinkTarget,
};
use granary_store::{
    NarFacts, PathInfo, PathInfoService, Provenance, ServedPath, Store, StoreOptions, kinds,
};

use crate::support::{Tree, memory_store, path, path_info, put_tree};

/// What is served of path 1, and what that was made of.
fn served(store: &Store) -> (ServedPath, Provenance) {
    store.served_with_provenance(path(1, "it").hash()).expect("memory").expect("it is right")
}

/// A store that serves path 1, whose contents were read, with its path info.
fn store_with_path() -> (Store, MemoryStore, PathInfo) {
    let (store, memory) = memory_store(StoreOptions::default());
    let contents = put_tree(&memory, &Tree::file("contents"));
    let info = path_info(path(1, "it"), &contents);
    store.put_path_info(info.clone()).expect("memory");
    store.calculate_nar(&contents.node).expect("memory");
    (store, memory, info)
}

fn with_deriver(path_info: &PathInfo) -> PathInfo {
    let deriver = Some(path(3, "it.drv"));
    let nar = path_info.nar.clone().map(|facts| NarFacts { deriver, ..facts });
    PathInfo { nar, ..path_info.clone() }
}

#[test]
fn is_current_until_a_record_of_it_is_written() {
    let (store, _, info) = store_with_path();
    let (_, provenance) = served(&store);
    assert!(store.is_current(&provenance));
    store.put_path_info(with_deriver(&info)).expect("memory");
    assert!(!store.is_current(&provenance));
    let (after, provenance) = served(&store);
    assert_eq!(after.deriver, Some(path(3, "it.drv")));
    assert!(store.is_current(&provenance));

    store.remember_nar(&info.node, &after.nar).expect("memory");
    assert!(!store.is_current(&provenance), "its size and hash were written");
}

#[test]
fn what_else_is_written_leaves_most_as_they_are() {
    let (store, memory) = memory_store(StoreOptions::default());
    let put = |byte: u8| {
        let contents = put_tree(&memory, &Tree::file([byte]));
        store.put_path_info(path_info(path(byte, "it"), &contents)).expect("memory");
        store.calculate_nar(&contents.node).expect("memory");
    };
    (0..100).for_each(put);
    let provenance = |byte| store.served_with_provenance(path(byte, "it").hash()).expect("memory");
    let provenances: Vec<Provenance> =
        (0..100).map(|byte| provenance(byte).expect("it is right").1).collect();
    (100..200).for_each(put);
    // Some share a generation with what was written, by chance.
    let current = provenances.iter().filter(|provenance| store.is_current(provenance)).count();
    assert!(current > 50, "{current} of 100");
}

#[test]
fn a_deleted_record_is_a_written_one() {
    for kind in [kinds::PATH_INFO, kinds::NAR_DIGEST] {
        let (store, _, _) = store_with_path();
        let (_, provenance) = served(&store);
        let records = store.records();
        let page = records.scan_records(kind, None, 2).expect("memory");
        let [(key, _)] = &page[..] else { panic!("one record of each") };
        let write = RecordWrite { kind, key: key.clone(), value: None };
        records.write_records(vec![write]).expect("memory");
        assert!(!store.is_current(&provenance), "{kind:?}");
    }
}

#[test]
fn a_nar_is_had_at_once_until_what_is_remembered_of_it_is_written() {
    let (store, _, info) = store_with_path();
    let other = Node::Symlink { target: SymlinkTarget::new(&b"target"[..]).expect("a target") };
    let planned = |node: &Node| store.planned_nar(node).expect("memory").expect("it is stored");
    let now = |node: &Node| store.planned_nar_now(node).map(|(nar, plan)| (nar, plan.nar_size()));
    for node in [&info.node, &other] {
        assert_eq!(now(node), None, "nobody asked for it");
    }
    let (nar, plan) = planned(&info.node);
    assert_eq!(Some(nar), store.calculate_nar(&info.node).expect("memory"));
    assert_eq!(now(&info.node), Some((nar, plan.nar_size())));

    store.remember_nar(&info.node, &nar).expect("memory");
    assert_eq!(now(&info.node), None, "it was written");
    assert_eq!(planned(&info.node).0, nar);
    assert!(now(&info.node).is_some());

    let records = store.records();
    for (key, _) in records.scan_records(kinds::NAR_DIGEST, None, 10).expect("memory") {
        let write = RecordWrite { kind: kinds::NAR_DIGEST, key, value: None };
        records.write_records(vec![write]).expect("memory");
    }
    assert_eq!(now(&info.node), None, "it was removed, and what it was of may be gone");
    // What has to be read anew is remembered then, which is a write too.
    assert_eq!(planned(&info.node).0, nar);
    assert_eq!(now(&info.node), None);
    assert_eq!(planned(&info.node).0, nar);
    assert!(now(&info.node).is_some());
}

#[test]
fn names_that_were_looked_up_are_part_of_it() {
    let (store, memory, _) = store_with_path();
    let contents = put_tree(&memory, &Tree::file("contents"));
    let reference = path_info(path(2, "other"), &contents);
    let info = PathInfo {
        references: vec![*path(2, "other").hash()],
        nar: None,
        ..path_info(path(1, "it"), &contents)
    };
    store.put_path_info(reference).expect("memory");
    store.put_path_info(info).expect("memory");
    let (before, provenance) = served(&store);
    assert_eq!(before.references, [path(2, "other")]);
    assert!(store.is_current(&provenance));
    store.put_path_info(path_info(path(2, "renamed"), &contents)).expect("memory");
    assert!(!store.is_current(&provenance));
    assert_eq!(served(&store).0.references, [path(2, "renamed")]);
}

#[test]
fn contents_read_for_the_answer_are_proved_for_the_next() {
    let (store, memory) = memory_store(StoreOptions::default());
    let contents = put_tree(&memory, &Tree::file("contents"));
    store.put_path_info(path_info(path(1, "it"), &contents)).expect("memory");
    let ((first, unproved), (second, proved)) = (served(&store), served(&store));
    assert_eq!(first, second);
    assert!(!store.is_current(&unproved), "the proof was written for it");
    assert!(store.is_current(&proved));
}

#[test]
fn what_cannot_be_proved_for_the_next_is_served_all_the_same() {
    let records = Arc::new(Eventful::default());
    let castore = Arc::new(records.memory.clone());
    let store = Store::new(castore, records.clone(), StoreOptions::default());
    let contents = put_tree(&records.memory, &Tree::file("contents"));
    store.put_path_info(path_info(path(1, "it"), &contents)).expect("memory");
    records.is_full.store(true, Ordering::Relaxed);
    let (first, _) = served(&store);
    assert!(store.put_path_info(path_info(path(2, "other"), &contents)).is_err());
    assert!(!store.is_current(&served(&store).1), "nothing was kept");
    records.is_full.store(false, Ordering::Relaxed);
    assert_eq!(served(&store).0, first);
    assert!(store.is_current(&served(&store).1));
}

/// What happens while a record is read or written.
type Event = Box<dyn FnOnce(&Store) + Send>;

/// Records in memory, and what happens at the worst moment: between the two, once.
#[derive(Default)]
struct Eventful {
    memory: MemoryStore,
    store: Mutex<Weak<Store>>,
    /// After a path info was read, and before the reader has it.
    behind_read: Mutex<Option<Event>>,
    /// Before what is written can be read.
    before_write: Mutex<Option<Event>>,
    /// Once it can, and before the writer knows.
    behind_write: Mutex<Option<Event>>,
    /// Whether it takes no writes, as on a full disk.
    is_full: AtomicBool,
}

impl Eventful {
    fn happen(&self, event: &Mutex<Option<Event>>) {
        let event = event.lock().expect("not poisoned").take();
        let store = self.store.lock().expect("not poisoned").upgrade();
        if let (Some(event), Some(store)) = (event, store) {
            event(&store);
        }
    }
}

impl RecordStore for Eventful {
    fn record(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.memory.record(kind, key);
        if kind == kinds::PATH_INFO {
            self.happen(&self.behind_read);
        }
        value
    }

    fn write_records(&self, writes: Vec<RecordWrite>) -> Result<()> {
        self.happen(&self.before_write);
        if self.is_full.load(Ordering::Relaxed) {
            return Err(Error::unavailable("the disk is full"));
        }
        self.memory.write_records(writes)?;
        self.happen(&self.behind_write);
        Ok(())
    }

    fn scan_records(
        &self,
        kind: RecordKind,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        self.memory.scan_records(kind, after, limit)
    }
}

/// As [`store_with_path`], over records in which things can be made to happen.
fn eventful_store_with_path() -> (Arc<Store>, Arc<Eventful>, PathInfo) {
    let records = Arc::new(Eventful::default());
    let castore = Arc::new(records.memory.clone());
    let store = Arc::new(Store::new(castore, records.clone(), StoreOptions::default()));
    *records.store.lock().expect("not poisoned") = Arc::downgrade(&store);
    let contents = put_tree(&records.memory, &Tree::file("contents"));
    let info = path_info(path(1, "it"), &contents);
    store.put_path_info(info.clone()).expect("memory");
    store.calculate_nar(&contents.node).expect("memory");
    (store, records, info)
}

fn set(event: &Mutex<Option<Event>>, what: impl FnOnce(&Store) + Send + 'static) {
    *event.lock().expect("not poisoned") = Some(Box::new(what));
}

#[test]
fn a_write_behind_the_reader_is_noticed() {
    let (store, records, info) = eventful_store_with_path();
    let newer = with_deriver(&info);
    set(&records.behind_read, move |store| {
        store.put_path_info(newer).expect("memory");
    });
    let (old, provenance) = served(&store);
    assert_eq!(old.deriver, None, "it was read before");
    assert!(!store.is_current(&provenance), "the old answer would stay");
    assert!(store.is_current(&served(&store).1));
}

#[test]
fn nothing_is_current_while_it_is_written() {
    let (store, records, info) = eventful_store_with_path();
    let (_, before) = served(&store);
    let meanwhile = Arc::new(Mutex::new(Vec::new()));
    for (event, deriver) in
        [(&records.before_write, None), (&records.behind_write, Some(path(3, "it.drv")))]
    {
        let (before, meanwhile) = (before.clone(), Arc::clone(&meanwhile));
        set(event, move |store| {
            let (answer, provenance) = served(store);
            assert_eq!(answer.deriver, deriver);
            assert!(!store.is_current(&before), "the new record can be there at any time");
            assert!(!store.is_current(&provenance), "it may be made of the old record");
            meanwhile.lock().expect("not poisoned").push(provenance);
        });
    }
    store.put_path_info(with_deriver(&info)).expect("memory");
    let meanwhile = meanwhile.lock().expect("not poisoned");
    assert_eq!(meanwhile.len(), 2, "both happened");
    for provenance in meanwhile.iter().chain([&before]) {
        assert!(!store.is_current(provenance), "it was made before the end of the write");
    }
    assert!(store.is_current(&served(&store).1));
}

#[test]
fn of_two_writes_both_must_have_ended() {
    let (store, records, info) = eventful_store_with_path();
    let (first, second) = (with_deriver(&info), info);
    set(&records.behind_write, move |store| {
        // A whole write within the first one.
        store.put_path_info(second).expect("memory");
        assert!(!store.is_current(&served(store).1), "the first one has not ended");
    });
    store.put_path_info(first).expect("memory");
    assert!(store.is_current(&served(&store).1));
}

//! The conformance suite of directories:
//! [`DirectoryService`](granary_castore::DirectoryService), and what a
//! [`WriteBatch`](granary_castore::WriteBatch) does with them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use granary_castore::{
    BlobDigest, Castore, Directory, DirectoryDigest, Error, MAX_NAME_BYTES, MAX_TARGET_BYTES, Node,
    NodeName, Result, SymlinkTarget,
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
pub fn run(make: &dyn Fn() -> Arc<dyn Castore>) {
    checks::run(
        "directory_service",
        make,
        checks![
            absent_is_none,
            empty_directory,
            every_kind_of_entry,
            odd_names,
            many_entries,
            deep_nesting,
            same_directory_twice,
            child_of_an_earlier_batch,
            several_roots,
            closure_order,
            missing_child,
            dropped_batch,
        ],
    );
}

type Store = Arc<dyn Castore>;

fn name(bytes: &[u8]) -> NodeName {
    NodeName::new(bytes.to_vec()).expect("a valid name")
}

fn link(target: &[u8]) -> Node {
    Node::Symlink { target: SymlinkTarget::new(target.to_vec()).expect("a valid target") }
}

fn file(contents: &[u8], executable: bool) -> Node {
    Node::File { digest: BlobDigest::of(contents), size_bytes: contents.len() as u64, executable }
}

fn node(directory: &Directory) -> Node {
    Node::Directory { digest: directory.digest(), size: directory.size() }
}

fn directory(entries: Vec<(NodeName, Node)>) -> Directory {
    Directory::new(entries).expect("a valid directory")
}

/// A directory that differs from all of another `text`.
fn leaf(text: &str) -> Directory {
    directory(vec![(name(b"leaf"), link(text.as_bytes()))])
}

/// Puts directories, children first.
fn put(store: &Store, directories: &[Directory]) {
    try_put(store, directories).expect("a batch is committed");
}

fn try_put(store: &Store, directories: &[Directory]) -> Result<()> {
    let mut batch = store.batch()?;
    for directory in directories {
        let digest = batch.put_directory(directory)?;
        assert_eq!(digest, directory.digest(), "the digest is that of the canonical encoding");
    }
    batch.commit()
}

fn get(store: &Store, digest: &DirectoryDigest) -> Option<Directory> {
    store.directory(digest).expect("the store answers")
}

fn assert_stored(store: &Store, directory: &Directory) {
    let stored = get(store, &directory.digest()).expect("the directory is stored");
    assert!(stored == *directory, "directory {} came back as another", directory.digest());
}

fn closure(store: &Store, root: &Directory) -> Vec<Directory> {
    let read: Result<_> = store.closure(&root.digest()).collect();
    read.expect("the closure is complete")
}

fn absent_is_none(store: &Store) {
    let absent = leaf("absent").digest();
    assert!(get(store, &absent).is_none());
    assert_eq!(store.closure(&absent).count(), 0, "the closure of nothing is empty");
}

fn empty_directory(store: &Store) {
    let empty = Directory::default();
    put(store, std::slice::from_ref(&empty));
    assert_stored(store, &empty);
    assert_eq!(closure(store, &empty), [empty]);
}

fn every_kind_of_entry(store: &Store) {
    let below = leaf("below");
    let parent = directory(vec![
        (name(b"directory"), node(&below)),
        (name(b"empty"), file(b"", false)),
        (name(b"executable"), file(b"#!/bin/sh\n", true)),
        (name(b"file"), file(b"contents", false)),
        (name(b"link"), link(b"/nix/store/somewhere")),
    ]);
    put(store, &[below.clone(), parent.clone()]);
    assert_stored(store, &below);
    assert_stored(store, &parent);
}

fn odd_names(store: &Store) {
    let parent = directory(vec![
        (name(b"\xff\xfe not UTF-8"), link(b"\xff\x80 neither")),
        (name(b"\x01\n\t \\\"'"), file(b"", true)),
        (name(&[b'n'; MAX_NAME_BYTES]), link(&[b't'; MAX_TARGET_BYTES])),
        (name("schön".as_bytes()), file(b"x", false)),
        (name(b"..."), file(b"y", false)),
        (name(b"-"), link(b".")),
    ]);
    put(store, std::slice::from_ref(&parent));
    assert_stored(store, &parent);
}

fn many_entries(store: &Store) {
    let mut random = Random::new(21);
    let entries = (0..10_000).map(|number| {
        let name = name(format!("{:x}-{number}", random.next_u64()).as_bytes());
        let node = match number % 3 {
            0 => link(format!("../{number}").as_bytes()),
            _ => file(&random.next_u64().to_le_bytes(), number % 2 == 0),
        };
        (name, node)
    });
    let parent = directory(entries.collect());
    put(store, std::slice::from_ref(&parent));
    assert_stored(store, &parent);
}

fn deep_nesting(store: &Store) {
    let mut directories = vec![leaf("the bottom")];
    for _ in 0..500 {
        let below = directories.last().expect("there is one");
        directories.push(directory(vec![(name(b"d"), node(below))]));
    }
    put(store, &directories);
    directories.reverse();
    assert_eq!(directories[0].size(), 501);
    assert!(closure(store, &directories[0]) == directories, "the closure is the whole chain");
}

fn same_directory_twice(store: &Store) {
    let below = leaf("twice");
    let parent = directory(vec![(name(b"a"), node(&below)), (name(b"b"), node(&below))]);
    put(store, &[below.clone(), below.clone(), parent.clone(), parent.clone()]);
    put(store, &[below.clone(), parent.clone()]);
    assert_eq!(closure(store, &parent), [parent, below]);
}

fn child_of_an_earlier_batch(store: &Store) {
    let below = leaf("earlier");
    let middle = directory(vec![(name(b"below"), node(&below))]);
    put(store, &[below.clone(), middle.clone()]);
    let parent = directory(vec![(name(b"a"), node(&middle)), (name(b"b"), node(&below))]);
    put(store, std::slice::from_ref(&parent));
    assert_eq!(closure(store, &parent), [parent, middle, below]);
}

fn several_roots(store: &Store) {
    let shared = leaf("shared");
    let roots: Vec<_> = (0..20)
        .map(|number: u32| {
            let own = file(&number.to_le_bytes(), false);
            directory(vec![(name(b"own"), own), (name(b"shared"), node(&shared))])
        })
        .collect();
    let mut all = vec![shared.clone()];
    all.extend(roots.iter().cloned());
    put(store, &all);
    for root in roots {
        assert_eq!(closure(store, &root), [root, shared.clone()]);
    }
}

/// Directories of which many are shared, children first; the last is the root.
fn tangle() -> Vec<Directory> {
    let mut random = Random::new(22);
    let mut directories = vec![leaf("a"), leaf("b"), Directory::default()];
    for number in 0..60_usize {
        let mut entries = vec![(name(format!("own-{number}").as_bytes()), link(b"x"))];
        for entry in 0..=random.below(4) {
            let child = &directories[random.below(directories.len())];
            entries.push((name(format!("d{entry}").as_bytes()), node(child)));
        }
        directories.push(directory(entries));
    }
    let all = directories.iter().enumerate().map(|(number, child)| {
        // In another order than they were made in.
        (name(format!("{:02}", number * 37 % 64).as_bytes()), node(child))
    });
    let root = directory(all.collect());
    directories.push(root);
    directories
}

fn closure_order(store: &Store) {
    let directories = tangle();
    put(store, &directories);
    let by_digest: HashMap<_, _> =
        directories.iter().map(|directory| (directory.digest(), directory)).collect();
    for root in directories.iter().rev().take(5) {
        let mut expected = Vec::new();
        let mut seen = HashSet::from([root.digest()]);
        let mut waiting = VecDeque::from([root.digest()]);
        while let Some(digest) = waiting.pop_front() {
            let directory = by_digest[&digest];
            expected.push(directory.clone());
            waiting
                .extend(directory.children().map(|(child, _)| child).filter(|c| seen.insert(*c)));
        }
        assert!(closure(store, root) == expected, "not breadth first, each distinct one once");
    }
}

fn missing_child(store: &Store) {
    let parent = directory(vec![(name(b"child"), node(&leaf("never stored")))]);
    match try_put(store, std::slice::from_ref(&parent)) {
        Ok(()) => {
            assert_stored(store, &parent);
            let read: Vec<_> = store.closure(&parent.digest()).collect();
            let ends_in_error = read.last().is_some_and(Result::is_err);
            assert!(ends_in_error, "a closure with a hole ended without an error");
            assert_eq!(read.iter().filter(|read| read.is_err()).count(), 1);
        }
        // Over the wire, a directory comes with all that is below it or not at all.
        Err(error) => {
            assert!(matches!(error, Error::Invalid(_)), "refused with {error:?}");
            assert!(get(store, &parent.digest()).is_none(), "refused and stored");
        }
    }
}

fn dropped_batch(store: &Store) {
    let (dropped, kept) = (leaf("dropped"), leaf("kept"));
    put(store, std::slice::from_ref(&kept));
    let mut batch = store.batch().expect("a batch");
    batch.put_directory(&dropped).expect("a directory is taken");
    batch.put_directory(&kept).expect("a directory is taken");
    drop(batch);
    assert_stored(store, &kept);
    assert!(get(store, &dropped.digest()).is_none_or(|stored| stored == dropped));
    put(store, std::slice::from_ref(&dropped));
    assert_stored(store, &dropped);
}

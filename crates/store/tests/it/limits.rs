//! Trees that are small to upload and without end to render.

use granary_castore::{Castore, Directory, Error, MemoryStore, Node, NodeName, Result};
use granary_store::{MAX_PLAN_BYTES, MAX_TREE_ENTRIES, NarPlan, StoreOptions};

use crate::support::memory_store;

fn node_of(directory: &Directory) -> Node {
    Node::Directory { digest: directory.digest(), size: directory.size() }
}

/// `levels` directories in each other, each holding the one below under all of `names`.
fn nested(memory: &MemoryStore, levels: usize, names: &[&str]) -> Node {
    let mut batch = memory.batch().expect("memory");
    let mut directory = Directory::default();
    batch.put_directory(&directory).expect("memory");
    for _ in 1..levels {
        let entries = names.iter().map(|name| {
            (NodeName::new(name.as_bytes().to_vec()).expect("a valid name"), node_of(&directory))
        });
        directory = Directory::new(entries.collect()).expect("no overflow");
        batch.put_directory(&directory).expect("memory");
    }
    batch.commit().expect("memory");
    node_of(&directory)
}

fn plan(memory: &MemoryStore, node: &Node) -> Result<Option<NarPlan>> {
    NarPlan::new(memory, node)
}

#[test]
fn shared_directories_are_counted_each_time() {
    let memory = MemoryStore::default();
    let small = nested(&memory, 10, &["a", "b"]);
    assert!(plan(&memory, &small).expect("a thousand entries").is_some());
    let endless = nested(&memory, 60, &["a", "b"]);
    let Node::Directory { size, .. } = endless else { panic!("a directory") };
    assert!(size > MAX_TREE_ENTRIES);
    assert!(matches!(plan(&memory, &endless), Err(Error::TooLarge(_))));
    let (store, _) = memory_store(StoreOptions::default());
    assert!(matches!(store.plan(&endless), Err(Error::TooLarge(_))), "it need not be stored");
}

#[test]
fn depth_is_bounded_without_a_stack() {
    let memory = MemoryStore::default();
    let deepest = nested(&memory, granary_nix_formats::nar::MAX_DEPTH, &["d"]);
    let planned = plan(&memory, &deepest).expect("as deep as can be").expect("stored");
    assert!(planned.nar_size() > 0);
    let deeper = nested(&memory, granary_nix_formats::nar::MAX_DEPTH + 1, &["d"]);
    assert!(matches!(plan(&memory, &deeper), Err(Error::TooLarge(_))));
}

/// Few entries in the store, and many with long names in the NAR.
#[test]
fn a_plan_is_bounded_in_bytes() {
    let memory = MemoryStore::default();
    let (a, b) = ("a".repeat(255), "b".repeat(255));
    let large = nested(&memory, 21, &[&a, &b]);
    let Node::Directory { size, .. } = large else { panic!("a directory") };
    assert!(size < MAX_TREE_ENTRIES, "it is not for the entries");
    let error = plan(&memory, &large).map(drop).expect_err("its literals are too long");
    assert!(matches!(error, Error::TooLarge(_)), "{error}");
    assert!(error.to_string().contains(&MAX_PLAN_BYTES.to_string()), "{error}");
}

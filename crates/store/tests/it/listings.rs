//! Listings of stored trees.

use granary_castore::{Error, MemoryStore, Node};
use granary_nix_formats::ListingNode;
use granary_store::StoreOptions;

use crate::{
    nix::Nix,
    support::{Tree, memory_store, put_tree, render},
};

fn tree() -> Tree {
    let inner = Tree::directory([
        ("b", Tree::File { executable: true, contents: b"contents of b".into() }),
        ("empty", Tree::file("")),
    ]);
    Tree::directory([
        ("a", Tree::file("contents of a")),
        ("d", inner),
        ("l", Tree::Symlink(b"d/b".into())),
    ])
}

#[test]
fn is_that_of_nix() {
    let (store, memory) = memory_store(StoreOptions::default());
    let contents = put_tree(&memory, &tree());
    let listing = store.listing(&contents.node).expect("memory").expect("complete");
    let parent = tempfile::TempDir::new().expect("a temporary directory");
    let path = parent.path().join("tree.nar");
    std::fs::write(&path, tree().nar()).expect("a file");
    let json = Nix::new().run_without_store("nix", &[&"nar", &"ls", &"--json", &"-R", &path, &"/"]);
    let of_nix: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(serde_json::to_value(&listing.root).expect("JSON"), of_nix);
}

#[test]
fn offsets_are_where_the_contents_are() {
    let (store, memory) = memory_store(StoreOptions::default());
    let contents = put_tree(&memory, &tree());
    let nar = render(&store, &contents.node);
    let listing = store.listing(&contents.node).expect("memory").expect("complete");
    let ListingNode::Directory { entries } = listing.root else { panic!("a directory") };
    let ListingNode::Directory { entries } = &entries["d"] else { panic!("a directory") };
    let ListingNode::Regular { executable: true, nar_offset: Some(offset), size: 13 } =
        entries["b"]
    else {
        panic!("an executable file: {entries:?}")
    };
    let start = usize::try_from(offset).expect("a small NAR");
    assert_eq!(&nar[start..start + 13], b"contents of b");
}

#[test]
fn names_must_be_utf8_and_directories_stored() {
    let (store, memory) = memory_store(StoreOptions::default());
    for tree in [
        Tree::directory([(b"\xff".to_vec(), Tree::file(""))]),
        Tree::directory([("l", Tree::Symlink(b"\xff".to_vec()))]),
    ] {
        let contents = put_tree(&memory, &tree);
        assert!(matches!(store.listing(&contents.node), Err(Error::Invalid(_))));
    }
    let absent = put_tree(&MemoryStore::default(), &tree());
    assert!(matches!(absent.node, Node::Directory { .. }));
    assert_eq!(store.listing(&absent.node).expect("memory"), None);
}

//! The fixtures as stock Nix sees them.

use granary_nix_formats::StorePath;
use granary_testkit::{closure::SyntheticClosure, nix::Nix};

#[test]
fn nix_copies_from_the_synthetic_cache() {
    let closure = SyntheticClosure::with_odd_names(7, 12);
    let directory = tempfile::tempdir().expect("a directory");
    closure.write_binary_cache(directory.path()).expect("a binary cache");
    let nix = Nix::new();
    let url = format!("file://{}", directory.path().display());
    nix.copy_from(&url, &[closure.root().store_path.absolute()]);

    let mut expected: Vec<_> =
        closure.paths().iter().map(|path| path.store_path.absolute()).collect();
    expected.sort_unstable();
    assert_eq!(nix.list(), expected, "the root refers to all, directly or not");
    for path in closure.paths() {
        let store_path = path.store_path.absolute();
        assert!(nix.dump_store_path(&store_path) == path.tree.to_nar(), "{store_path} differs");
        let references: Vec<_> = path.references.iter().map(StorePath::absolute).collect();
        assert_eq!(nix.references(&store_path), references);
    }
}

#[test]
fn nix_adds_and_dumps_the_synthetic_trees() {
    let closure = SyntheticClosure::new(8, 3);
    let directory = tempfile::tempdir().expect("a directory");
    closure.write_trees(directory.path()).expect("trees");
    let nix = Nix::new();
    for path in closure.paths() {
        let on_disk = directory.path().join(path.store_path.base_name());
        let nar = path.tree.to_nar();
        assert!(nix.dump(&on_disk) == nar, "{} differs", on_disk.display());
        let added = nix.add(&on_disk);
        assert!(nix.dump_store_path(&added) == nar, "{added} differs");
    }
}

//! Path infos by hash part, one and all.

use granary_nix_formats::StorePathHash;
use granary_store::{PathInfo, PathInfoService, StoreOptions};

use crate::support::{Tree, memory_store, path, path_info, put_tree};

#[test]
fn the_newest_is_kept() {
    let (store, memory) = memory_store(StoreOptions::default());
    let first = path_info(path(1, "it"), &put_tree(&memory, &Tree::file("first")));
    let second = path_info(path(1, "it"), &put_tree(&memory, &Tree::file("second")));
    for info in [first, second] {
        assert_eq!(store.put_path_info(info.clone()).expect("memory"), info);
        assert_eq!(store.path_info(info.store_path.hash()).expect("memory"), Some(info));
    }
    assert_eq!(store.path_info(path(2, "it").hash()).expect("memory"), None);
    assert_eq!(store.path_infos().count(), 1);
}

/// More than are read from the records at a time, and exactly as many.
#[test]
fn all_are_listed_in_order() {
    let (store, memory) = memory_store(StoreOptions::default());
    let contents = put_tree(&memory, &Tree::file("contents"));
    let mut hashes = Vec::new();
    for number in 0..2_500_u16 {
        let mut bytes = [0; 20];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        let hash = StorePathHash::from_bytes(bytes);
        let store_path = granary_nix_formats::StorePath::new(hash, "it").expect("a valid name");
        hashes.push(hash);
        if number == 1_000 || number == 2_000 {
            assert_eq!(listed(store.path_infos().collect()), hashes[..hashes.len() - 1]);
        }
        store.put_path_info(path_info(store_path, &contents)).expect("memory");
    }
    assert_eq!(listed(store.path_infos().collect()), hashes);
    assert_eq!(listed(store.path_infos_after(None, 3)), hashes[..3]);
    assert_eq!(listed(store.path_infos_after(Some(&hashes[9]), 2)), hashes[10..12]);
    assert_eq!(listed(store.path_infos_after(Some(&hashes[2_498]), 9)), hashes[2_499..]);
}

fn listed(path_infos: granary_castore::Result<Vec<PathInfo>>) -> Vec<StorePathHash> {
    let path_infos = path_infos.expect("memory");
    path_infos.iter().map(|path_info| *path_info.store_path.hash()).collect()
}

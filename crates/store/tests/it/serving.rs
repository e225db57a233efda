//! What is served to Nix, and what is not.

use std::sync::Arc;

use granary_castore::{Error, MemoryStore};
use granary_nix_formats::{NarHash, NarInfo, SigningKey, fingerprint};
use granary_store::{NarFacts, PathInfo, PathInfoService, ServedPath, Store, StoreOptions};

use crate::support::{Tree, memory_store, path, path_info, put_tree};

fn signing() -> StoreOptions {
    let key = SigningKey::generate("test-1", [7; 32]).expect("a valid name");
    StoreOptions { signing_key: Some(key) }
}

fn facts(path_info: &mut PathInfo) -> &mut NarFacts {
    path_info.nar.as_mut().expect("it has them")
}

/// What is served after `change` to the right path info.
fn served_after(change: impl FnOnce(&mut PathInfo)) -> Option<ServedPath> {
    let (store, memory) = memory_store(StoreOptions::default());
    let contents = put_tree(&memory, &Tree::directory([("f", Tree::file("contents"))]));
    let mut path_info = path_info(path(1, "it"), &contents);
    change(&mut path_info);
    store.put_path_info(path_info).expect("memory");
    store.served(path(1, "it").hash()).expect("memory")
}

#[test]
fn what_is_right_is_served_as_it_came() {
    let (store, memory) = memory_store(signing());
    let contents = put_tree(&memory, &Tree::file("contents"));
    let mut info = path_info(path(1, "it"), &contents);
    info.references = vec![*path(2, "other").hash(), *path(1, "it").hash()];
    let other_key = SigningKey::generate("other", [8; 32]).expect("a valid name");
    let theirs = other_key.sign(b"whatever they signed");
    facts(&mut info).reference_names = vec![path(2, "other"), path(1, "it")];
    facts(&mut info).signatures = vec![theirs.clone()];
    facts(&mut info).deriver = Some(path(3, "it.drv"));
    store.put_path_info(info.clone()).expect("memory");
    assert_eq!(store.path_info(info.store_path.hash()).expect("memory"), Some(info.clone()));

    let served = store.served(info.store_path.hash()).expect("memory").expect("it is right");
    assert_eq!(served.nar, contents.nar);
    assert_eq!(served.references, facts(&mut info).reference_names);
    let key = store.public_key().expect("there is one");
    let [first, ours] = &served.signatures[..] else { panic!("two signatures") };
    assert_eq!(*first, theirs);
    let (hash, size) = (&contents.nar.nar_hash, contents.nar.nar_size);
    let message = fingerprint(&served.store_path, hash, size, &served.references);
    assert!(key.verify(message.as_bytes(), ours));

    let narinfo = served.narinfo("nar/x".to_owned());
    let parsed = NarInfo::parse(&narinfo.to_string()).expect("a narinfo");
    assert_eq!(parsed, narinfo);
    assert_eq!(parsed.fingerprint(), message);
    assert_eq!((parsed.file_hash, parsed.file_size), (Some(*hash), Some(size)));
    assert_eq!(parsed.deriver, Some(path(3, "it.drv")));

    // Our own signature, when it comes back, is not there twice; what only says that it is
    // ours is not there at all.
    facts(&mut info).signatures.push(ours.clone());
    let forged = SigningKey::generate("test-1", [9; 32]).expect("a valid name").sign(b"x");
    facts(&mut info).signatures.push(forged);
    store.put_path_info(info).expect("memory");
    let again = store.served(served.store_path.hash()).expect("memory").expect("it is right");
    assert_eq!(again.signatures, served.signatures);
}

#[test]
fn what_is_wrong_is_not_served() {
    assert!(served_after(|_| {}).is_some());
    assert!(served_after(|info| facts(info).nar_size += 1).is_none());
    // A content address that the store path does not follow from.
    let wrong_address = |info: &mut PathInfo| {
        let address = "fixed:r:sha256:0000000000000000000000000000000000000000000000000000";
        facts(info).ca = Some(address.parse().expect("a content address"));
    };
    assert!(served_after(wrong_address).is_none());
    assert!(served_after(|info| facts(info).nar_hash = NarHash::from_bytes([0; 32])).is_none());
    // Who does not know the size may still say a hash, and be wrong.
    let wrong_hash = |info: &mut PathInfo| {
        facts(info).nar_size = 0;
        facts(info).nar_hash = NarHash::from_bytes([1; 32]);
    };
    assert!(served_after(wrong_hash).is_none());
    let wrong_node_size = |info: &mut PathInfo| {
        let granary_castore::Node::Directory { size, .. } = &mut info.node else { return };
        *size += 1;
    };
    assert!(served_after(wrong_node_size).is_none());
    let endless = |info: &mut PathInfo| {
        let granary_castore::Node::Directory { size, .. } = &mut info.node else { return };
        *size = u64::MAX;
    };
    assert!(served_after(endless).is_none());
}

#[test]
fn what_is_not_said_is_filled_in() {
    let right = served_after(|_| {}).expect("it is right");
    let unknown_size = |info: &mut PathInfo| {
        facts(info).nar_size = 0;
        facts(info).nar_hash = NarHash::from_bytes([0; 32]);
    };
    assert_eq!(served_after(unknown_size), Some(right.clone()));
    assert_eq!(served_after(|info| facts(info).nar_size = 0), Some(right.clone()));
    assert_eq!(served_after(|info| info.nar = None), Some(right));
}

#[test]
fn contents_may_come_later() {
    let (store, memory) = memory_store(StoreOptions::default());
    let tree = Tree::directory([("f", Tree::file("contents"))]);
    let contents = put_tree(&MemoryStore::default(), &tree);
    let info = path_info(path(1, "it"), &contents);
    store.put_path_info(info.clone()).expect("memory");
    assert_eq!(store.served(info.store_path.hash()).expect("memory"), None);
    put_tree(&memory, &tree);
    assert!(store.served(info.store_path.hash()).expect("memory").is_some());
}

#[test]
fn references_without_names_are_looked_up() {
    let (store, memory) = memory_store(StoreOptions::default());
    let contents = put_tree(&memory, &Tree::file("contents"));
    let mut info = path_info(path(1, "it"), &contents);
    info.references = vec![*path(2, "other").hash(), *path(1, "it").hash()];
    info.nar = None;
    store.put_path_info(info.clone()).expect("memory");
    assert_eq!(store.served(info.store_path.hash()).expect("memory"), None);
    store.put_path_info(path_info(path(2, "other"), &contents)).expect("memory");
    let served = store.served(info.store_path.hash()).expect("memory").expect("now they are");
    assert_eq!(served.references, [path(2, "other"), path(1, "it")]);
}

#[test]
fn contents_are_read_once() {
    let (store, memory) = memory_store(StoreOptions::default());
    let contents = put_tree(&memory, &Tree::file("contents"));
    let info = path_info(path(1, "it"), &contents);
    store.put_path_info(info.clone()).expect("memory");
    let served = store.served(info.store_path.hash()).expect("memory");
    assert!(served.is_some());
    // The same records over a castore that holds nothing: reading would find that out.
    let empty = Arc::new(MemoryStore::default());
    let store = Store::new(empty, Arc::new(memory), StoreOptions::default());
    assert_eq!(store.served(info.store_path.hash()).expect("memory"), served);
}

#[test]
fn damage_is_an_error_and_not_an_absence() {
    use granary_castore::{RecordStore, RecordWrite};
    let (store, memory) = memory_store(StoreOptions::default());
    let hash = *path(1, "it").hash();
    let write = RecordWrite {
        kind: granary_store::kinds::PATH_INFO,
        key: hash.as_bytes().to_vec().into(),
        value: Some(br#"{"v":2}"#.to_vec().into()),
    };
    memory.write_records(vec![write]).expect("memory");
    assert!(matches!(store.served(&hash), Err(Error::Corrupt(_))));
    assert!(matches!(store.path_infos().next(), Some(Err(Error::Corrupt(_)))));
}

//! The conformance suite of [`PathInfoService`].

use std::sync::Arc;

use granary_castore::{BlobDigest, Directory, Node, SymlinkTarget};
use granary_nix_formats::{
    ContentAddress, HashAlgorithm, NarHash, Signature, StorePath, StorePathHash, nar::Writer,
};
use granary_store::{NarFacts, PathInfo, PathInfoService};
use sha2::{Digest as _, Sha256};

use crate::{
    Random,
    checks::{self, checks},
};

/// Runs the suite, each check on a new, empty store from `make`.
///
/// # Panics
///
/// If a check fails, with the names of all that have.
pub fn run(make: &dyn Fn() -> Arc<dyn PathInfoService>) {
    checks::run(
        "path_info_service",
        make,
        checks![
            absent_is_none,
            every_field,
            every_content_address,
            deriver_of_a_derivation,
            without_nar_facts,
            unknown_nar_size,
            reference_to_itself,
            every_kind_of_node,
            many_references,
            newer_replaces_older,
            listing_in_hash_order,
            listing_of_nothing,
            nar_of_a_symlink,
            nar_without_contents,
        ],
    );
}

type Store = Arc<dyn PathInfoService>;

fn hash(random: &mut Random) -> StorePathHash {
    StorePathHash::try_from(&random.incompressible(20)[..]).expect("20 bytes")
}

fn store_path(random: &mut Random, name: &str) -> StorePath {
    StorePath::new(hash(random), name).expect("a valid name")
}

fn nar_hash(random: &mut Random) -> NarHash {
    NarHash::try_from(&random.incompressible(32)[..]).expect("32 bytes")
}

fn signature(random: &mut Random, name: &str) -> Signature {
    let bytes = random.incompressible(64).try_into().expect("64 bytes");
    Signature::new(name, bytes).expect("a valid name")
}

fn link(target: &[u8]) -> Node {
    Node::Symlink { target: SymlinkTarget::new(target.to_vec()).expect("a valid target") }
}

/// A path info with every field set, different for each state of `random`.
fn full(random: &mut Random) -> PathInfo {
    let reference_names = vec![
        store_path(random, "glibc-2.36"),
        store_path(random, "bash-5.2p15"),
        store_path(random, "a"),
    ];
    PathInfo {
        store_path: store_path(random, "hello-2.12.1"),
        node: Node::File {
            digest: BlobDigest::of(&random.next_u64().to_le_bytes()),
            size_bytes: 8,
            executable: true,
        },
        references: reference_names.iter().map(|reference| *reference.hash()).collect(),
        nar: Some(NarFacts {
            nar_size: 226_560,
            nar_hash: nar_hash(random),
            signatures: vec![
                signature(random, "cache.example.org-1"),
                signature(random, "another-1"),
            ],
            reference_names,
            deriver: Some(store_path(random, "hello-2.12.1.drv")),
            ca: Some(ContentAddress::Fixed {
                recursive: true,
                algorithm: HashAlgorithm::Sha256,
                digest: random.incompressible(32),
            }),
        }),
    }
}

/// The same path info with the signatures that a store may have added taken away again.
fn without_added(mut stored: PathInfo, put: &PathInfo) -> PathInfo {
    if let (Some(stored), Some(put)) = (&mut stored.nar, &put.nar) {
        stored.signatures.retain(|signature| put.signatures.contains(signature));
    }
    stored
}

fn get(store: &Store, path_info: &PathInfo) -> Option<PathInfo> {
    store.path_info(path_info.store_path.hash()).expect("the store answers")
}

/// Puts `path_info` and panics unless it is kept as it is.
fn assert_kept(store: &Store, path_info: &PathInfo) {
    let answer = store.put_path_info(path_info.clone()).expect("a path info is put");
    assert_eq!(without_added(answer.clone(), path_info), *path_info, "the answer differs");
    assert_eq!(get(store, path_info), Some(answer), "what is kept differs from the answer");
}

fn absent_is_none(store: &Store) {
    let absent = store.path_info(&hash(&mut Random::new(40))).expect("the store answers");
    assert_eq!(absent, None);
}

fn every_field(store: &Store) {
    let mut random = Random::new(41);
    let (first, second) = (full(&mut random), full(&mut random));
    assert_kept(store, &first);
    assert_kept(store, &second);
    let kept = get(store, &first).expect("it is kept");
    assert_eq!(without_added(kept, &first), first, "a later one has changed it");
}

fn every_content_address(store: &Store) {
    let mut random = Random::new(42);
    let digest = random.incompressible(32).try_into().expect("32 bytes");
    let mut addresses = vec![None, Some(ContentAddress::Text { digest })];
    for algorithm in
        [HashAlgorithm::Md5, HashAlgorithm::Sha1, HashAlgorithm::Sha256, HashAlgorithm::Sha512]
    {
        for recursive in [true, false] {
            let digest = random.incompressible(algorithm.digest_len());
            addresses.push(Some(ContentAddress::Fixed { recursive, algorithm, digest }));
        }
    }
    for ca in addresses {
        let mut path_info = full(&mut random);
        path_info.nar.as_mut().expect("it is full").ca = ca;
        assert_kept(store, &path_info);
    }
}

fn deriver_of_a_derivation(store: &Store) {
    let mut random = Random::new(43);
    for deriver in [None, Some("x.drv"), Some("x.drv.drv")] {
        let mut path_info = full(&mut random);
        path_info.nar.as_mut().expect("it is full").deriver =
            deriver.map(|name| store_path(&mut random, name));
        assert_kept(store, &path_info);
    }
}

fn without_nar_facts(store: &Store) {
    let mut path_info = full(&mut Random::new(44));
    path_info.nar = None;
    assert_kept(store, &path_info);
    path_info.references.clear();
    assert_kept(store, &path_info);
}

fn unknown_nar_size(store: &Store) {
    let mut path_info = full(&mut Random::new(45));
    path_info.nar.as_mut().expect("it is full").nar_size = 0;
    assert_kept(store, &path_info);
}

fn reference_to_itself(store: &Store) {
    let mut path_info = full(&mut Random::new(46));
    path_info.references.push(*path_info.store_path.hash());
    let names = &mut path_info.nar.as_mut().expect("it is full").reference_names;
    names.push(path_info.store_path.clone());
    assert_kept(store, &path_info);
}

fn every_kind_of_node(store: &Store) {
    let mut random = Random::new(47);
    let empty = Directory::default();
    let digest = BlobDigest::of(b"contents");
    for node in [
        Node::Directory { digest: empty.digest(), size: 0 },
        Node::Directory { digest: empty.digest(), size: u64::MAX },
        Node::File { digest, size_bytes: 8, executable: false },
        Node::File { digest: BlobDigest::of(b""), size_bytes: 0, executable: true },
        link(b"/nix/store"),
        link(b"\xff not UTF-8"),
    ] {
        assert_kept(store, &PathInfo { node, ..full(&mut random) });
    }
}

fn many_references(store: &Store) {
    let mut random = Random::new(48);
    let mut path_info = full(&mut random);
    let names: Vec<_> =
        (0..3000).map(|number| store_path(&mut random, &format!("reference-{number}"))).collect();
    path_info.references = names.iter().map(|name| *name.hash()).collect();
    path_info.nar.as_mut().expect("it is full").reference_names = names;
    assert_kept(store, &path_info);
}

fn newer_replaces_older(store: &Store) {
    let mut random = Random::new(49);
    let older = full(&mut random);
    let newer = PathInfo { store_path: older.store_path.clone(), ..full(&mut random) };
    for path_info in [&older, &newer, &older, &newer] {
        assert_kept(store, path_info);
    }
    assert_eq!(store.path_infos().count(), 1);
}

fn listing_in_hash_order(store: &Store) {
    let mut random = Random::new(50);
    let mut put: Vec<_> = (0..300).map(|_| full(&mut random)).collect();
    for path_info in &put {
        store.put_path_info(path_info.clone()).expect("a path info is put");
    }
    put.sort_by_key(|path_info| *path_info.store_path.hash().as_bytes());
    let listed: Result<Vec<_>, _> = store.path_infos().collect();
    let listed = listed.expect("path infos are listed");
    assert_eq!(listed.len(), put.len());
    for (listed, put) in listed.into_iter().zip(&put) {
        assert_eq!(without_added(listed, put), *put);
    }
}

fn listing_of_nothing(store: &Store) {
    assert_eq!(store.path_infos().count(), 0);
}

/// A symlink is the one node whose NAR needs nothing from a store.
fn nar_of_a_symlink(store: &Store) {
    let target = b"/nix/store/somewhere/bin";
    let mut writer = Writer::new(Vec::new()).expect("memory");
    writer.symlink(target).expect("memory");
    let nar = writer.finish().expect("memory");
    for _ in 0..2 {
        let calculated = store.calculate_nar(&link(target)).expect("the store answers");
        let calculated = calculated.expect("nothing of it can be missing");
        assert_eq!(calculated.nar_size, nar.len() as u64);
        assert_eq!(calculated.nar_hash.as_bytes()[..], Sha256::digest(&nar)[..]);
    }
}

fn nar_without_contents(store: &Store) {
    let digest = BlobDigest::of(b"absent");
    let file = Node::File { digest, size_bytes: 6, executable: false };
    assert_eq!(store.calculate_nar(&file).expect("the store answers"), None);
    let absent = Directory::new(vec![]).expect("valid").digest();
    let directory = Node::Directory { digest: absent, size: 0 };
    assert_eq!(store.calculate_nar(&directory).expect("the store answers"), None);
}

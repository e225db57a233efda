//! NAR to castore and back.

use granary_castore::{
    BlobDigest, Castore, Directory, DirectoryService, Error, MemoryStore, Node, NodeName,
};
use granary_nix_formats::NarHash;
use granary_store::{
    IngestError, NarDigest, NarPlan, PathInfoService, RenderError, StoreOptions, ingest_nar,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use crate::support::{Tree, any_tree, memory_store, put_tree, render};

fn digest_of(nar: &[u8]) -> NarDigest {
    let nar_hash = NarHash::from_bytes(Sha256::digest(nar).into());
    NarDigest { nar_size: nar.len() as u64, nar_hash }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn render_gives_back_what_was_ingested(tree in any_tree()) {
        let (store, memory) = memory_store(StoreOptions::default());
        let nar = tree.nar();
        let ingested = put_tree(&memory, &tree);
        prop_assert_eq!(ingested.nar, digest_of(&nar));
        prop_assert_eq!(&render(&store, &ingested.node), &nar);
        prop_assert_eq!(store.calculate_nar(&ingested.node).expect("memory"), Some(ingested.nar));
    }

    #[test]
    fn a_damaged_nar_is_malformed_and_never_a_panic(
        tree in any_tree(),
        position in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let mut nar = tree.nar();
        let position = position.index(nar.len());
        nar[position] ^= flip;
        let memory = MemoryStore::default();
        let mut batch = memory.batch().expect("memory");
        match ingest_nar(&nar[..], &mut *batch) {
            Ok(ingested) => {
                batch.commit().expect("memory");
                prop_assert_eq!(ingested.nar, digest_of(&nar));
            }
            Err(error) => prop_assert!(matches!(error, IngestError::Malformed(_)), "{error:?}"),
        }
    }
}

#[test]
fn large_files_and_odd_sizes() {
    let sizes = [1 << 20, (1 << 20) + 1, (3 << 20) + 12_345];
    let files = sizes.into_iter().map(|size| {
        let contents: Vec<u8> =
            (0..size).map(|at: usize| ((at * 31) >> 3).to_le_bytes()[0]).collect();
        (size.to_string(), Tree::file(contents))
    });
    let tree = Tree::directory(files);
    let (store, memory) = memory_store(StoreOptions::default());
    let nar = tree.nar();
    let ingested = put_tree(&memory, &tree);
    assert_eq!(ingested.nar, digest_of(&nar));
    assert!(render(&store, &ingested.node) == nar);
}

#[test]
fn what_is_missing_is_none_and_what_is_wrong_is_an_error() {
    let tree = Tree::directory([
        ("a", Tree::file("contents of a")),
        ("d", Tree::directory([("b", Tree::file("contents of b"))])),
    ]);
    let whole = MemoryStore::default();
    let root = put_tree(&whole, &tree).node;
    let Node::Directory { digest, size } = root else { panic!("a directory") };
    let directories: Vec<Directory> =
        whole.closure(&digest).collect::<Result<_, _>>().expect("complete");

    // The root, then everything but the blobs.
    let (store, memory) = memory_store(StoreOptions::default());
    assert!(NarPlan::new(&memory, &root).expect("memory").is_none());
    put_directories(&memory, &directories[..1]);
    assert!(NarPlan::new(&memory, &root).expect("memory").is_none(), "a subdirectory is missing");
    assert_eq!(store.calculate_nar(&root).expect("memory"), None);
    put_directories(&memory, &directories[1..]);
    let plan = NarPlan::new(&memory, &root).expect("memory").expect("all directories");
    assert_eq!(plan.digest(&memory).expect("memory"), None);
    assert_eq!(store.calculate_nar(&root).expect("memory"), None);
    let missing = BlobDigest::of(b"contents of a").to_string();
    let error = plan.write_to(&memory, std::io::sink()).expect_err("a blob is missing");
    assert!(matches!(error, RenderError::Store(Error::Corrupt(_))), "{error:?}");
    assert!(error.to_string().contains(&missing), "{error}");

    // Nothing of that was remembered: once the blobs are there, so is the NAR.
    put_tree(&memory, &tree);
    assert_eq!(store.calculate_nar(&root).expect("memory"), Some(digest_of(&tree.nar())));
    let wrong = Node::Directory { digest, size: size + 1 };
    assert!(matches!(store.calculate_nar(&wrong), Err(Error::Invalid(_))));
}

#[test]
fn sizes_that_are_wrong_are_noticed() {
    let (store, memory) = memory_store(StoreOptions::default());
    put_tree(&memory, &Tree::file("four"));
    let file =
        |size_bytes| Node::File { digest: BlobDigest::of(b"four"), size_bytes, executable: false };
    assert!(store.calculate_nar(&file(4)).expect("right").is_some());
    for size_bytes in [3, 5] {
        assert!(matches!(store.calculate_nar(&file(size_bytes)), Err(Error::Invalid(_))));
        let name = NodeName::new(&b"f"[..]).expect("valid");
        let directory = Directory::new(vec![(name, file(size_bytes))]).expect("valid");
        put_directories(&memory, std::slice::from_ref(&directory));
        let node = Node::Directory { digest: directory.digest(), size: directory.size() };
        assert!(matches!(store.calculate_nar(&node), Err(Error::Corrupt(_))));
    }
    assert!(matches!(NarPlan::new(&memory, &file(0)), Err(Error::Corrupt(_))));
}

#[test]
fn what_follows_a_nar_and_what_lacks_is_malformed() {
    let nar = Tree::directory([("f", Tree::file("x"))]).nar();
    let memory = MemoryStore::default();
    let mut longer = nar.clone();
    longer.push(0);
    for bytes in [&longer[..], &nar[..nar.len() - 1], b""] {
        let mut batch = memory.batch().expect("memory");
        let error = ingest_nar(bytes, &mut *batch).expect_err("not a NAR");
        assert!(matches!(error, IngestError::Malformed(_)), "{error:?}");
    }
}

#[test]
fn a_source_that_fails_is_not_malformed() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the line is cut"))
        }
    }
    let memory = MemoryStore::default();
    let mut batch = memory.batch().expect("memory");
    let error = ingest_nar(Failing, &mut *batch).expect_err("nothing can be read");
    assert!(matches!(error, IngestError::Read(_)), "{error:?}");
}

fn put_directories(memory: &MemoryStore, directories: &[Directory]) {
    let mut batch = memory.batch().expect("memory");
    for directory in directories {
        batch.put_directory(directory).expect("memory");
    }
    batch.commit().expect("memory");
}

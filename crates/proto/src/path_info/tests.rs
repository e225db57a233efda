use granary_castore::{BlobDigest, Node};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::castore;

fn path(byte: u8, name: &str) -> StorePath {
    StorePath::new(StorePathHash::from_bytes([byte; 20]), name).expect("a valid name")
}

fn file() -> Node {
    Node::File { digest: BlobDigest::of(b"x"), size_bytes: 1, executable: false }
}

fn full() -> PathInfo {
    PathInfo {
        store_path: path(1, "hello-2.12"),
        node: file(),
        references: vec![*path(1, "hello-2.12").hash(), *path(2, "glibc").hash()],
        nar: Some(NarFacts {
            nar_size: 0,
            nar_hash: NarHash::from_bytes([7; 32]),
            signatures: vec![Signature::new("key-1", [9; 64]).expect("a valid name")],
            reference_names: vec![path(1, "hello-2.12"), path(2, "glibc")],
            deriver: Some(path(3, "hello-2.12.drv.drv")),
            ca: Some(ContentAddress::Text { digest: [4; 32] }),
        }),
    }
}

/// What is said of the full message after `change` broke it.
fn refused(change: impl FnOnce(&mut store::PathInfo)) -> String {
    let mut message = store::PathInfo::from(&full());
    change(&mut message);
    PathInfo::try_from(message).expect_err("a breach").to_string()
}

/// The same for a change of the narinfo.
fn refused_nar(change: impl FnOnce(&mut store::NarInfo)) -> String {
    refused(|message| change(message.narinfo.as_mut().expect("it is set")))
}

fn node_named(name: &'static [u8]) -> castore::Node {
    named_node(name, &file())
}

#[test]
fn one_drv_is_taken_off_the_deriver() {
    let message = store::PathInfo::from(&full());
    let deriver = message.narinfo.and_then(|narinfo| narinfo.deriver).expect("it is set");
    assert_eq!(deriver.name, "hello-2.12.drv");
}

#[test]
fn the_node_must_be_named_by_a_store_path() {
    assert_eq!(refused(|message| message.node = None), "node: it must be set");
    let empty = Some(castore::Node { node: None });
    assert_eq!(refused(|message| message.node = empty), "node: it must be set");
    for name in [&b""[..], b"hello", b"\xff", b"00000000000000000000000000000000-", b"../x"] {
        let message = refused(|message| message.node = Some(node_named(name)));
        assert!(message.starts_with("node.file.name: "), "{message}");
    }
    let message = refused(|message| {
        let mut node = castore::FileNode { name: "x".into(), ..Default::default() };
        node.digest = vec![0; 20].into();
        message.node = Some(castore::Node { node: Some(castore::node::Node::File(node)) });
    });
    assert_eq!(message, "node.file.digest: it has 20 bytes instead of 32");
}

#[test]
fn references_and_names_go_together() {
    assert_eq!(
        refused(|message| message.references[1] = vec![0; 32].into()),
        "references[1]: it has 32 bytes instead of 20"
    );
    assert_eq!(
        refused_nar(|narinfo| narinfo.reference_names.truncate(1)),
        "narinfo.reference_names: there are 1 names for 2 references"
    );
    assert_eq!(
        refused_nar(|narinfo| narinfo.reference_names.clear()),
        "narinfo.reference_names: there are 0 names for 2 references"
    );
    let message = refused_nar(|narinfo| narinfo.reference_names.swap(0, 1));
    assert!(message.starts_with("narinfo.reference_names[0]: its hash part is "), "{message}");
    let message = refused_nar(|narinfo| narinfo.reference_names[1] = "glibc".to_owned());
    assert!(message.starts_with("narinfo.reference_names[1]: "), "{message}");
}

#[test]
fn the_rest_of_the_narinfo_is_checked() {
    assert_eq!(
        refused_nar(|narinfo| narinfo.nar_sha256 = Bytes::new()),
        "narinfo.nar_sha256: it has 0 bytes instead of 32"
    );
    assert_eq!(
        refused_nar(|narinfo| narinfo.signatures[0].data = vec![0; 63].into()),
        "narinfo.signatures[0].data: it has 63 bytes instead of 64"
    );
    let message = refused_nar(|narinfo| narinfo.signatures[0].name.clear());
    assert!(message.starts_with("narinfo.signatures[0].name: "), "{message}");

    let deriver = |narinfo: &mut store::NarInfo, name: &str, digest: usize| {
        let (name, digest) = (name.to_owned(), vec![0; digest].into());
        narinfo.deriver = Some(store::StorePath { name, digest });
    };
    assert_eq!(
        refused_nar(|narinfo| deriver(narinfo, "a", 32)),
        "narinfo.deriver.digest: it has 32 bytes instead of 20"
    );
    for name in ["a/b", "a b", &"x".repeat(208)] {
        let message = refused_nar(|narinfo| deriver(narinfo, name, 20));
        assert!(message.starts_with("narinfo.deriver.name: "), "{message}");
    }
}

#[test]
fn the_digest_of_a_content_address_is_as_long_as_its_kind_says() {
    for (kind, bytes) in
        [(0, 32), (1, 20), (2, 64), (3, 16), (4, 32), (5, 20), (6, 16), (7, 32), (8, 64)]
    {
        let with = |len: usize| {
            let mut message = store::PathInfo::from(&full());
            let narinfo = message.narinfo.as_mut().expect("it is set");
            narinfo.ca = Some(store::nar_info::Ca { r#type: kind, digest: vec![1; len].into() });
            message
        };
        let checked = PathInfo::try_from(with(bytes)).expect("valid");
        assert_eq!(store::PathInfo::from(&checked), with(bytes), "kind {kind}");
        assert_eq!(
            PathInfo::try_from(with(bytes + 1)).expect_err("a breach").to_string(),
            format!("narinfo.ca.digest: it has {} bytes instead of {bytes}", bytes + 1)
        );
    }
    assert_eq!(
        refused_nar(|narinfo| {
            narinfo.ca = Some(store::nar_info::Ca { r#type: 9, digest: vec![1; 32].into() });
        }),
        "narinfo.ca.type: 9 is no kind of content address"
    );
}

fn store_path() -> impl Strategy<Value = StorePath> {
    (any::<[u8; 20]>(), "[a-zA-Z0-9+_?=][a-zA-Z0-9+._?=-]{0,40}").prop_map(|(hash, name)| {
        StorePath::new(StorePathHash::from_bytes(hash), name).expect("a valid name")
    })
}

fn nar_facts() -> impl Strategy<Value = NarFacts> {
    let signature =
        ("[a-z.-]{1,20}", prop::collection::vec(any::<u8>(), 64)).prop_map(|(name, bytes)| {
            let bytes = bytes.try_into().expect("64 bytes");
            Signature::new(name, bytes).expect("a valid name")
        });
    let ca = prop_oneof![
        any::<[u8; 32]>().prop_map(|digest| ContentAddress::Text { digest }),
        (any::<bool>(), prop::collection::vec(any::<u8>(), 20)).prop_map(|(recursive, digest)| {
            ContentAddress::Fixed { recursive, algorithm: HashAlgorithm::Sha1, digest }
        }),
    ];
    (
        any::<u64>(),
        any::<[u8; 32]>(),
        prop::collection::vec(signature, 0..3),
        prop::collection::vec(store_path(), 0..5),
        prop::option::of(store_path()),
        prop::option::of(ca),
    )
        .prop_map(|(nar_size, nar_hash, signatures, reference_names, deriver, ca)| NarFacts {
            nar_size,
            nar_hash: NarHash::from_bytes(nar_hash),
            signatures,
            reference_names,
            deriver: deriver.map(|path| {
                StorePath::new(*path.hash(), format!("{}.drv", path.name())).expect("short enough")
            }),
            ca,
        })
}

proptest! {
    #[test]
    fn path_infos_come_back(store_path in store_path(), nar in prop::option::of(nar_facts())) {
        let references = nar
            .iter()
            .flat_map(|nar| nar.reference_names.iter().map(|path| *path.hash()))
            .collect();
        let path_info = PathInfo { store_path, node: file(), references, nar };
        let encoded = store::PathInfo::from(&path_info).encode_to_vec();
        let message = store::PathInfo::decode(&*encoded).expect("a message");
        prop_assert_eq!(PathInfo::try_from(message).expect("valid"), path_info);
    }
}

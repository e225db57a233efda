//! Narinfos that come after their NARs.

use granary_castore::MemoryStore;
use granary_nix_formats::{ContentAddress, NarHash, NarInfo, Signature, StorePath};
use granary_store::{
    IngestedNar, NarInfoRejection, PathInfoService, Store, StoreOptions, UploadedNar,
};

use crate::support::{Tree, memory_store, path, path_info, put_tree};

const URL: &str = "nar/some.nar.xz";

/// A store in which a NAR was uploaded, and the narinfo that belongs to it.
fn uploaded() -> (Store, MemoryStore, NarInfo) {
    let (store, memory) = memory_store(StoreOptions::default());
    let contents = put_tree(&memory, &Tree::file("contents"));
    store
        .commit_uploaded_nar(
            store.castore().batch().expect("memory"),
            "some.nar.xz",
            &upload_of(&contents),
        )
        .expect("memory");
    let narinfo = NarInfo {
        store_path: path(1, "it"),
        url: URL.to_owned(),
        compression: "xz".to_owned(),
        file_hash: None,
        file_size: None,
        nar_hash: contents.nar.nar_hash,
        nar_size: contents.nar.nar_size,
        references: vec![path(1, "it")],
        deriver: Some(path(3, "it.drv")),
        system: None,
        signatures: vec![Signature { name: "theirs".to_owned(), bytes: [4; 64] }],
        ca: None,
    };
    (store, memory, narinfo)
}

fn upload_of(contents: &IngestedNar) -> UploadedNar {
    UploadedNar {
        node: contents.node.clone(),
        nar: contents.nar,
        file_hash: NarHash::from_bytes([9; 32]),
        file_size: 77,
        compression: "xz".to_owned(),
        touched_unix_s: 0,
    }
}

/// Why the narinfo is refused after `change`; nothing is kept then.
fn refused(change: impl FnOnce(&mut NarInfo)) -> NarInfoRejection {
    let (store, _, mut narinfo) = uploaded();
    change(&mut narinfo);
    let rejection = store.put_narinfo(&narinfo, None).expect_err("it is wrong");
    assert_eq!(store.path_infos().count(), 0);
    rejection
}

#[test]
fn a_right_one_is_kept_and_served() {
    let (store, _, narinfo) = uploaded();
    let kept = store.put_narinfo(&narinfo, None).expect("it is right");
    assert_eq!(store.path_info(narinfo.store_path.hash()).expect("memory"), Some(kept));
    let served = store.served(narinfo.store_path.hash()).expect("memory").expect("it is right");
    let NarInfo { references, deriver, signatures, nar_hash, .. } = served.narinfo(URL.to_owned());
    assert_eq!(
        (references, deriver, signatures, nar_hash),
        (narinfo.references, narinfo.deriver, narinfo.signatures, narinfo.nar_hash)
    );
}

#[test]
fn its_nar_must_be_there() {
    for url in ["nar/other.nar.xz", "some.nar.xz", "https://elsewhere/nar/some.nar.xz", "nar/"] {
        let rejection = refused(|narinfo| url.clone_into(&mut narinfo.url));
        assert!(matches!(rejection, NarInfoRejection::UnknownNar { .. }), "{url}: {rejection}");
    }
    // A name alone is not enough: its contents must be there too.
    let (store, _, narinfo) = uploaded();
    let elsewhere = put_tree(&MemoryStore::default(), &Tree::file("elsewhere"));
    store
        .commit_uploaded_nar(
            store.castore().batch().expect("memory"),
            "some.nar.xz",
            &upload_of(&elsewhere),
        )
        .expect("memory");
    let rejection = store.put_narinfo(&narinfo, None).expect_err("the contents are not there");
    assert!(matches!(rejection, NarInfoRejection::UnknownNar { .. }), "{rejection}");
}

#[test]
fn hash_and_size_must_be_those_of_the_nar() {
    let rejection = refused(|narinfo| narinfo.nar_size += 1);
    assert!(matches!(rejection, NarInfoRejection::NarMismatch { .. }), "{rejection}");
    let rejection = refused(|narinfo| narinfo.nar_hash = NarHash::from_bytes([1; 32]));
    assert!(matches!(rejection, NarInfoRejection::NarMismatch { .. }), "{rejection}");
}

#[test]
fn references_must_be_there() {
    let missing = path(2, "missing");
    let rejection = refused(|narinfo| narinfo.references.push(path(2, "missing")));
    let text = rejection.to_string();
    assert!(text.contains(&missing.base_name()) && text.contains("--refresh"), "{text}");

    let (store, memory, mut narinfo) = uploaded();
    narinfo.references.push(missing.clone());
    let contents = put_tree(&memory, &Tree::file("other contents"));
    // Another path with the same hash part is another path.
    store.put_path_info(path_info(path(2, "renamed"), &contents)).expect("memory");
    assert!(store.put_narinfo(&narinfo, None).is_err());
    store.put_path_info(path_info(missing, &contents)).expect("memory");
    store.put_narinfo(&narinfo, None).expect("now it is there");
}

#[test]
fn a_content_address_must_be_that_of_the_path_and_the_contents() {
    let of_nar = |narinfo: &NarInfo| ContentAddress::Fixed {
        recursive: true,
        algorithm: granary_nix_formats::HashAlgorithm::Sha256,
        digest: narinfo.nar_hash.as_bytes().to_vec(),
    };
    let with_ca = |ca: ContentAddress, itself: bool, narinfo: &mut NarInfo| {
        narinfo.references.clear();
        narinfo.store_path = ca.store_path("it", &[], itself).expect("a valid name");
        if itself {
            narinfo.references.push(narinfo.store_path.clone());
        }
        narinfo.ca = Some(ca);
    };
    for itself in [false, true] {
        let (store, _, mut narinfo) = uploaded();
        with_ca(of_nar(&narinfo), itself, &mut narinfo);
        store.put_narinfo(&narinfo, None).expect("it is right");
    }
    let rejection = refused(|narinfo| narinfo.ca = Some(of_nar(narinfo)));
    assert!(matches!(rejection, NarInfoRejection::WrongContentAddress { .. }), "{rejection}");
    let other = ContentAddress::parse(&format!("fixed:r:sha256:{}", "0".repeat(52)))
        .expect("a content address");
    let rejection = refused(|narinfo| with_ca(other, false, narinfo));
    assert!(matches!(rejection, NarInfoRejection::WrongContents { .. }), "{rejection}");
    // A text refers to others, but never to itself.
    let rejection = refused(|narinfo| {
        narinfo.ca = Some(ContentAddress::Text { digest: [0; 32] });
    });
    assert!(matches!(rejection, NarInfoRejection::BadContentAddress { .. }), "{rejection}");
}

#[test]
fn a_text_with_references_has_the_path_that_nix_gives_it() {
    let (store, memory, mut narinfo) = uploaded();
    let reference = path(2, "reference");
    let contents = put_tree(&memory, &Tree::file("other contents"));
    store.put_path_info(path_info(reference.clone(), &contents)).expect("memory");
    narinfo.references = vec![reference];
    narinfo.store_path =
        StorePath::text("it", &[5; 32], &narinfo.references).expect("a valid name");
    narinfo.ca = Some(ContentAddress::Text { digest: [5; 32] });
    store.put_narinfo(&narinfo, None).expect("it is right");
}

#[test]
fn contents_that_are_stored_need_no_upload() {
    let (store, memory, mut narinfo) = uploaded();
    let contents = put_tree(&memory, &Tree::directory([("f", Tree::file("by castore"))]));
    narinfo.url = "nar/snix-castore/whatever".to_owned();
    narinfo.nar_hash = contents.nar.nar_hash;
    narinfo.nar_size = contents.nar.nar_size;
    store.put_narinfo(&narinfo, Some(&contents.node)).expect("it is stored");
    let absent = put_tree(&MemoryStore::default(), &Tree::file("absent"));
    let rejection = store.put_narinfo(&narinfo, Some(&absent.node)).expect_err("it is not");
    assert!(matches!(rejection, NarInfoRejection::UnknownNar { .. }), "{rejection}");
}

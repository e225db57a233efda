//! Verification of path infos finds what they say wrongly, and what they lack.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use granary_castore::{
    BlobDigest, Castore, MemoryStore, Node, ObjectName, ObjectType, RecordKind, RecordWrite,
    Severity,
};
use granary_nix_formats::{ContentAddress, NarHash, PublicKey, SigningKey, fingerprint};
use granary_store::{
    Document, DocumentKind, IngestedNar, NarDigest, PathInfo, PathInfoService, PathsReport, Store,
    StoreOptions, Unreadable, UploadedNar, VerifyObserver, VerifyOptions, VerifyPhase,
    VerifyProgress,
};

use crate::support::{Tree, memory_store, path, path_info, put_tree};

const CONTENTS: &[u8] = b"contents of a file";

fn tree() -> Tree {
    let below =
        Tree::directory([("file", Tree::file(CONTENTS)), ("link", Tree::Symlink(b"x".into()))]);
    Tree::directory([(&b"a"[..], below.clone()), (b"b", Tree::file("other")), (b"c", below)])
}

/// A store with two paths, the second of which refers to the first.
fn store() -> (Store, MemoryStore, IngestedNar) {
    let key = SigningKey::generate("own-1", [7; 32]).expect("a valid name");
    let (store, memory) = memory_store(StoreOptions { signing_key: Some(key) });
    let contents = put_tree(&memory, &tree());
    store.put_path_info(path_info(path(1, "one"), &contents)).expect("memory");
    let other = put_tree(&memory, &Tree::file("two"));
    let mut second = path_info(path(2, "two"), &other);
    second.references = vec![*path(1, "one").hash()];
    facts(&mut second).reference_names = vec![path(1, "one")];
    store.put_path_info(second).expect("memory");
    (store, memory, contents)
}

fn facts(path_info: &mut PathInfo) -> &mut granary_store::NarFacts {
    path_info.nar.as_mut().expect("it has them")
}

fn verify(store: &Store, nar: bool, public_keys: Vec<PublicKey>) -> PathsReport {
    let options = VerifyOptions { nar, public_keys, ..VerifyOptions::default() };
    store.verify_paths(&options, &Unreadable::default(), &()).expect("memory answers")
}

/// The one finding of both levels, or of that with NARs alone.
fn finding(store: &Store, only_nar: bool) -> (Severity, String) {
    let structure = verify(store, false, Vec::new());
    assert_eq!(structure.findings.len(), usize::from(!only_nar), "{:?}", structure.findings);
    let report = verify(store, true, Vec::new());
    let [finding] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!(report.error_count, u64::from(finding.severity == Severity::Error));
    (finding.severity, finding.problem.clone())
}

/// Puts the first path again, changed.
fn change(store: &Store, contents: &IngestedNar, change: impl FnOnce(&mut PathInfo)) {
    let mut path_info = path_info(path(1, "one"), contents);
    change(&mut path_info);
    store.put_path_info(path_info).expect("memory");
}

#[test]
fn what_is_right_is_clean() {
    let (store, _, _) = store();
    for (nar, nar_count) in [(false, 0), (true, 2)] {
        let report = verify(&store, nar, Vec::new());
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        assert_eq!((report.path_count, report.nar_count), (2, nar_count));
        assert!(report.damaged_paths.is_empty() && report.damaged_objects.is_empty());
    }
}

#[test]
fn a_nar_hash_that_is_wrong() {
    let (store, _, contents) = store();
    change(&store, &contents, |info| facts(info).nar_hash = NarHash::from_bytes([9; 32]));
    // Nobody knows yet what is right.
    let (severity, problem) = finding(&store, true);
    assert_eq!(severity, Severity::Error);
    assert!(problem.contains("hash"), "{problem}");
    store.remember_nar(&contents.node, &contents.nar).expect("memory");
    assert_eq!(finding(&store, false).0, Severity::Error);
}

#[test]
fn a_nar_size_that_is_wrong() {
    let (store, _, contents) = store();
    change(&store, &contents, |info| facts(info).nar_size += 8);
    assert!(finding(&store, true).1.contains("bytes"));
}

#[test]
fn what_is_remembered_wrongly() {
    let (store, _, contents) = store();
    let wrong = NarDigest { nar_hash: NarHash::from_bytes([9; 32]), ..contents.nar };
    store.remember_nar(&contents.node, &wrong).expect("memory");
    assert_eq!(finding(&store, false).0, Severity::Error);
}

#[test]
fn a_content_address_of_another_path() {
    let (store, _, contents) = store();
    change(&store, &contents, |info| {
        facts(info).ca = Some(ContentAddress::Text { digest: [5; 32] });
    });
    assert_eq!(finding(&store, true).0, Severity::Error);
}

#[test]
fn a_reference_that_is_not_stored_is_a_warning() {
    let (store, _, contents) = store();
    change(&store, &contents, |info| {
        info.references = vec![*path(9, "absent").hash()];
        facts(info).reference_names = vec![path(9, "absent")];
    });
    let (severity, problem) = finding(&store, false);
    assert_eq!(severity, Severity::Warning);
    assert!(problem.contains("absent"), "{problem}");
}

#[test]
fn signatures_are_held_against_keys() {
    let (store, _, contents) = store();
    let other = SigningKey::generate("other-1", [8; 32]).expect("a valid name");
    let NarDigest { nar_hash, nar_size } = contents.nar;
    let message = fingerprint(&path(1, "one"), &nar_hash, nar_size, &[]);
    let own = SigningKey::generate("own-1", [7; 32]).expect("a valid name");
    let good = [own.sign(message.as_bytes()), other.sign(message.as_bytes())];
    change(&store, &contents, |info| facts(info).signatures = good.to_vec());
    let report = verify(&store, true, vec![other.public_key()]);
    assert_eq!((report.findings.len(), report.signature_count), (0, 2));

    let bad = [own.sign(b"something else"), other.sign(b"something else")];
    change(&store, &contents, |info| facts(info).signatures = bad.to_vec());
    // Our own is made anew when the path is served, and the other is not known.
    let severities = |keys| -> Vec<_> {
        let report = verify(&store, true, keys);
        report.findings.iter().map(|finding| finding.severity).collect()
    };
    assert_eq!(severities(Vec::new()), [Severity::Warning]);
    assert_eq!(severities(vec![other.public_key()]), [Severity::Warning, Severity::Error]);
}

#[test]
fn contents_that_are_missing() {
    let (store, _, _) = store();
    let absent = BlobDigest::of(b"absent");
    let node = Node::File { digest: absent, size_bytes: 6, executable: false };
    let info = PathInfo { store_path: path(3, "three"), node, references: Vec::new(), nar: None };
    store.put_path_info(info).expect("memory");
    let report = verify(&store, true, Vec::new());
    assert_eq!(report.error_count, 1, "{:?}", report.findings);
    let object = ObjectName { kind: ObjectType::Blob, digest: *absent.as_bytes() };
    assert!(report.damaged_objects[&object].contains(&path(3, "three")));
    assert!(report.damaged_paths.iter().eq([&path(3, "three")]));

    let (memory, directory) = (MemoryStore::default(), put_tree(&MemoryStore::default(), &tree()));
    let (castore, records) = (Arc::new(memory.clone()), Arc::new(memory));
    let store = Store::new(castore, records, StoreOptions::default());
    store.put_path_info(path_info(path(1, "one"), &directory)).expect("memory");
    let report = verify(&store, false, Vec::new());
    assert!(report.findings[0].problem.contains("is missing"), "{:?}", report.findings);
    assert_eq!(report.findings[0].objects[0].kind, ObjectType::Directory);
}

#[test]
fn what_cannot_be_read_is_told_by_path_and_place() {
    let (store, memory, _) = store();
    let mut batch = memory.batch().expect("memory");
    let body = batch.put_blob(Bytes::from_static(CONTENTS)).expect("memory");
    batch.commit().expect("memory");
    let document =
        Document { digest: body, size_bytes: CONTENTS.len() as u64, content_type: "text".into() };
    store.put_document(DocumentKind::Log, b"log", &document).expect("memory");
    // As the engine would tell: a chunk of the blob is damaged.
    let chunk = ObjectName { kind: ObjectType::Chunk, digest: [4; 32] };
    let blobs = HashMap::from([(BlobDigest::of(CONTENTS), vec![chunk])]);
    let unreadable = Unreadable { blobs, ..Unreadable::default() };
    let report = store.verify_paths(&VerifyOptions::default(), &unreadable, &()).expect("memory");
    let problems: Vec<_> = report.findings.iter().map(|found| &*found.problem).collect();
    let [of_path, of_document] = problems[..] else { panic!("{problems:?}") };
    // The directory is there twice.
    assert!(of_path.contains("a/file: ") && of_path.contains("c/file: "), "{of_path}");
    assert!(of_document.contains("document \"log\""), "{of_document}");
    assert_eq!(report.findings[0].objects, [chunk]);
    assert!(report.damaged_objects[&chunk].iter().eq([&path(1, "one")]));
}

#[test]
fn records_that_cannot_be_read() {
    let (store, _, _) = store();
    let garbage = |kind| RecordWrite {
        kind: RecordKind(kind),
        key: Bytes::from_static(&[1; 20]),
        value: Some(Bytes::from_static(b"{")),
    };
    store.records().write_records(vec![garbage(1), garbage(4)]).expect("memory");
    let report = verify(&store, true, Vec::new());
    assert!(report.error_count >= 2, "{:?}", report.findings);
    let problems: Vec<_> = report.findings.iter().map(|found| &*found.problem).collect();
    assert!(problems.iter().any(|problem| problem.contains("path info")), "{problems:?}");
    assert!(problems.iter().any(|problem| problem.contains("document")), "{problems:?}");
}

#[derive(Default)]
struct Noting(Mutex<Vec<VerifyProgress>>, bool);

impl VerifyObserver for Noting {
    fn progress(&self, progress: VerifyProgress) -> ControlFlow<()> {
        self.0.lock().expect("no panic").push(progress);
        if self.1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn progress_reaches_its_end_and_can_stop_it() {
    let (store, _, contents) = store();
    let options = VerifyOptions { nar: true, ..VerifyOptions::default() };
    let observer = Noting::default();
    store.verify_paths(&options, &Unreadable::default(), &observer).expect("memory");
    let told = observer.0.into_inner().expect("no panic");
    let last = |phase| told.iter().rfind(|told| told.phase == phase).copied().expect("told");
    assert_eq!((last(VerifyPhase::Paths).done, last(VerifyPhase::Paths).total), (2, 2));
    let nars = last(VerifyPhase::Nars);
    assert_eq!(nars.done, nars.total);
    assert!(nars.total > contents.nar.nar_size);
    let stopping = Noting(Mutex::default(), true);
    store.verify_paths(&options, &Unreadable::default(), &stopping).expect_err("stopped");
}

#[test]
fn what_is_doubted_is_proved_again() {
    let (store, memory, contents) = store();
    store.remember_nar(&contents.node, &contents.nar).expect("memory");
    let uploaded = UploadedNar {
        node: contents.node.clone(),
        nar: contents.nar,
        file_hash: contents.nar.nar_hash,
        file_size: contents.nar.nar_size,
        compression: "none".to_owned(),
        touched_unix_s: 0,
    };
    store
        .commit_uploaded_nar(store.castore().batch().expect("memory"), "x.nar", &uploaded)
        .expect("memory");
    let other = put_tree(&memory, &Tree::file("another"));
    let other = UploadedNar { node: other.node, ..uploaded };
    store
        .commit_uploaded_nar(store.castore().batch().expect("memory"), "y.nar", &other)
        .expect("memory");
    let (_, provenance) =
        store.served_with_provenance(path(1, "one").hash()).expect("memory").expect("it is served");
    assert!(store.is_current(&provenance));
    store.doubt(&[path(1, "one"), path(8, "absent")]).expect("memory");
    assert!(!store.is_current(&provenance));
    assert_eq!(store.uploaded_nar("x.nar").expect("memory"), None);
    assert!(store.uploaded_nar("y.nar").expect("memory").is_some());
    // It is all there.
    assert!(store.served(path(1, "one").hash()).expect("memory").is_some());
}

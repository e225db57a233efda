//! Logs, debug information, realisations and listings under their names.

use granary_castore::{Castore, Error, MemoryStore, RecordStore};
use granary_store::{Document, DocumentKind, StoreOptions, kinds};

use crate::support::memory_store;

const KINDS: [DocumentKind; 4] =
    [DocumentKind::Log, DocumentKind::DebugInfo, DocumentKind::Realisation, DocumentKind::Listing];

fn document(memory: &MemoryStore, body: &'static str) -> Document {
    let mut batch = memory.batch().expect("memory");
    let digest = batch.put_blob(body.into()).expect("memory");
    batch.commit().expect("memory");
    Document { digest, size_bytes: body.len() as u64, content_type: "text/plain".to_owned() }
}

#[test]
fn each_sort_has_names_of_its_own() {
    let (store, memory) = memory_store(StoreOptions::default());
    for (kind, body) in KINDS.into_iter().zip(["a log", "debug", "realised", "listed"]) {
        assert_eq!(store.document(kind, b"name").expect("memory"), None);
        let document = document(&memory, body);
        store.put_document(kind, b"name", &document).expect("memory");
        assert_eq!(store.document(kind, b"name").expect("memory"), Some(document));
    }
    let newer = document(&memory, "another log");
    store.put_document(KINDS[0], b"name", &newer).expect("memory");
    assert_eq!(store.document(KINDS[0], b"name").expect("memory"), Some(newer));
    assert_eq!(store.document(KINDS[0], b"nam").expect("memory"), None);
}

#[test]
fn names_and_bodies_are_checked() {
    let (store, memory) = memory_store(StoreOptions::default());
    let stored = document(&memory, "body");
    store.put_document(KINDS[0], &[0xff; 254], &stored).expect("the longest name");
    for name in [&b""[..], &[b'n'; 255]] {
        let error = store.put_document(KINDS[0], name, &stored).expect_err("a bad name");
        assert!(matches!(error, Error::Invalid(_)), "{error}");
        assert_eq!(store.document(KINDS[0], name).expect("memory"), None);
    }
    let longer = Document { size_bytes: 5, ..stored };
    assert!(matches!(store.put_document(KINDS[0], b"n", &longer), Err(Error::Invalid(_))));
    let absent = document(&MemoryStore::default(), "elsewhere");
    assert!(matches!(store.put_document(KINDS[0], b"n", &absent), Err(Error::Invalid(_))));
}

/// The whole records: what is in stores must stay readable.
#[test]
fn golden_records() {
    let (store, memory) = memory_store(StoreOptions::default());
    let body = document(&memory, "x");
    for (kind, key) in
        KINDS.into_iter().zip([b"l\xffname", b"d\xffname", b"r\xffname", b"s\xffname"])
    {
        store.put_document(kind, b"\xffname", &body).expect("memory");
        let value = memory.record(kinds::DOCUMENT, key).expect("memory").expect("under this key");
        let expected = concat!(
            r#"{"v":1,"digest":"OufYBfZ4mmQCrLcK1AlqhaVr9oBOryXASTrGl1SNMLU=","#,
            r#""size":1,"content_type":"text/plain","put_unix_s":"#,
        );
        let value = String::from_utf8(value.to_vec()).expect("JSON");
        let put = value.strip_prefix(expected).and_then(|rest| rest.strip_suffix('}'));
        let put: u64 = put.and_then(|put| put.parse().ok()).expect("a number comes last");
        assert!(put > 1_600_000_000, "in seconds since 1970");
    }
}

//! Narinfos that are uploaded: one is taken only if it holds, and then served as it is.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use granary_castore::Node;
use granary_nix_formats::{NarInfo, StorePath, StorePathHash};
use granary_store::{NarDigest, NarFacts, PathInfo, PathInfoService, UploadedNar};

use crate::http_cache::{Answer, HttpCache, sha256, store_path};

/// A NAR that was uploaded before: what is in it, and under which name.
const NAR: &[u8] = include_bytes!("../../nix-formats/tests/golden/tree.nar");
const NAR_NAME: &str = "1y63graa2qh8m3plkykm7w3kdq3cnn7pywp9q3a065lplrf3fb1b.nar";

/// The base name of a path that is stored already. Uploads may refer to it.
const DEPENDENCY: &str = "dependency";

/// A hash part that no upload has.
const OTHER_HASH: [u8; 20] = [0xee; 20];

/// Uploads `data` as a narinfo to the place that it names.
///
/// # Panics
///
/// If it is taken and does not hold, or refused and leaves something behind.
pub fn check(data: &[u8]) {
    let cache = cache();
    let narinfo = std::str::from_utf8(data).ok().and_then(|text| NarInfo::parse(text).ok());
    let named = narinfo.as_ref().map(|narinfo| *narinfo.store_path.hash());
    let other = StorePathHash::from_bytes(OTHER_HASH);
    refused(&cache, &other, data, named != Some(other));
    let Some(narinfo) = narinfo else { return };
    let hash = narinfo.store_path.hash();
    let before = cache.store.path_info(hash).expect("memory can be read");
    let answer = put(&cache, hash, data);
    if answer.status != StatusCode::CREATED {
        assert!(answer.status.is_client_error(), "{answer:?}");
        assert!(!answer.body.is_empty(), "it is said why");
        assert_eq!(cache.store.path_info(hash).expect("memory can be read"), before);
        return;
    }
    assert_holds(&cache, &narinfo);
}

/// Sends it where it does not belong.
fn refused(cache: &HttpCache, hash: &StorePathHash, data: &[u8], expected: bool) {
    if expected {
        let answer = put(cache, hash, data);
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        assert_eq!(cache.store.path_info(hash).expect("memory can be read"), None);
    }
}

fn put(cache: &HttpCache, hash: &StorePathHash, data: &[u8]) -> Answer {
    let request = Request::put(format!("/{hash}.narinfo")).body(Body::from(data.to_vec()));
    cache.exchange(request.expect("a valid request"))
}

/// What was taken is served, and is what it says.
fn assert_holds(cache: &HttpCache, uploaded: &NarInfo) {
    let path = &uploaded.store_path;
    let answer = cache.get(&format!("{}.narinfo", path.hash()));
    assert_eq!(answer.status, StatusCode::OK, "{path} was taken and is not served");
    let text = std::str::from_utf8(&answer.body).expect("text");
    let served = NarInfo::parse(text).expect("a narinfo");
    assert_eq!(served.store_path, *path);
    assert_eq!(served.nar_hash, uploaded.nar_hash);
    assert_eq!(served.nar_size, uploaded.nar_size);
    assert_eq!(served.references, uploaded.references);
    assert_eq!(served.deriver, uploaded.deriver);
    assert_eq!(served.signatures, uploaded.signatures);
    assert_eq!(served.ca, uploaded.ca);

    let nar = cache.get(&served.url);
    assert_eq!(nar.status, StatusCode::OK);
    assert_eq!(nar.body.len() as u64, uploaded.nar_size);
    assert_eq!(sha256(&nar.body), uploaded.nar_hash);
    let (to_itself, others): (Vec<_>, Vec<_>) =
        uploaded.references.iter().cloned().partition(|reference| reference == path);
    for reference in &others {
        assert_eq!(*reference, store_path(DEPENDENCY), "{path} refers to what is not here");
    }
    if let Some(ca) = &uploaded.ca {
        let expected = ca.store_path(path.name(), &others, !to_itself.is_empty());
        assert_eq!(expected.as_ref(), Ok(path), "{ca}");
    }
}

/// A cache with a NAR that was uploaded and a path that can be referred to.
fn cache() -> HttpCache {
    let cache = HttpCache::new();
    let ingested = cache.ingest(NAR);
    let uploaded = UploadedNar {
        node: ingested.node.clone(),
        nar: ingested.nar,
        file_hash: ingested.nar.nar_hash,
        file_size: NAR.len() as u64,
        compression: "none".to_owned(),
        touched_unix_s: 0,
    };
    cache
        .store
        .commit_uploaded_nar(cache.store.castore().batch().expect("memory"), NAR_NAME, &uploaded)
        .expect("memory takes writes");
    let dependency = path_info(store_path(DEPENDENCY), ingested.node, ingested.nar);
    cache.store.put_path_info(dependency).expect("memory takes writes");
    cache
}

fn path_info(store_path: StorePath, node: Node, nar: NarDigest) -> PathInfo {
    let facts = NarFacts {
        nar_size: nar.nar_size,
        nar_hash: nar.nar_hash,
        signatures: Vec::new(),
        reference_names: Vec::new(),
        deriver: None,
        ca: None,
    };
    PathInfo { store_path, node, references: Vec::new(), nar: Some(facts) }
}

//! Access, and what is kept as it comes.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use granary_castore::MemoryStore;
use granary_server::{
    Access,
    http::{HttpOptions, router},
};
use granary_store::{Store, StoreOptions};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::{Cache, compress, nar_name, nar_of_tree, store_path};

#[tokio::test]
async fn writes_need_access() {
    let memory = Arc::new(MemoryStore::default());
    let store = Arc::new(Store::new(memory.clone(), memory, StoreOptions::default()));
    let router = router(store, HttpOptions::default());
    let nar = nar_of_tree(10, "true");
    let hash = *store_path("x").hash();
    for path in [
        "/nix-cache-info".to_owned(),
        format!("/{hash}.narinfo"),
        format!("/{hash}.ls"),
        format!("/nar/{}", nar_name(&nar, "")),
        "/log/x.drv".to_owned(),
        "/debuginfo/00".to_owned(),
        "/realisations/sha256:00!out.doi".to_owned(),
        "/build-trace-v2/x.drv/out.doi".to_owned(),
    ] {
        for access in [None, Some(Access::default()), Some(Access { writes: false })] {
            let mut request = Request::put(&path).body(Body::from(nar.clone())).expect("valid");
            if let Some(access) = access {
                request.extensions_mut().insert(access);
            }
            let response = router.clone().oneshot(request).await.expect("infallible");
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
            let body = response.into_body().collect().await.expect("in memory").to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            assert!(text.contains("--allow-anonymous-writes"), "{text}");
            let request = Request::get(&path).body(Body::empty()).expect("valid");
            let response = router.clone().oneshot(request).await.expect("infallible");
            assert_ne!(response.status(), StatusCode::FORBIDDEN, "{path} can be read");
        }
    }
    // With access, the very same goes in.
    let path = format!("/nar/{}", nar_name(&nar, ""));
    let mut request = Request::put(&path).body(Body::from(nar)).expect("valid");
    request.extensions_mut().insert(Access { writes: true });
    let response = router.oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::CREATED);
}

#[test]
fn cache_info_must_have_our_store_directory() {
    let cache = Cache::start();
    assert_eq!(cache.put("nix-cache-info", b"StoreDir: /nix/store\n").status, 200);
    cache.put("nix-cache-info", b"StoreDir: /other\n").assert_refused(400, "/other");
    cache.put("nix-cache-info", b"Priority: 1\n").assert_refused(400, "no StoreDir");
    assert!(cache.get("nix-cache-info").text().contains("Priority: 30"));
}

#[test]
fn documents_come_back_as_they_were() {
    let cache = Cache::start();
    let long = "line of a log\n".repeat(100_000);
    for (path, body, content_type) in [
        ("log/x.drv", long.as_str(), "text/plain; charset=utf-8"),
        ("log/empty.drv", "", "text/plain; charset=utf-8"),
        ("debuginfo/abcdef", r#"{"archive":"../nar/x.nar"}"#, "application/json"),
        ("realisations/sha256:ab!out.doi", r#"{"outPath":"x"}"#, "application/json"),
        ("build-trace-v2/x.drv/out.doi", r#"{"outPath":"y"}"#, "application/json"),
    ] {
        assert_eq!(cache.get(path).status, 404, "{path}");
        let put = cache.put(path, body.as_bytes());
        assert_eq!(put.status, 201, "{path}: {}", put.text());
        let get = cache.get(path);
        assert!((get.status, &get.body[..]) == (200, body.as_bytes()), "{path}");
        let head = cache.head(path);
        for answer in [&get, &head] {
            assert_eq!(answer.header("content-type"), Some(content_type));
            let length = body.len().to_string();
            assert_eq!(answer.header("content-length"), Some(length.as_str()));
        }
    }
    let part = cache.curl("log/x.drv", &["--range", "14-27"]);
    assert_eq!((part.status, part.text().as_str()), (206, "line of a log\n"));
    // A newer one takes the place of the old.
    assert_eq!(cache.put("log/x.drv", b"again").status, 201);
    assert_eq!(cache.get("log/x.drv").text(), "again");
    // Some clients write the suffix and others do not.
    assert_eq!(cache.get("debuginfo/abcdef.debug").status, 200);
    assert_eq!(cache.put("debuginfo/012345.debug", b"{}").status, 201);
    assert_eq!(cache.get("debuginfo/012345").text(), "{}");
}

#[test]
fn logs_are_kept_decoded() {
    let cache = Cache::start();
    for coding in ["gzip", "zstd", "xz", "bzip2"] {
        let path = format!("log/{coding}.drv");
        let body = compress(&cache, coding, b"built\n");
        let header = format!("Content-Encoding: {coding}");
        assert_eq!(cache.put_with(&path, &body, &["--header", &header]).status, 201);
        assert_eq!(cache.get(&path).text(), "built\n");
    }
    let brotli = cache.put_with("log/x.drv", b"...", &["--header", "Content-Encoding: br"]);
    brotli.assert_refused(415, "\"br\" is not supported");
    let broken = cache.put_with("log/x.drv", b"...", &["--header", "Content-Encoding: xz"]);
    broken.assert_refused(400, "does not decompress as xz");
    assert_eq!(cache.get("log/x.drv").status, 404);
}

#[test]
fn documents_have_limits() {
    let cache = Cache::start();
    let large = vec![b' '; 5_000_000];
    cache.put("debuginfo/ab", &large).assert_refused(413, "the limit");
    let bomb = compress(&cache, "zstd", &large);
    let bomb = cache.put_with("debuginfo/ab", &bomb, &["--header", "Content-Encoding: zstd"]);
    bomb.assert_refused(413, "the limit");
    assert_eq!(cache.get("debuginfo/ab").status, 404);
    let long_name = format!("log/{}.drv", "x".repeat(300));
    cache.put(&long_name, b"x").assert_refused(400, "254 bytes");
    assert_eq!(cache.get(&long_name).status, 404);
}

#[test]
fn a_listing_is_taken_but_what_is_served_comes_from_the_contents() {
    let cache = Cache::start();
    let path = store_path("tree");
    let url = format!("{}.ls", path.hash());
    assert_eq!(cache.put(&url, br#"{"version":1,"root":{"type":"directory"}}"#).status, 200);
    assert_eq!(cache.get(&url).status, 404);
    cache.add_path("tree", &nar_of_tree(10, "true"), &[]);
    assert!(cache.get(&url).text().contains("narOffset"));
}

//! A store that fails while it is read.

use std::sync::Arc;

use granary_castore::Error;
use granary_server::http::HttpOptions;
use granary_testkit::FramedStore;

use super::{Cache, nar_of_tree};

/// A cache with one path, the URL of its NAR, and the store, which can be told to fail.
fn cache_with_path() -> (Cache, String, FramedStore, usize) {
    let castore = FramedStore::new(400_000);
    let records = Arc::new(castore.memory().clone());
    let cache = Cache::start_over(Arc::new(castore.clone()), records, HttpOptions::default());
    let nar = nar_of_tree(6_000_000, "true");
    let path = cache.add_path("tree", &nar, &[]);
    let url = cache.narinfo(&path).url;
    (cache, url, castore, nar.len())
}

#[test]
fn an_error_in_mid_body_breaks_the_connection() {
    let (cache, url, castore, len) = cache_with_path();
    castore.fail_from(4_000_000, Error::corrupt("a pack is damaged"));
    for args in [&[][..], &["--header", "Accept-Encoding: zstd"], &["--http2-prior-knowledge"]] {
        let answer = cache.curl(&url, args);
        assert_eq!(answer.status, 200, "{args:?}");
        assert!(answer.curl_failed, "{args:?}: curl takes the body for whole");
        assert!(answer.body.len() < len, "{args:?}");
    }
}

#[test]
fn an_error_before_the_body_has_a_status() {
    for (error, status, text) in [
        (Error::corrupt("a pack is damaged"), 500, "a pack is damaged"),
        (Error::unavailable("the disk is gone"), 503, "the disk is gone"),
    ] {
        let (cache, url, castore, _) = cache_with_path();
        castore.fail_from(0, error);
        cache.get(&url).assert_refused(status, text);
        cache.curl(&url, &["--header", "Accept-Encoding: zstd"]).assert_refused(status, text);
    }
}

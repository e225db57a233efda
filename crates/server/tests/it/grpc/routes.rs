//! Paths that no service answers.

use std::sync::Arc;

use axum::{body::Body, http::Request, response::Response};
use granary_castore::MemoryStore;
use granary_server::{grpc, http::HttpOptions};
use granary_store::{Store, StoreOptions};
use tower::ServiceExt;

use super::router;

async fn post(path: &str, content_type: &str) -> Response {
    let request = Request::post(path).header("content-type", content_type).body(Body::empty());
    let router = router(Arc::new(MemoryStore::default())).await;
    let Ok(response) = router.oneshot(request.expect("a valid request")).await;
    response
}

#[tokio::test]
async fn unknown_services_and_methods_are_unimplemented() {
    for path in [
        "/tvix.castore.v2.BlobService/Put",
        "/tvix.castore.v1.BlobService/Frobnicate",
        "/snix.castore.v1.BlobService/Frobnicate",
        "/",
    ] {
        for content_type in ["application/grpc", "application/grpc+proto"] {
            let response = post(path, content_type).await;
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(response.headers()["grpc-status"], "12", "{path}");
        }
    }
}

#[tokio::test]
async fn what_is_no_grpc_is_not_found() {
    for path in ["/", "/favicon.ico", "/x/y", "/tvix.castore.v1.BlobService/Put"] {
        assert_eq!(post(path, "text/plain").await.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn the_binary_cache_can_be_beside_them() {
    let memory = Arc::new(MemoryStore::default());
    let store = Arc::new(Store::new(memory.clone(), memory.clone(), StoreOptions::default()));
    let cache = granary_server::http::router(store.clone(), HttpOptions::default());
    let services = grpc::GrpcServices {
        castore: memory,
        path_infos: store,
        stats: Arc::new(super::FixedStats),
        integrity: None,
        retention: None,
    };
    let both = cache.merge(grpc::router(services).await).fallback(grpc::fallback);
    let answer = async |method: &str, path: &str, content_type: &str| {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("content-type", content_type).body(Body::empty());
        let Ok(response) = both.clone().oneshot(request.expect("a valid request")).await;
        let grpc_status = response.headers().get("grpc-status").cloned();
        (response.status().as_u16(), grpc_status.map(|status| status.as_bytes().to_vec()))
    };
    assert_eq!(answer("GET", "/nix-cache-info", "text/plain").await, (200, None));
    assert_eq!(answer("GET", "/no/such/path", "text/plain").await, (404, None));
    let unknown = answer("POST", "/no.such.v1.Service/Call", "application/grpc").await;
    assert_eq!(unknown, (200, Some(b"12".to_vec())));
    // A method that is there: what is wrong is the message, of which there is none.
    let known = answer("POST", "/snix.castore.v1.BlobService/Stat", "application/grpc").await;
    assert_eq!(known, (200, Some(b"13".to_vec())));
}

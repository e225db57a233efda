//! Paths that no service answers.

use std::sync::Arc;

use axum::{body::Body, http::Request, response::Response};
use granary_castore::MemoryStore;
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

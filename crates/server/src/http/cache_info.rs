//! `nix-cache-info`: what the cache says of itself.

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use granary_nix_formats::STORE_DIR;

use super::{Cache, Failure, request_body::RequestBody};

/// Longest `nix-cache-info` that is read, in bytes.
const MAX_CACHE_INFO_BYTES: usize = 64 * 1024;

pub(super) fn get(cache: &Cache) -> Response {
    let priority = cache.options.priority;
    let text = format!("StoreDir: {STORE_DIR}\nWantMassQuery: 1\nPriority: {priority}\n");
    ([(header::CONTENT_TYPE, "text/x-nix-cache-info")], text).into_response()
}

/// A client tells a cache that it takes for new what it should be. There is nothing to
/// keep; a client with another store directory had better know at once.
pub(super) async fn put(
    headers: &HeaderMap,
    body: &mut RequestBody,
) -> Result<StatusCode, Failure> {
    let body = body.collect(headers, "a nix-cache-info", MAX_CACHE_INFO_BYTES).await?;
    let text = String::from_utf8_lossy(&body);
    let store_dir = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(field, value)| (field == "StoreDir").then_some(value.trim()));
    match store_dir {
        Some(STORE_DIR) => Ok(StatusCode::OK),
        Some(other) => Err(Failure::bad_request(format!(
            "StoreDir {other:?} of the nix-cache-info is not that of this store, {STORE_DIR}"
        ))),
        None => Err(Failure::bad_request("the nix-cache-info has no StoreDir")),
    }
}

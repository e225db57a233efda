//! `<hash>.ls`: what is in a path, and where in its NAR.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use granary_castore::{Chain, Error};
use granary_nix_formats::{StorePathHash, listing::MAX_LISTING_BYTES};

use super::{Cache, Failure, request_body::RequestBody};

pub(super) async fn get(cache: &Cache, hash: StorePathHash) -> Result<Response, Failure> {
    let json = cache
        .blocking(move |store| -> Result<Option<String>, Failure> {
            let Some(served) = store.served(&hash)? else { return Ok(None) };
            let listing = match store.listing(&served.node) {
                // A name that is not UTF-8: the path is fine, but JSON cannot say it.
                Err(error @ Error::Invalid(_)) => {
                    return Err(Failure::not_found(Chain(&error).to_string()));
                }
                listing => listing?,
            };
            let json = listing.map(|listing| listing.to_json()).transpose();
            json.map_err(|error| Failure::of(StatusCode::INTERNAL_SERVER_ERROR, &error))
        })
        .await?
        .ok_or_else(|| Failure::not_found(format!("no path {hash} is stored here")))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// Takes a listing and forgets it: it comes before the narinfo, so that there is nothing to
/// check it against, and what is served is made from the contents.
pub(super) async fn put(body: &mut RequestBody) -> Result<StatusCode, Failure> {
    let mut read_bytes = 0;
    while let Some(data) = body.next().await? {
        read_bytes += data.len();
        if read_bytes > MAX_LISTING_BYTES {
            return Err(Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a listing of more than {MAX_LISTING_BYTES} bytes, the limit"),
            ));
        }
    }
    Ok(StatusCode::OK)
}

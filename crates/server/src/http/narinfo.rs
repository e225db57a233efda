//! `<hash>.narinfo`: what Nix wants to know of a path.

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use granary_nix_formats::{MAX_NARINFO_BYTES, NarInfo, StorePathHash};

use super::{Cache, Failure, castore_url, request_body::RequestBody};

pub(super) async fn get(cache: &Cache, hash: StorePathHash) -> Result<Response, Failure> {
    let served = cache
        .blocking(move |store| store.served(&hash))
        .await?
        .ok_or_else(|| Failure::not_found(format!("no path {hash} is stored here")))?;
    let narinfo = served.narinfo(castore_url::of(&served.node, served.nar.nar_size));
    Ok(([(header::CONTENT_TYPE, "text/x-nix-narinfo")], narinfo.to_string()).into_response())
}

pub(super) async fn put(
    cache: &Cache,
    hash: StorePathHash,
    headers: &HeaderMap,
    body: &mut RequestBody,
) -> Result<StatusCode, Failure> {
    let body = body.collect(headers, "a narinfo", MAX_NARINFO_BYTES).await?;
    let text =
        std::str::from_utf8(&body).map_err(|error| Failure::of(StatusCode::BAD_REQUEST, &error))?;
    let narinfo =
        NarInfo::parse(text).map_err(|error| Failure::of(StatusCode::BAD_REQUEST, &error))?;
    if *narinfo.store_path.hash() != hash {
        return Err(Failure::bad_request(format!(
            "the narinfo is that of {}, and was sent to {hash}.narinfo",
            narinfo.store_path
        )));
    }
    let node = castore_url::parse(&narinfo.url)?;
    cache
        .blocking(move |store| store.put_narinfo(&narinfo, node.as_ref()))
        .await
        .map(|_| StatusCode::CREATED)
}

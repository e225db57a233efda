//! `<hash>.narinfo`: what Nix wants to know of a path.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use granary_castore::Error;
use granary_nix_formats::{MAX_NARINFO_BYTES, NarInfo, StorePathHash};

use super::{Cache, Failure, castore_url, request_body::RequestBody};

pub(super) async fn get(cache: &Cache, hash: StorePathHash) -> Result<Response, Failure> {
    let text = match cache.narinfos.get(&cache.store, &hash) {
        Some(text) => text,
        None => render(cache, hash).await?,
    };
    let content_type = HeaderValue::from_static("text/x-nix-narinfo");
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

/// Makes the narinfo anew, and keeps it.
async fn render(cache: &Cache, hash: StorePathHash) -> Result<Bytes, Failure> {
    let (text, provenance) = cache
        .blocking(move |store| {
            let Some((served, provenance)) = store.served_with_provenance(&hash)? else {
                return Ok(None);
            };
            let url = castore_url::of(&served.node, served.nar.nar_size);
            let text = served.narinfo(url).to_string().into_boxed_str().into_boxed_bytes();
            Ok::<_, Error>(Some((Bytes::from(text), provenance)))
        })
        .await?
        .ok_or_else(|| Failure::not_found(format!("no path {hash} is stored here")))?;
    cache.narinfos.insert(hash, text.clone(), provenance);
    Ok(text)
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

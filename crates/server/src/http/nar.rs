//! NARs, rendered as they are read.

use std::sync::Arc;

use axum::{http::HeaderValue, response::Response};
use granary_castore::{Error, Node};
use granary_store::{NarDigest, NarPlan, Store};

use super::{
    Cache, Failure, Reading, castore_url, coding::Compression, representation::Representation,
};

/// `nar/snix-castore/<node>`
pub(super) async fn get_castore(
    cache: &Cache,
    encoded: &str,
    reading: &Reading,
) -> Result<Response, Failure> {
    let node = castore_url::decode(encoded)?;
    let planned = match cache.store.planned_nar_now(&node) {
        Some(planned) => Some(planned),
        None => cache.blocking(move |store| store.planned_nar(&node)).await?,
    };
    let (nar, plan) = planned
        .ok_or_else(|| Failure::not_found("the contents of that node are not stored here"))?;
    representation(&nar, plan)?.respond(cache, reading).await
}

/// `nar/<name>`, as it was uploaded.
pub(super) async fn get_uploaded(
    cache: &Cache,
    name: String,
    reading: &Reading,
) -> Result<Response, Failure> {
    let is_head = reading.is_head;
    let not_found = Failure::not_found(format!("no NAR {name} was uploaded here"));
    let found = cache
        .blocking(move |store| {
            // Whoever asks whether it is there is going to rely on it.
            let uploaded =
                if is_head { store.touch_uploaded_nar(&name) } else { store.uploaded_nar(&name) };
            let Some(uploaded) = uploaded? else { return Ok(None) };
            if !root_is_stored(store, &uploaded.node)? {
                return Ok(None);
            }
            let compression = Compression::from_name(&uploaded.compression).ok_or_else(|| {
                Error::corrupt(format!(
                    "the NAR {name} was uploaded in a compression that is not known, {:?}",
                    uploaded.compression
                ))
            })?;
            let plan = store.plan(&uploaded.node)?;
            Ok::<_, Error>(plan.map(|plan| (uploaded.nar, compression, plan)))
        })
        .await?;
    let (nar, compression, plan) = found.ok_or(not_found)?;
    let representation = representation(&nar, plan)?;
    match compression {
        Compression::None => representation.respond(cache, reading).await,
        compression => representation.respond_compressed(cache, reading, compression).await,
    }
}

/// Whether the root is stored, and with it all that is below, which goes when it goes.
pub(super) fn root_is_stored(store: &Store, node: &Node) -> Result<bool, Error> {
    match node {
        Node::Directory { digest, .. } => Ok(store.directories().directory(digest)?.is_some()),
        Node::File { digest, .. } => Ok(store.blobs().stat(digest)?.is_some()),
        Node::Symlink { .. } => Ok(true),
    }
}

fn representation(nar: &NarDigest, plan: Arc<NarPlan>) -> Result<Representation, Failure> {
    if plan.nar_size() != nar.nar_size {
        return Err(Error::corrupt(format!(
            "a NAR of {} bytes is remembered as one of {}",
            plan.nar_size(),
            nar.nar_size
        ))
        .into());
    }
    Ok(Representation {
        content_type: HeaderValue::from_static("application/x-nix-nar"),
        tag: nar.nar_hash.to_string(),
        plan,
    })
}

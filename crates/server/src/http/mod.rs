//! The HTTP binary cache: what stock Nix reads and writes over HTTP, rendered from the
//! store when it is asked for.
//!
//! Nothing here keeps a NAR, but where its pieces lie, and what was compressed to be sent between the
//! frames that are stored; and a narinfo only for as long as it would be rendered the same.
//! An upload is taken apart as it arrives; what was uploaded to a URL is made again, in the
//! compression it came in, when that URL is read.
//!
//! # Invariants
//!
//! - A body that breaks off is never ended as if it were whole: the connection is aborted.
//! - What a request makes this process hold is bounded by the constants here and by
//!   [`HttpOptions`], whatever its size.
//! - Requests change the store only with an [`Access`] that says so.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use granary_castore::Error;
use granary_store::Store;
use tokio::sync::Semaphore;

use crate::{Access, event_loops};

mod coding;
mod failure;
mod options;
mod target;

mod bounded;
mod busy;
mod frames;
mod layouts;
mod negotiation;
mod pieces;
mod range;
mod reader_threads;
mod representation;

mod request_body;
mod upload;

mod cache_info;
mod castore_url;
mod document;
mod listing;
mod nar;
mod nar_upload;
mod narinfo;
mod narinfo_cache;

pub use coding::DecodeLimits;
pub use narinfo_cache::MAX_CACHED_NARINFO_BYTES;
pub use options::HttpOptions;

use failure::Failure;
use frames::Framer;
use narinfo_cache::NarInfoCache;
use pieces::Readers;
use request_body::RequestBody;
use target::Target;

/// What all targets but the castore URL can be asked for.
const METHODS: &str = "GET, HEAD, PUT";

/// What the castore URL can be asked for: it names its contents, so there is nothing to put.
const READ_METHODS: &str = "GET, HEAD";

/// Every path of a binary cache. They leave room for whatever else is on the port.
const ROUTES: [&str; 6] = [
    "/{name}",
    "/nar/{*name}",
    "/log/{*name}",
    "/debuginfo/{*name}",
    "/realisations/{*name}",
    "/build-trace-v2/{*name}",
];

/// The binary cache over `store`. Paths that are none of its own get 404.
pub fn router(store: Arc<Store>, options: HttpOptions) -> Router {
    let uploads = Arc::new(Semaphore::new(options.max_concurrent_uploads.max(1)));
    let readers = Arc::new(Readers::new(Arc::clone(&store)));
    let framer = Arc::default();
    let narinfos = NarInfoCache::default();
    let cache = Arc::new(Cache { store, options, uploads, readers, framer, narinfos });
    ROUTES
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, any(serve)))
        .with_state(cache)
}

/// What the handlers share.
struct Cache {
    store: Arc<Store>,
    options: HttpOptions,
    /// One permit for each upload that is being decoded.
    uploads: Arc<Semaphore>,
    readers: Arc<Readers>,
    framer: Arc<Framer>,
    narinfos: NarInfoCache,
}

impl Cache {
    /// Does `work` with the store on a thread that may block.
    async fn blocking<T: Send + 'static, E: Into<Failure> + Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = Arc::clone(&self.store);
        match event_loops::spawn_blocking(move || work(&store)).await {
            Ok(result) => result.map_err(Into::into),
            Err(error) => {
                Err(Error::unavailable("the request could not be finished").because(error).into())
            }
        }
    }
}

/// A request to read: what its headers say, and whether it wants the body.
struct Reading {
    headers: HeaderMap,
    is_head: bool,
}

async fn serve(State(cache): State<Arc<Cache>>, request: Request) -> Response {
    let Some(target) = Target::parse(request.uri().path()) else {
        return Failure::not_found("there is nothing of that name in a binary cache")
            .into_response();
    };
    match *request.method() {
        Method::GET | Method::HEAD => {
            let is_head = request.method() == Method::HEAD;
            let reading = Reading { headers: request.into_parts().0.headers, is_head };
            get(&cache, target, &reading).await.unwrap_or_else(IntoResponse::into_response)
        }
        Method::PUT if !matches!(target, Target::CastoreNar(_)) => {
            put(&cache, target, request).await
        }
        _ => {
            let allow = match target {
                Target::CastoreNar(_) => READ_METHODS,
                _ => METHODS,
            };
            (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, HeaderValue::from_static(allow))])
                .into_response()
        }
    }
}

async fn get(cache: &Arc<Cache>, target: Target, reading: &Reading) -> Result<Response, Failure> {
    match target {
        Target::CacheInfo => Ok(cache_info::get(cache)),
        Target::NarInfo(hash) => narinfo::get(cache, hash).await,
        Target::Listing(hash) => listing::get(cache, hash).await,
        Target::CastoreNar(encoded) => nar::get_castore(cache, &encoded, reading).await,
        Target::UploadedNar(name) => nar::get_uploaded(cache, name, reading).await,
        Target::Document(sort, name) => document::get(cache, sort, name, reading).await,
    }
}

async fn put(cache: &Arc<Cache>, target: Target, request: Request) -> Response {
    let access = request.extensions().get::<Access>().copied().unwrap_or_default();
    let (parts, body) = request.into_parts();
    let mut body = RequestBody::new(&parts.headers, body, cache.options.body_idle_timeout);
    let result = if access.writes {
        put_allowed(cache, target, &parts.headers, &mut body).await
    } else {
        Err(Error::denied(
            "this connection may not write: it does not come from this machine, and the daemon \
             was started without --allow-anonymous-writes",
        )
        .into())
    };
    match result {
        Ok(response) => response,
        Err(failure) => {
            body.drain().await;
            failure.into_response()
        }
    }
}

async fn put_allowed(
    cache: &Arc<Cache>,
    target: Target,
    headers: &HeaderMap,
    body: &mut RequestBody,
) -> Result<Response, Failure> {
    let status = match target {
        Target::CacheInfo => cache_info::put(headers, body).await,
        Target::NarInfo(hash) => narinfo::put(cache, hash, headers, body).await,
        Target::Listing(_) => listing::put(body).await,
        Target::UploadedNar(name) => nar_upload::put(cache, name, headers, body).await,
        Target::Document(sort, name) => document::put(cache, sort, name, headers, body).await,
        Target::CastoreNar(_) => Ok(StatusCode::METHOD_NOT_ALLOWED),
    };
    Ok(status?.into_response())
}

//! What every request passes through on its way to the router.

use std::{
    any::Any,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use axum::{Router, body::Body};
use futures::FutureExt as _;
use granary_castore::Chain;
use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tower::Service as _;
use tracing::{Instrument as _, debug, debug_span, error};

use super::peer::Peer;
use crate::Connection;

/// Number of the last request, for telling them apart in the log.
static LAST_REQUEST: AtomicU64 = AtomicU64::new(0);

/// Status `INTERNAL` of gRPC.
const GRPC_INTERNAL: &str = "13";

/// The body of a request came to no end.
///
/// IMPORTANT: it hides its cause. tonic takes a stream that the client has cancelled (it
/// looks for that reason of HTTP/2 among the causes) for one that has ended, and half an
/// upload would be stored as a whole one.
#[derive(Debug, thiserror::Error)]
#[error("the request broke off: {0}")]
struct BrokenOff(String);

/// Puts the [`Access`](crate::Access) and the [`Connection`] into the request and has the router answer it. A
/// handler that panics costs its own request only.
pub(super) async fn answer(
    mut router: Router,
    peer: Peer,
    connection: Connection,
    allow_anonymous_writes: bool,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let access = peer.access(request.headers(), allow_anonymous_writes);
    request.extensions_mut().insert(access);
    request.extensions_mut().insert(connection);
    let is_grpc = is_grpc(&request);
    let number = LAST_REQUEST.fetch_add(1, Ordering::Relaxed) + 1;
    let span = debug_span!(
        "request", number, %peer, method = %request.method(), path = request.uri().path()
    );
    let request =
        request.map(|body| Body::new(body.map_err(|error| BrokenOff(Chain(&error).to_string()))));
    let answered = async move {
        let began = Instant::now();
        let response = match AssertUnwindSafe(router.call(request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Err(panic) => {
                error!(message = panic_message(&*panic), "a handler panicked");
                panicked(is_grpc)
            }
        };
        debug!(status = response.status().as_u16(), elapsed = ?began.elapsed(), "answered");
        response
    };
    Ok(answered.instrument(span).await)
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The answer in the place of the one that a handler did not live to give.
fn panicked(is_grpc: bool) -> Response<Body> {
    const MESSAGE: &str = "internal error, see the log of the server\n";
    if !is_grpc {
        let mut response = Response::new(Body::from(MESSAGE));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return response;
    }
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(GRPC_INTERNAL));
    headers.insert("grpc-message", HeaderValue::from_static(MESSAGE.trim_ascii_end()));
    response
}

pub(super) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "no message"
    }
}

//! Both protocols on one port, and handlers that panic.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use futures::future::join_all;
use granary_server::daemon::{MAX_HEADER_BYTES, ServeOptions};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Semaphore;

use super::Daemon;

/// As many requests as the daemon takes at a time on one connection, by its documentation.
const MAX_STREAMS: usize = 256;

fn router() -> Router {
    Router::new()
        .route(
            "/version",
            get(|request: Request<Body>| async move { format!("{:?}", request.version()) }),
        )
        .route("/panic", get(panics))
}

async fn panics() -> &'static str {
    panic!("on purpose")
}

async fn http2(daemon: &Daemon) -> SendRequest<Empty<Bytes>> {
    let io = TokioIo::new(daemon.connect().await);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .expect("the daemon speaks HTTP/2 with prior knowledge");
    tokio::spawn(async move { connection.await.ok() });
    sender
}

async fn get_http2(
    sender: &mut SendRequest<Empty<Bytes>>,
    path: &str,
    content_type: &str,
) -> Response<Incoming> {
    let request = Request::builder()
        .uri(format!("http://test{path}"))
        .header("content-type", content_type)
        .body(Empty::new())
        .expect("a request");
    super::within(sender.send_request(request)).await.expect("an answer")
}

#[tokio::test]
async fn both_on_one_port() {
    let daemon = Daemon::start(router(), ServeOptions::default()).await;
    let answer = daemon.exchange(&super::get("/version")).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("HTTP/1.1"), "{answer}");

    let mut sender = http2(&daemon).await;
    let response = get_http2(&mut sender, "/version", "text/plain").await;
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(body, "HTTP/2.0");
    drop(sender);
    daemon.stop().await;
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let daemon = Daemon::start(router(), ServeOptions::default()).await;
    let answer = daemon.exchange(&super::get("/panic")).await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");

    let mut sender = http2(&daemon).await;
    let plain = get_http2(&mut sender, "/panic", "text/plain").await;
    assert_eq!(plain.status(), StatusCode::INTERNAL_SERVER_ERROR);
    // A gRPC client reads its status from the headers, with 200.
    let grpc = get_http2(&mut sender, "/panic", "application/grpc").await;
    assert_eq!(grpc.status(), StatusCode::OK);
    assert_eq!(grpc.headers()["grpc-status"], "13");
    // The same connection goes on.
    let after = get_http2(&mut sender, "/version", "text/plain").await;
    assert_eq!(after.status(), StatusCode::OK);
    drop((after, sender));
    daemon.stop().await;
}

#[tokio::test]
async fn oversized_headers_are_431_over_http2() {
    let daemon = Daemon::start(router(), ServeOptions::default()).await;
    let mut sender = http2(&daemon).await;
    let long = "x".repeat(MAX_HEADER_BYTES);
    let response = get_http2(&mut sender, "/version", &long).await;
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let after = get_http2(&mut sender, "/version", "text/plain").await;
    assert_eq!(after.status(), StatusCode::OK);
    drop((response, after, sender));
    daemon.stop().await;
}

/// Keeps requests until it is told to answer, and counts them.
#[derive(Clone)]
struct Gate {
    waiting: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    open: Arc<Semaphore>,
}

impl Gate {
    async fn pass(self) -> &'static str {
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(waiting, Ordering::SeqCst);
        let passed = self.open.acquire().await.is_ok();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        if passed { "passed" } else { "closed" }
    }
}

#[tokio::test]
async fn further_requests_of_a_connection_wait() {
    let (waiting, most) = (Arc::default(), Arc::default());
    let gate = Gate { waiting, most, open: Arc::new(Semaphore::new(0)) };
    let handler = {
        let gate = gate.clone();
        move || gate.clone().pass()
    };
    let router = Router::new().route("/", get(handler));
    let daemon = Daemon::start(router, ServeOptions::default()).await;
    let sender = http2(&daemon).await;
    let requests = (0..MAX_STREAMS + 40).map(|_| {
        let mut sender = sender.clone();
        tokio::spawn(async move { get_http2(&mut sender, "/", "text/plain").await.status() })
    });
    let requests: Vec<_> = requests.collect();
    // Once as many wait as may, others have had as much of a chance.
    super::within(async {
        while gate.waiting.load(Ordering::SeqCst) < MAX_STREAMS {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gate.open.add_permits(1);
    for status in super::within(join_all(requests)).await {
        assert_eq!(status.expect("no panic"), StatusCode::OK);
    }
    assert_eq!(gate.most.load(Ordering::SeqCst), MAX_STREAMS);
    drop(sender);
    daemon.stop().await;
}

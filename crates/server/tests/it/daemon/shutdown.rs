//! The end: requests may finish, but nothing holds it up for ever.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use futures::stream;
use granary_server::daemon::{DEFAULT_BLOCKING_GRACE, DEFAULT_GRACE, ServeOptions};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, time::sleep};

use super::{Daemon, within};

fn router() -> Router {
    let infinite = || async {
        let pieces = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 1024])));
        Body::from_stream(pieces)
    };
    let slow = || async {
        sleep(Duration::from_millis(500)).await;
        "done"
    };
    Router::new()
        .route("/infinite", get(infinite))
        .route("/slow", get(slow))
        .route("/never", get(std::future::pending::<&'static str>))
}

#[test]
fn the_default_leaves_time_within_ten_seconds() {
    // The rest is for what comes after: closing the store.
    assert!(DEFAULT_GRACE + DEFAULT_BLOCKING_GRACE <= Duration::from_secs(5));
}

#[tokio::test]
async fn open_transfers_are_cut() {
    let options = ServeOptions { grace: Duration::from_millis(300), ..ServeOptions::default() };
    let daemon = Daemon::start(router(), options).await;
    // One that reads, one that does not, one that uploads nothing, and two over HTTP/2.
    let mut reads = daemon.connect().await;
    reads.write_all(super::get("/infinite").as_bytes()).await.expect("sent");
    let reader = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        let mut total = 0;
        while let Ok(count @ 1..) = reads.read(&mut buffer).await {
            total += count;
        }
        total
    });
    let mut stalls = daemon.connect().await;
    stalls.write_all(super::get("/infinite").as_bytes()).await.expect("sent");
    let mut hangs = daemon.connect().await;
    hangs.write_all(super::get("/never").as_bytes()).await.expect("sent");

    let io = TokioIo::new(daemon.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    tokio::spawn(async move { connection.await.ok() });
    let request = |path: &str| {
        Request::get(format!("http://test{path}")).body(Empty::<Bytes>::new()).expect("a request")
    };
    let mut body = within(sender.send_request(request("/infinite"))).await.expect("an answer");
    assert!(within(body.body_mut().frame()).await.is_some_and(|frame| frame.is_ok()));
    let never = tokio::spawn(sender.send_request(request("/never")));
    sleep(Duration::from_millis(200)).await;

    let began = Instant::now();
    daemon.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    assert!(within(reader).await.expect("no panic") > 0);
    assert!(within(never).await.expect("no panic").is_err());
}

#[tokio::test]
async fn requests_that_began_may_end() {
    let daemon = Daemon::start(router(), ServeOptions::default()).await;
    let mut idle = daemon.connect().await;
    let asks = tokio::spawn(ask_slow(daemon.connect().await));
    sleep(Duration::from_millis(150)).await;
    let address = daemon.address;
    let began = Instant::now();
    daemon.stop().await;
    // It waited for the request, but not for the connection that has none.
    assert!(began.elapsed() < DEFAULT_GRACE, "it took {:?}", began.elapsed());
    let answer = within(asks).await.expect("no panic");
    assert!(answer.ends_with("done"), "{answer}");
    assert_eq!(within(idle.read(&mut [0; 1])).await.ok(), Some(0));
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it still listens");
}

#[tokio::test]
async fn dropping_the_server_cuts_all() {
    let daemon = Daemon::start(router(), ServeOptions::default()).await;
    let mut stream = daemon.connect().await;
    stream.write_all(super::get("/never").as_bytes()).await.expect("sent");
    sleep(Duration::from_millis(100)).await;
    daemon.ended.abort();
    assert_eq!(super::read_to_end(stream).await, "");
}

async fn ask_slow(stream: tokio::net::TcpStream) -> String {
    super::exchange(stream, &super::get("/slow")).await
}

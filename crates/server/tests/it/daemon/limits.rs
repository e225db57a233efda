//! What a peer may not do.

use std::{
    convert::Infallible,
    future::ready,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use futures::stream;
use granary_server::daemon::{MAX_HEADER_BYTES, MAX_HEADERS, ServeOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::sleep,
};

use super::{Daemon, read_to_end, within};

const SHORT: Duration = Duration::from_millis(300);

/// A body of these is more than the buffers of two sockets hold.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 128;

fn router() -> Router {
    Router::new().route("/", get(|| async { "here" }))
}

#[tokio::test]
async fn slow_headers_are_cut() {
    let options = ServeOptions { header_read_timeout: SHORT, ..ServeOptions::default() };
    let daemon = Daemon::start(router(), options).await;
    // Nothing at all, a header without its end, an HTTP/2 preface without its end.
    for beginning in ["", "GET / HTTP/1.1\r\nHost: te", "PRI * HTTP/2.0\r\n"] {
        let mut stream = daemon.connect().await;
        stream.write_all(beginning.as_bytes()).await.expect("the daemon reads");
        let began = Instant::now();
        let answer = read_to_end(stream).await;
        assert!(!answer.contains("here"), "{beginning:?}: {answer}");
        assert!(began.elapsed() >= SHORT / 2, "{beginning:?}: cut after {:?}", began.elapsed());
    }
    // Drop by drop is no way around it.
    let mut stream = daemon.connect().await;
    let dripping = async {
        for byte in super::get("/").bytes() {
            if stream.write_all(&[byte]).await.is_err() {
                return true;
            }
            sleep(SHORT / 10).await;
        }
        !read_to_end(stream).await.contains("here")
    };
    assert!(within(dripping).await, "a header that came byte by byte was answered");
    daemon.stop().await;
}

/// Tells when it is dropped.
struct Held(Option<oneshot::Sender<()>>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.take().map(|dropped| dropped.send(()));
    }
}

/// Answers with more than the buffers of two sockets hold. The body holds what tells of its end.
fn large_body(held: Held) -> Router {
    let held = Arc::new(Mutex::new(Some(held)));
    let answer = move || {
        let held = held.lock().expect("nobody panics with it").take();
        let pieces = stream::iter((0..PIECES).map(move |_| {
            let _held = &held;
            Ok::<_, Infallible>(vec![b'x'; PIECE_BYTES])
        }));
        ready(axum::body::Body::from_stream(pieces))
    };
    Router::new().route("/", get(answer))
}

#[tokio::test]
async fn who_takes_nothing_is_given_up() {
    let options = ServeOptions { write_timeout: SHORT, ..ServeOptions::default() };
    let (dropped, has_ended) = oneshot::channel();
    let daemon = Daemon::start(large_body(Held(Some(dropped))), options).await;
    let mut stream = daemon.connect().await;
    let began = Instant::now();
    stream.write_all(super::get("/").as_bytes()).await.expect("the daemon reads");
    within(has_ended).await.expect("it is told");
    assert!(began.elapsed() >= SHORT, "given up after {:?}", began.elapsed());
    let received = read_to_end(stream).await;
    assert!(received.len() < PIECES * PIECE_BYTES, "it came as a whole");
    daemon.stop().await;
}

#[tokio::test]
async fn who_is_slow_gets_everything() {
    let options = ServeOptions { write_timeout: SHORT, ..ServeOptions::default() };
    let daemon = Daemon::start(large_body(Held(None)), options).await;
    let mut stream = daemon.connect().await;
    stream.write_all(super::get("/").as_bytes()).await.expect("the daemon reads");
    // Longer than the time limit in all, with pauses that are shorter.
    let (mut received, mut buffer) = (Vec::new(), vec![0; PIECES * PIECE_BYTES / 16]);
    while let Ok(count @ 1..) = within(stream.read(&mut buffer)).await {
        received.extend_from_slice(&buffer[..count]);
        if received.len() < PIECES * PIECE_BYTES / 2 {
            sleep(SHORT / 20).await;
        }
    }
    assert!(received.len() > PIECES * PIECE_BYTES, "{} bytes", received.len());
    assert!(received.ends_with(b"\r\n0\r\n\r\n"), "the last chunk says that there is no more");
    daemon.stop().await;
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let options = ServeOptions { header_read_timeout: SHORT, ..ServeOptions::default() };
    let daemon = Daemon::start(router(), options).await;
    let answer = daemon.exchange("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("here"), "{answer}");
    daemon.stop().await;
}

#[tokio::test]
async fn oversized_headers_are_431() {
    let daemon = Daemon::start(router(), ServeOptions::default()).await;
    let long = "x".repeat(MAX_HEADER_BYTES);
    let answer =
        daemon.exchange(&format!("GET / HTTP/1.1\r\nHost: test\r\nLong: {long}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

    let many = "Again: x\r\n".repeat(MAX_HEADERS + 1);
    let answer = daemon.exchange(&format!("GET / HTTP/1.1\r\nHost: test\r\n{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

    // Something a little below the limit passes.
    let fits = "x".repeat(MAX_HEADER_BYTES / 2);
    let answer = daemon
        .exchange(&format!(
            "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nLong: {fits}\r\n\r\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    daemon.stop().await;
}

#[tokio::test]
async fn further_connections_wait() {
    let options = ServeOptions { max_connections: 2, ..ServeOptions::default() };
    let daemon = Daemon::start(router(), options).await;
    let (first, second) = (daemon.connect().await, daemon.connect().await);
    // The kernel takes the third, but nobody reads it until another ends.
    let third = tokio::spawn(super::exchange(daemon.connect().await, "GET / HTTP/1.0\r\n\r\n"));
    sleep(SHORT).await;
    assert!(!third.is_finished(), "a third connection was served");
    drop(first);
    let answer = within(third).await.expect("no panic");
    assert!(answer.ends_with("here"), "{answer}");
    drop(second);
    daemon.stop().await;
}

#[tokio::test]
async fn accepts_after_many_aborted_connections() {
    let options = ServeOptions { max_connections: 8, ..ServeOptions::default() };
    let daemon = Daemon::start(router(), options).await;
    for round in 0..300 {
        let stream = daemon.connect().await;
        // A zero linger resets the connection instead of closing it.
        #[expect(deprecated, reason = "it may block a real close, but not with zero")]
        stream.set_linger(Some(Duration::ZERO)).expect("a socket option");
        if round % 3 == 0 {
            let mut stream = stream;
            stream.write_all(b"GET / HT").await.ok();
        }
    }
    let answer = daemon.exchange(&super::get("/")).await;
    assert!(answer.ends_with("here"), "{answer}");
    daemon.stop().await;
}

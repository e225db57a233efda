//! Where it listens.

use std::os::unix::net as unix;

use axum::{Extension, Router, routing::get};
use granary_server::{
    Access,
    daemon::{ListenAddress, ListenError, ServeOptions, bind, serve},
};
use tokio::{net::UnixStream, sync::oneshot};

use super::within;

async fn bind_one(text: &str) -> Result<ListenAddress, ListenError> {
    let listeners = bind(&[text.parse().expect(text)]).await?;
    Ok(listeners[0].address().clone())
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = bind(&["127.0.0.1:0".parse().expect("valid")]).await.expect("a free port");
    let address = taken[0].address().to_string();
    let error = bind_one(&address).await.expect_err("it is taken");
    assert!(matches!(error, ListenError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
    assert!(error.to_string().contains("--listen"), "{error}");
    drop(taken);
    bind_one(&address).await.expect("it is free again");
}

#[tokio::test]
async fn names_are_resolved() {
    let listeners = bind(&["localhost:0".parse().expect("valid")]).await.expect("a free port");
    for listener in &listeners {
        assert!(super::ip(listener).ip().is_loopback(), "{:?}", listener.address());
    }
    let error = bind_one("no-such-host.invalid:0").await.expect_err("there is no such host");
    assert!(matches!(error, ListenError::Resolve { .. }), "{error:?}");
}

#[tokio::test]
async fn an_address_of_another_machine_is_an_error() {
    // Documentation addresses belong to nobody.
    let error = bind_one("192.0.2.1:0").await.expect_err("it is not ours");
    assert!(matches!(error, ListenError::Bind { .. }), "{error:?}");
    assert!(error.to_string().contains("192.0.2.1:0"), "{error}");
}

#[tokio::test]
async fn sockets_that_nobody_passed_are_an_error() {
    let error = bind_one("systemd").await.expect_err("nobody passed any");
    assert!(matches!(error, ListenError::NothingPassed), "{error:?}");
}

#[tokio::test]
async fn serves_a_unix_socket_and_removes_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let listeners = bind(&[ListenAddress::Unix(path.clone())]).await.expect("a new socket");
    let (stop, stopped) = oneshot::channel::<()>();
    let answer =
        |Extension(access): Extension<Access>| async move { format!("writes: {}", access.writes) };
    let router = Router::new().route("/", get(answer));
    let ended = tokio::spawn(serve(listeners, router, ServeOptions::default(), async {
        stopped.await.ok();
    }));
    let stream = UnixStream::connect(&path).await.expect("it listens");
    let answer = super::exchange(stream, &super::get("/")).await;
    assert!(answer.ends_with("writes: true"), "{answer}");

    let error = bind(&[ListenAddress::Unix(path.clone())]).await.expect_err("it answers");
    assert!(matches!(error, ListenError::InUse { .. }), "{error:?}");
    assert!(path.exists(), "the socket of a running daemon was removed");

    stop.send(()).expect("the daemon runs");
    within(ended).await.expect("no panic").expect("a clean end");
    assert!(!path.exists(), "the socket was left behind");
}

#[tokio::test]
async fn replaces_only_stale_sockets() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let address = ListenAddress::Unix(path.clone());
    // Closing a listener leaves its file: that is what a killed daemon leaves behind.
    drop(unix::UnixListener::bind(&path).expect("a new socket"));
    let listeners = bind(std::slice::from_ref(&address)).await.expect("nobody answers there");
    // Somebody else's that has taken its place by then is not removed with ours.
    std::fs::remove_file(&path).expect("it is there");
    let other = unix::UnixListener::bind(&path).expect("a new socket");
    drop(listeners);
    assert!(path.exists());
    drop(other);

    std::fs::remove_file(&path).expect("it is there");
    std::fs::write(&path, "precious").expect("a file");
    let error = bind(&[address]).await.expect_err("a file is there");
    assert!(matches!(error, ListenError::NotASocket { .. }), "{error:?}");
    assert_eq!(std::fs::read(&path).expect("it is there"), b"precious");
}

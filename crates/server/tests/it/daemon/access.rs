//! Who may write.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use axum::{Extension, Router, routing::get};
use granary_server::{
    Access,
    daemon::{ListenAddress, ServeOptions},
};
use tokio::net::TcpStream;

use super::Daemon;

fn router() -> Router {
    let answer = |Extension(access): Extension<Access>| async move {
        if access.writes { "may write" } else { "may read" }
    };
    Router::new().route("/", get(answer))
}

/// An address of this machine that others can reach, if it has one. Connecting a UDP
/// socket sends nothing; it only asks the system which address it would use.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[tokio::test]
async fn loopback_may_write_unless_a_proxy_is_between() {
    let daemon = Daemon::start(router(), ServeOptions::default()).await;
    assert!(daemon.exchange(&super::get("/")).await.ends_with("may write"));
    for header in ["Forwarded: for=x", "X-Forwarded-For: 127.0.0.1", "x-real-ip: ::1", "Via: x"] {
        let request = format!("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{header}\r\n\r\n");
        let answer = daemon.exchange(&request).await;
        assert!(answer.ends_with("may read"), "{header}: {answer}");
    }
    daemon.stop().await;
}

// What decides is unit tested for all addresses; this is the way there, where the machine
// has an address that is not loopback.
#[tokio::test]
async fn other_addresses_may_read() {
    let everywhere = ListenAddress::Ip(([0, 0, 0, 0], 0).into());
    for (allow_anonymous_writes, expected) in [(false, "may read"), (true, "may write")] {
        let options = ServeOptions { allow_anonymous_writes, ..ServeOptions::default() };
        let daemon = Daemon::start_on(&everywhere, router(), options).await;
        let port = daemon.address.port();
        let connect = |ip: IpAddr| TcpStream::connect(SocketAddr::from((ip, port)));
        let local = connect(IpAddr::from([127, 0, 0, 1])).await.expect("it listens");
        assert!(super::exchange(local, &super::get("/")).await.ends_with("may write"));
        if let Some(outer) = outer_address() {
            let remote = connect(outer).await.expect("it listens everywhere");
            let answer = super::exchange(remote, &super::get("/")).await;
            assert!(answer.ends_with(expected), "{outer}: {answer}");
        }
        daemon.stop().await;
    }
}

//! Listening, accepting, limits and shutdown, with routers made for each test.

mod access;
mod addresses;
mod limits;
mod protocols;
mod shutdown;

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use granary_server::daemon::{ListenAddress, ListenError, Listener, ServeOptions, bind, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

/// Longest that anything here may take: far more than it does, so that only a hang fails.
const LIMIT: Duration = Duration::from_secs(30);

/// A daemon on a port of its own.
struct Daemon {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), ListenError>>,
}

impl Daemon {
    async fn start(router: Router, options: ServeOptions) -> Self {
        let address = ListenAddress::Ip(([127, 0, 0, 1], 0).into());
        Self::start_on(&address, router, options).await
    }

    async fn start_on(address: &ListenAddress, router: Router, options: ServeOptions) -> Self {
        let listeners = bind(std::slice::from_ref(address)).await.expect("a free port");
        let address = ip(&listeners[0]);
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            stopped.await.ok();
        };
        let ended = tokio::spawn(serve(listeners, router, options, shutdown));
        Self { address, stop, ended }
    }

    async fn stop(self) {
        self.stop.send(()).expect("the daemon runs");
        within(self.ended).await.expect("no panic").expect("a clean end");
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the daemon listens")
    }

    /// One HTTP/1.1 request on a connection of its own, and everything that comes back.
    async fn exchange(&self, request: &str) -> String {
        exchange(self.connect().await, request).await
    }
}

fn ip(listener: &Listener) -> SocketAddr {
    match listener.address() {
        ListenAddress::Ip(address) => *address,
        other => panic!("{other} is no IP address"),
    }
}

/// Sends `request` and reads to the end of the stream.
async fn exchange<S>(mut stream: S, request: &str) -> String
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(request.as_bytes()).await.expect("the daemon reads");
    read_to_end(stream).await
}

/// Everything until the daemon closes or resets the connection.
async fn read_to_end<S: tokio::io::AsyncRead + Unpin>(mut stream: S) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = within(stream.read(&mut buffer)).await {
        answer.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(answer).expect("these routers answer text")
}

async fn within<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(LIMIT, work).await.expect("this should not take so long")
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
}

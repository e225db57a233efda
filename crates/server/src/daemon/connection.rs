//! One connection: its protocols and their limits.

use std::{convert::Infallible, pin::pin, time::Duration};

use axum::{Router, body::Body};
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::{
    ServeOptions,
    options::{
        CONNECTION_WINDOW_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, MAX_CONCURRENT_STREAMS,
        MAX_FRAME_BYTES, MAX_HEADER_BYTES, MAX_HEADERS, SEND_BUFFER_BYTES, STREAM_WINDOW_BYTES,
    },
    peer::Peer,
    preface::PrefaceTimeout,
    request,
    tasks::{Phase, Tasks},
    write_timeout::WriteTimeout,
};
use crate::Connection;

/// What all connections have in common.
pub(super) struct Connections {
    protocols: auto::Builder<Tasks>,
    tasks: Tasks,
    router: Router,
    header_read_timeout: Duration,
    write_timeout: Duration,
    allow_anonymous_writes: bool,
}

impl Connections {
    pub(super) fn new(router: Router, tasks: Tasks, options: &ServeOptions) -> Self {
        let mut protocols = auto::Builder::new(tasks.clone());
        protocols
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_read_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEADER_BYTES);
        protocols
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES);
        let ServeOptions { header_read_timeout, write_timeout, allow_anonymous_writes, .. } =
            *options;
        Self {
            protocols,
            tasks,
            router,
            header_read_timeout,
            write_timeout,
            allow_anonymous_writes,
        }
    }

    /// Serves one connection until it ends, or until its requests have ended after the
    /// shutdown has begun.
    pub(super) async fn serve<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let common = Connection::default();
        let service = service_fn(|request| self.answer(peer, common.clone(), request));
        let stream = WriteTimeout::new(stream, self.write_timeout);
        let io = TokioIo::new(PrefaceTimeout::new(stream, self.header_read_timeout));
        let mut connection = pin!(self.protocols.serve_connection(io, service));
        let mut tasks = self.tasks.clone();
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = tasks.reached(Phase::Ending) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%peer, error = &*error, "a connection ended early");
        }
    }

    fn answer(
        &self,
        peer: Peer,
        connection: Connection,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static + use<> {
        request::answer(self.router.clone(), peer, connection, self.allow_anonymous_writes, request)
    }
}

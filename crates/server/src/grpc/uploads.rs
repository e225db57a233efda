//! How many upload at a time, and how long one may be silent.
//!
//! What a client sends and nobody reads fills the window that all streams of its connection
//! share. If one upload of a connection waited while another ran, the window could be full of
//! the first, and the second would get nothing more: both would stand still. So it is
//! connections that wait, with all of their uploads, and those of a connection that has its
//! turn all run. HTTP/2 limits how many these are.
//!
//! Silence is that of a connection as well: a client that opens an upload and works on what
//! comes before it, in others, is not silent.

use std::{pin::pin, sync::Arc, time::Duration};

use granary_proto::encoded_len;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout_at,
};
use tonic::{Request, Status, Streaming, body::Body};

use super::{
    GrpcOptions,
    held::{self, Budget, Held, Partial},
    permission, status,
};
use crate::Connection;

/// What stands before each message: whether it is compressed, and its length.
const MESSAGE_HEADER_BYTES: usize = 5;

/// What all uploads have in common.
#[derive(Clone)]
pub(super) struct Uploads {
    /// One permit for each further connection that uploads.
    slots: Arc<Semaphore>,
    idle_timeout: Duration,
    budget: Budget,
}

impl Uploads {
    pub(super) fn new(options: &GrpcOptions) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(options.max_uploading_connections.max(1))),
            idle_timeout: options.upload_idle_timeout,
            budget: Budget::new(options.max_held_upload_bytes),
        }
    }

    /// The request as [`begin`](Self::begin) wants it, if it is an upload.
    pub(super) fn prepare(&self, request: http::Request<Body>) -> http::Request<Body> {
        if request.uri().path().ends_with("/Put") {
            held::counted(&self.budget, request)
        } else {
            request
        }
    }

    /// Begins an upload, once it is its turn; nothing of it was read before. `what` is in its
    /// messages.
    pub(super) async fn begin<T: prost::Message>(
        &self,
        what: &'static str,
        request: Request<Streaming<T>>,
    ) -> Result<Messages<T>, Status> {
        permission::to_write(&request)?;
        let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default();
        let partial = request.extensions().get::<Partial>().cloned();
        let slot = connection.slot(Arc::clone(&self.slots).acquire_owned()).await;
        let slot = slot.map_err(|_| Status::unavailable("no more uploads are taken"))?;
        let stream = request.into_inner();
        let (idle_timeout, held) = (self.idle_timeout, self.budget.hold_nothing());
        Ok(Messages { stream, what, connection, idle_timeout, partial, held, _slot: slot })
    }
}

/// The messages of an upload that has its turn.
pub(super) struct Messages<T> {
    stream: Streaming<T>,
    what: &'static str,
    connection: Connection,
    idle_timeout: Duration,
    partial: Option<Partial>,
    /// The messages that were taken, until [`written`](Self::written).
    held: Held,
    /// Held until the upload ends.
    _slot: Arc<OwnedSemaphorePermit>,
}

impl<T: prost::Message> Messages<T> {
    /// The next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<T>, Status> {
        let next = self.receive().await?;
        if let Some(message) = &next {
            let bytes = encoded_len(message);
            if let Some(partial) = &self.partial {
                partial.taken(MESSAGE_HEADER_BYTES + bytes);
            }
            self.held.add(bytes)?;
        }
        Ok(next)
    }

    /// Notes that nothing of what was taken is in memory any more.
    pub(super) fn written(&mut self) {
        self.held.clear();
    }

    async fn receive(&mut self) -> Result<Option<T>, Status> {
        // Until now it was us who took the time.
        self.connection.hear();
        let mut next = pin!(self.stream.message());
        loop {
            let heard = self.connection.heard();
            let deadline = heard + self.idle_timeout;
            if let Ok(next) = timeout_at(deadline.into(), next.as_mut()).await {
                return next.map_err(|status| status::of_receiving(self.what, status));
            }
            if self.connection.heard() == heard {
                let message = format!(
                    "{}: nothing of any upload of this connection came for {} s, the limit; \
                     nothing of this one is stored, send it again",
                    self.what,
                    self.idle_timeout.as_secs_f64()
                );
                tracing::info!("gave up an upload: {message}");
                return Err(Status::deadline_exceeded(message));
            }
        }
    }
}

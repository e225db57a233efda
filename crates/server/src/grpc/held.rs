//! What uploads hold in memory, over all connections.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, body::Body};

use crate::Connection;

/// Bytes that may still be held, by everybody together.
#[derive(Clone)]
pub(super) struct Budget {
    /// One permit for each byte.
    left: Arc<Semaphore>,
    max_bytes: usize,
}

impl Budget {
    pub(super) fn new(max_bytes: usize) -> Self {
        let max_bytes = max_bytes.min(Semaphore::MAX_PERMITS);
        Self { left: Arc::new(Semaphore::new(max_bytes)), max_bytes }
    }

    pub(super) fn hold_nothing(&self) -> Held {
        Held { budget: self.clone(), permit: None }
    }
}

/// Bytes that are held until this is dropped.
pub(super) struct Held {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Holds `bytes` more. Nobody waits for others to hold less: they may be waiting as well.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), Status> {
        let Budget { left, max_bytes } = &self.budget;
        let more = u32::try_from(bytes).ok();
        let more = more.and_then(|bytes| Arc::clone(left).try_acquire_many_owned(bytes).ok());
        let more = more.ok_or_else(|| {
            Status::resource_exhausted(format!(
                "the uploads of all clients would hold more than {max_bytes} bytes in memory, the \
                 limit; nothing of this one is stored, send it again when others have ended"
            ))
        })?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }

    /// Holds `bytes` less, or nothing if it held less than that.
    pub(super) fn remove(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.permit {
            let bytes = bytes.min(permit.num_permits());
            drop(permit.split(bytes));
        }
    }

    pub(super) fn clear(&mut self) {
        self.permit = None;
    }
}

/// What was received of the message that has not come in full.
#[derive(Clone)]
pub(super) struct Partial(Arc<Mutex<Held>>);

impl Partial {
    fn received(&self, bytes: usize) -> Result<(), Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(bytes)
    }

    /// A message of `bytes` has come in full.
    pub(super) fn taken(&self, bytes: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(bytes);
    }
}

/// The body of an upload, which is counted as it comes.
struct Counted {
    body: Body,
    partial: Partial,
    connection: Option<Connection>,
}

/// The request with its body counted, and with the [`Partial`] among its extensions. The
/// connection hears of what comes: a message may be long, and the way of its client slow.
pub(super) fn counted(budget: &Budget, mut request: http::Request<Body>) -> http::Request<Body> {
    let partial = Partial(Arc::new(Mutex::new(budget.hold_nothing())));
    let connection = request.extensions().get::<Connection>().cloned();
    request.extensions_mut().insert(partial.clone());
    request.map(|body| Body::new(Counted { body, partial, connection }))
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.partial.received(data.remaining())?;
            if let Some(connection) = &self.connection {
                connection.hear();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

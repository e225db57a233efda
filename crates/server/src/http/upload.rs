//! From an asynchronous body to a thread that reads it.
//!
//! The body goes through a short queue to a thread that decodes and stores it. What comes
//! out of the queue ends properly only if the body did: a client that goes away in the
//! middle, and takes the whole request with it, is an error to the thread, never an end.

use std::{
    io::{self, Read},
    sync::Arc,
};

use bytes::{Buf, Bytes};
use granary_castore::Error;
use granary_store::Store;
use tokio::sync::mpsc;

use super::{Cache, Failure, request_body::RequestBody};

/// How many pieces of a body wait for the thread. A piece is what came from the network at
/// once, at most some hundred KiB.
const QUEUED_PIECES: usize = 4;

/// What goes through the queue.
enum Message {
    Data(Bytes),
    End,
    Failed(Failure),
}

/// Sends `body` to `work`, which reads it on a thread that may block, and gives back what
/// `work` does. At most [`max_concurrent_uploads`] do so at once, the others wait here.
///
/// [`Body::take_failure`] tells `work` why it could not read on.
///
/// [`max_concurrent_uploads`]: super::HttpOptions::max_concurrent_uploads
pub(super) async fn on_thread<T: Send + 'static>(
    cache: &Cache,
    body: &mut RequestBody,
    work: impl FnOnce(&Store, Body) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let uploads = Arc::clone(&cache.uploads);
    let permit = uploads
        .acquire_owned()
        .await
        .map_err(|error| Error::unavailable("no more uploads are taken").because(error))?;
    let (sender, receiver) = mpsc::channel(QUEUED_PIECES);
    let read = Body { receiver, current: Bytes::new(), is_at_end: false, failure: None };
    let working = cache.blocking(move |store| {
        let result = work(store, read);
        drop(permit);
        result
    });
    let ((), result) = tokio::join!(feed(body, sender), working);
    result
}

/// Sends the body until it ends or nobody wants more of it.
async fn feed(body: &mut RequestBody, sender: mpsc::Sender<Message>) {
    loop {
        let next = tokio::select! {
            next = body.next() => next,
            // The thread has given up: no use in waiting for a client that is slow.
            () = sender.closed() => return,
        };
        let message = match next {
            Ok(Some(data)) => Message::Data(data),
            Ok(None) => Message::End,
            Err(failure) => Message::Failed(failure),
        };
        let is_last = !matches!(message, Message::Data(_));
        if sender.send(message).await.is_err() || is_last {
            return;
        }
    }
}

/// The body on the thread's side.
pub(super) struct Body {
    receiver: mpsc::Receiver<Message>,
    current: Bytes,
    is_at_end: bool,
    failure: Option<Failure>,
}

impl Body {
    /// Why the last read failed.
    pub(super) fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.is_at_end {
            match self.receiver.blocking_recv() {
                Some(Message::Data(data)) => self.current = data,
                Some(Message::End) => self.is_at_end = true,
                Some(Message::Failed(failure)) => {
                    let error = io::Error::other(failure.to_string());
                    self.failure = Some(failure);
                    return Err(error);
                }
                None => {
                    self.failure = Some(Failure::bad_request("the client went away"));
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        }
        let len = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..len]);
        Ok(len)
    }
}

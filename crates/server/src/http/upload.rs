//! From an asynchronous body to a thread that reads it.
//!
//! The body goes through a short queue to a thread that decodes and stores it. What comes
//! out of the queue ends properly only if the body did: a client that goes away in the
//! middle, and takes the whole request with it, is an error to the thread, never an end.

use std::{
    collections::VecDeque,
    io::{self, Read},
    sync::Arc,
};

use bytes::{Buf, Bytes};
use granary_castore::Error;
use granary_store::Store;
use tokio::sync::mpsc;

use super::{Cache, Failure, request_body::RequestBody};

/// How much of a body goes to the thread at a time, but for the first of it: to wake a thread costs
/// as much as to copy some hundred KiB.
const BATCH_BYTES: usize = 256 << 10;

/// How many batches wait for the thread. One may have a piece more than its bytes: what came from
/// the network at once.
const QUEUED_BATCHES: usize = 4;

/// What goes through the queue.
enum Message {
    Data(VecDeque<Bytes>),
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
    let (sender, receiver) = mpsc::channel(QUEUED_BATCHES);
    let read = Body { receiver, pieces: VecDeque::new(), is_at_end: false, failure: None };
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
    let (mut pieces, mut bytes, mut has_begun) = (VecDeque::new(), 0, false);
    loop {
        let next = tokio::select! {
            next = body.next() => next,
            // The thread has given up: no use in waiting for a client that is slow.
            () = sender.closed() => return,
        };
        let last = match next {
            Ok(Some(data)) => {
                bytes += data.len();
                pieces.push_back(data);
                None
            }
            Ok(None) => Some(Message::End),
            Err(failure) => Some(Message::Failed(failure)),
        };
        // What is wrong from the start is told from the first piece.
        if last.is_some() || bytes >= BATCH_BYTES || !has_begun {
            let batch = Message::Data(std::mem::take(&mut pieces));
            if sender.send(batch).await.is_err() {
                return;
            }
            (bytes, has_begun) = (0, true);
        }
        if let Some(last) = last {
            // Whoever is gone by now wanted no more.
            drop(sender.send(last).await);
            return;
        }
    }
}

/// The body on the thread's side.
pub(super) struct Body {
    receiver: mpsc::Receiver<Message>,
    /// What came and was not read yet.
    pieces: VecDeque<Bytes>,
    is_at_end: bool,
    failure: Option<Failure>,
}

impl Body {
    /// Why the last read failed.
    pub(super) fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }
}

impl Body {
    /// Waits until something is there to be read, or the end is.
    fn wait(&mut self) -> io::Result<()> {
        while self.pieces.is_empty() && !self.is_at_end {
            match self.receiver.blocking_recv() {
                Some(Message::Data(pieces)) => {
                    self.pieces = pieces;
                    self.drop_empty();
                }
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
        Ok(())
    }

    fn drop_empty(&mut self) {
        while self.pieces.front().is_some_and(Bytes::is_empty) {
            self.pieces.pop_front();
        }
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.wait()?;
        let mut len = 0;
        while len < buf.len()
            && let Some(piece) = self.pieces.front_mut()
        {
            let taken = piece.len().min(buf.len() - len);
            piece.copy_to_slice(&mut buf[len..len + taken]);
            len += taken;
            self.drop_empty();
        }
        Ok(len)
    }
}

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

use bytes::{Buf, Bytes, BytesMut};
use granary_castore::Error;
use granary_store::Store;
use tokio::sync::mpsc;

use super::{Cache, Failure, request_body::RequestBody};

/// How much of a body goes to the thread at a time, but for its beginning: to wake a thread costs
/// as much as to copy some hundred KiB.
const BATCH_BYTES: usize = 256 << 10;

/// How much goes to the thread as it comes: what is wrong from the start is told from that, however
/// slowly the rest comes.
const EAGER_BYTES: usize = 16 << 10;

/// What is shorter is copied to what came before it: a piece keeps the buffer that it was read into,
/// which has up to 64 KiB, and a client may send byte by byte.
const COPY_BELOW_BYTES: usize = 16 << 10;

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
    let (mut batch, mut sent_bytes) = (Batch::default(), 0_usize);
    loop {
        let next = tokio::select! {
            next = body.next() => next,
            // The thread has given up: no use in waiting for a client that is slow.
            () = sender.closed() => return,
        };
        let last = match next {
            Ok(Some(data)) => {
                batch.push(data);
                None
            }
            Ok(None) => Some(Message::End),
            Err(failure) => Some(Message::Failed(failure)),
        };
        if last.is_some() || batch.bytes >= BATCH_BYTES || sent_bytes < EAGER_BYTES {
            sent_bytes = sent_bytes.saturating_add(batch.bytes);
            if sender.send(Message::Data(batch.take())).await.is_err() {
                return;
            }
        }
        if let Some(last) = last {
            // Whoever is gone by now wanted no more.
            drop(sender.send(last).await);
            return;
        }
    }
}

/// Pieces that will go to the thread together.
#[derive(Default)]
struct Batch {
    pieces: VecDeque<Bytes>,
    /// What comes behind them, copied.
    short: BytesMut,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, data: Bytes) {
        self.bytes += data.len();
        if data.len() < COPY_BELOW_BYTES {
            self.short.extend_from_slice(&data);
        } else {
            self.end_short();
            self.pieces.push_back(data);
        }
    }

    /// All pieces in order, none of them empty; it is empty then.
    fn take(&mut self) -> VecDeque<Bytes> {
        self.end_short();
        self.bytes = 0;
        std::mem::take(&mut self.pieces)
    }

    fn end_short(&mut self) {
        if !self.short.is_empty() {
            self.pieces.push_back(self.short.split().freeze());
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

    /// Waits until something is there to be read, or the end is.
    fn wait(&mut self) -> io::Result<()> {
        while self.pieces.is_empty() && !self.is_at_end {
            match self.receiver.blocking_recv() {
                Some(Message::Data(pieces)) => self.pieces = pieces,
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
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stay_in_order_and_short_ones_are_joined() {
        let piece = |len: usize, byte: u8| Bytes::from(vec![byte; len]);
        let mut batch = Batch::default();
        for len in [COPY_BELOW_BYTES, 0, 1, 2, COPY_BELOW_BYTES - 1, COPY_BELOW_BYTES + 1, 3] {
            batch.push(piece(len, len.to_le_bytes()[0]));
        }
        assert_eq!(batch.bytes, 3 * COPY_BELOW_BYTES + 6);
        let pieces = batch.take();
        let lens: Vec<_> = pieces.iter().map(Bytes::len).collect();
        assert_eq!(lens, [COPY_BELOW_BYTES, COPY_BELOW_BYTES + 2, COPY_BELOW_BYTES + 1, 3]);
        assert_eq!(&pieces[1][..4], [1, 2, 2, 255]);
        assert!(batch.take().is_empty() && batch.bytes == 0);
    }

    #[test]
    fn a_body_that_comes_byte_by_byte_keeps_no_more_than_its_bytes() {
        let mut batch = Batch::default();
        for _ in 0..BATCH_BYTES {
            batch.push(Bytes::from_static(b"x"));
        }
        assert_eq!(batch.bytes, BATCH_BYTES);
        assert!(batch.short.capacity() <= 2 * BATCH_BYTES);
        assert_eq!(batch.take().len(), 1);
    }
}

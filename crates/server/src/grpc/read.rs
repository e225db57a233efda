//! Reading a blob for a stream of messages.
//!
//! A client may ask for hundreds of blobs on one connection and then take none of them, so what
//! is read before it is taken is bounded over all streams: some read ahead, in windows as they
//! come out of the store, the others no more than a short message.

use std::sync::Arc;

use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use granary_castore::{BlobDigest, BlobReader, Castore, Error, Result};
use granary_proto::{MAX_CHUNK_DATA_BYTES, castore::BlobChunk};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::blocking;

/// How much a stream that reads ahead reads at a time. It holds at most twice that, what the
/// client has not taken yet and what was read meanwhile, and the extent that it is in.
const WINDOW_BYTES: usize = 1 << 20;

/// Most streams that read ahead at a time, over all connections.
const MAX_STREAMS_AHEAD: usize = 32;

/// How much every other stream reads at a time, once the client has taken what it had.
const SHORT_WINDOW_BYTES: usize = 128 << 10;

/// Reads blobs for streams of messages.
#[derive(Clone)]
pub(super) struct BlobStreams {
    castore: Arc<dyn Castore>,
    ahead: Arc<Semaphore>,
}

impl BlobStreams {
    pub(super) fn new(castore: Arc<dyn Castore>) -> Self {
        Self { castore, ahead: Arc::new(Semaphore::new(MAX_STREAMS_AHEAD)) }
    }

    /// Opens `digest` and streams it; `NOT_FOUND` if it is not stored. No thread waits for the
    /// client: each window is one call.
    pub(super) async fn open(
        &self,
        digest: BlobDigest,
    ) -> Result<BoxStream<'static, Result<BlobChunk, Status>>, Status> {
        let streams = self.clone();
        let first = blocking::run(move || {
            let Some(reading) = Reading::begin(streams, digest)? else { return Ok(None) };
            reading.window().map(Some)
        });
        let Some(first) = first.await? else {
            return Err(Status::not_found(format!("blob or chunk {digest} is not stored")));
        };
        let windows = stream::try_unfold(Next::Read(first), |next| async move {
            let (reading, pieces) = next.window().await?;
            if pieces.is_empty() {
                return Ok(None);
            }
            let chunks = pieces.into_iter().map(|data| Ok(BlobChunk { data }));
            Ok::<_, Status>(Some((stream::iter(chunks), Next::behind(reading))))
        });
        Ok(windows.try_flatten().boxed())
    }
}

/// A window, and the reading that goes on behind it.
type Window = (Reading, Vec<Bytes>);

/// The window that comes next.
enum Next {
    /// It has been read.
    Read(Window),
    /// It is being read.
    Begun(tokio::task::JoinHandle<Result<Window, Status>>),
    /// It is read when the client wants it.
    Later(Reading),
}

impl Next {
    fn behind(reading: Reading) -> Self {
        if reading.is_at_end() {
            Self::Read((reading, Vec::new()))
        } else if reading.ahead.is_some() {
            Self::Begun(tokio::spawn(blocking::run(move || reading.window())))
        } else {
            Self::Later(reading)
        }
    }

    async fn window(self) -> Result<Window, Status> {
        match self {
            Self::Read(window) => Ok(window),
            Self::Begun(task) => task.await.unwrap_or_else(|error| {
                let message = "reading ahead did not come to its end";
                Err(super::status::of_error(&Error::unavailable(message).because(error)))
            }),
            Self::Later(reading) => blocking::run(move || reading.window()).await,
        }
    }
}

/// How far a blob has been read.
struct Reading {
    streams: BlobStreams,
    digest: BlobDigest,
    size_bytes: u64,
    offset: u64,
    /// Given to those that read ahead.
    ahead: Option<ReadingAhead>,
}

struct ReadingAhead {
    reader: Box<dyn BlobReader>,
    /// Held as long as anything that was read.
    _permit: OwnedSemaphorePermit,
}

impl Reading {
    /// `None` if the blob is not stored.
    fn begin(streams: BlobStreams, digest: BlobDigest) -> Result<Option<Self>> {
        let Some(reader) = streams.castore.open(&digest)? else { return Ok(None) };
        let size_bytes = reader.size_bytes();
        let mut this = Self { streams, digest, size_bytes, offset: 0, ahead: None };
        this.read_ahead_with(reader);
        Ok(Some(this))
    }

    fn is_at_end(&self) -> bool {
        self.offset >= self.size_bytes
    }

    /// Begins to read ahead, if that is worth it and not too many do.
    fn read_ahead_with(&mut self, reader: Box<dyn BlobReader>) -> Option<Box<dyn BlobReader>> {
        let left = self.size_bytes.saturating_sub(self.offset);
        if left > SHORT_WINDOW_BYTES as u64
            && let Ok(permit) = Arc::clone(&self.streams.ahead).try_acquire_owned()
        {
            self.ahead = Some(ReadingAhead { reader, _permit: permit });
            return None;
        }
        Some(reader)
    }

    /// The next pieces; none at the end.
    fn window(mut self) -> Result<Window> {
        if self.is_at_end() {
            return Ok((self, Vec::new()));
        }
        if self.ahead.is_none() {
            let opened = self.streams.castore.open(&self.digest)?;
            let reader = opened.ok_or_else(|| {
                Error::unavailable(format!("blob {} was deleted while it was read", self.digest))
            })?;
            if let Some(mut reader) = self.read_ahead_with(reader) {
                let piece = self.piece(&mut *reader, SHORT_WINDOW_BYTES)?;
                // It is part of an extent, which may be much larger.
                return Ok((self, vec![Bytes::copy_from_slice(&piece)]));
            }
        }
        let mut pieces = Vec::new();
        let mut left = WINDOW_BYTES;
        let mut ahead = self.ahead.take();
        if let Some(ReadingAhead { reader, .. }) = &mut ahead {
            while left > 0 && !self.is_at_end() {
                let piece = self.piece(&mut **reader, left.min(MAX_CHUNK_DATA_BYTES))?;
                left = left.saturating_sub(piece.len());
                pieces.push(piece);
            }
        }
        self.ahead = ahead;
        Ok((self, pieces))
    }

    fn piece(&mut self, reader: &mut dyn BlobReader, max_bytes: usize) -> Result<Bytes> {
        let piece = reader.read_at(self.offset, max_bytes)?;
        if piece.is_empty() {
            let Self { digest, offset, size_bytes, .. } = self;
            return Err(Error::corrupt(format!(
                "blob {digest} ends at {offset} instead of {size_bytes}"
            )));
        }
        self.offset += piece.len() as u64;
        Ok(piece)
    }
}

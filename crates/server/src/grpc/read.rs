//! Reading a blob for a stream of messages.

use std::sync::Arc;

use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use granary_castore::{BlobDigest, BlobReader, Castore, Error, Result};
use granary_proto::{MAX_CHUNK_DATA_BYTES, castore::BlobChunk};
use tonic::Status;

use super::blocking;

/// How much is read at a time. A stream holds at most twice that: what the client has not
/// taken yet, and what was read meanwhile.
const WINDOW_BYTES: usize = 1 << 20;

/// Opens `digest` and streams it; `NOT_FOUND` if it is not stored. No thread waits for the
/// client: each window is one call, made when the one before begins to be sent.
pub(super) async fn blob(
    castore: Arc<dyn Castore>,
    digest: BlobDigest,
) -> Result<BoxStream<'static, Result<BlobChunk, Status>>, Status> {
    let first = blocking::run(move || {
        let Some(reader) = castore.open(&digest)? else { return Ok(None) };
        Reading { digest, reader, offset: 0 }.window().map(Some)
    });
    let Some(first) = first.await? else {
        return Err(Status::not_found(format!("blob or chunk {digest} is not stored")));
    };
    let windows = stream::try_unfold(Ahead::Read(first), |ahead| async move {
        let (reading, pieces) = match ahead {
            Ahead::Read(window) => window,
            Ahead::Begun(task) => task.await.unwrap_or_else(|error| {
                let message = "reading ahead did not come to its end";
                Err(super::status::of_error(&Error::unavailable(message).because(error)))
            })?,
        };
        if pieces.is_empty() {
            return Ok(None);
        }
        let next = if reading.is_at_end() {
            Ahead::Read((reading, Vec::new()))
        } else {
            Ahead::Begun(tokio::spawn(blocking::run(move || reading.window())))
        };
        let chunks = pieces.into_iter().map(|data| Ok(BlobChunk { data }));
        Ok::<_, Status>(Some((stream::iter(chunks), next)))
    });
    Ok(windows.try_flatten().boxed())
}

/// A window, and the reading that goes on behind it.
type Window = (Reading, Vec<Bytes>);

/// The window that comes next.
enum Ahead {
    /// It has been read.
    Read(Window),
    /// It is being read.
    Begun(tokio::task::JoinHandle<Result<Window, Status>>),
}

/// An open blob and how far it has been read.
struct Reading {
    digest: BlobDigest,
    reader: Box<dyn BlobReader>,
    offset: u64,
}

impl Reading {
    fn is_at_end(&self) -> bool {
        self.offset >= self.reader.size_bytes()
    }

    /// The next pieces; none at the end.
    fn window(mut self) -> Result<Window> {
        let mut pieces = Vec::new();
        let mut left = WINDOW_BYTES;
        while left > 0 && !self.is_at_end() {
            let piece = self.reader.read_at(self.offset, left.min(MAX_CHUNK_DATA_BYTES))?;
            if piece.is_empty() {
                let Self { digest, offset, reader } = self;
                return Err(Error::corrupt(format!(
                    "blob {digest} ends at {offset} instead of {}",
                    reader.size_bytes()
                )));
            }
            self.offset += piece.len() as u64;
            left = left.saturating_sub(piece.len());
            pieces.push(piece);
        }
        Ok((self, pieces))
    }
}

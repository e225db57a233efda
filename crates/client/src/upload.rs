//! Blobs on their way to a server.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use granary_castore::{BlobDigest, Error, Result};
use granary_proto::{
    MAX_CHUNK_DATA_BYTES, MAX_MISSING_BLOBS, blob_digest,
    castore::{BlobChunk, StatBlobRequest},
    granary::MissingBlobsRequest,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_stream::Stream;
use tonic::Code;

use crate::{
    client::Connection,
    limits::{MAX_UPLOADS, MAX_WAITING_PIECES},
    status,
};

/// Those of `digests` that the server does not have, in the same order.
pub(crate) async fn missing(
    connection: &Arc<Connection>,
    digests: &[BlobDigest],
) -> Result<Vec<BlobDigest>> {
    const DOING: &str = "asking which blobs are missing";
    let mut missing = Vec::new();
    for asked in digests.chunks(MAX_MISSING_BLOBS) {
        let Some(mut own) = connection.own() else {
            missing.extend(missing_by_stat(connection, asked).await?);
            continue;
        };
        let digests = asked.iter().map(|digest| Bytes::copy_from_slice(digest.as_bytes()));
        match own.missing_blobs(MissingBlobsRequest { digests: digests.collect() }).await {
            Ok(answer) => {
                for (index, digest) in answer.into_inner().missing.iter().enumerate() {
                    let digest = blob_digest(format_args!("missing[{index}]"), digest);
                    missing.push(digest.map_err(|error| status::bad_answer(DOING, error))?);
                }
            }
            Err(status) if status.code() == Code::Unimplemented => {
                connection.set_foreign();
                missing.extend(missing_by_stat(connection, asked).await?);
            }
            Err(status) => return Err(status::to_error(DOING, &status)),
        }
    }
    Ok(missing)
}

/// The same, blob by blob: what every server can answer.
async fn missing_by_stat(
    connection: &Arc<Connection>,
    digests: &[BlobDigest],
) -> Result<Vec<BlobDigest>> {
    let mut answers = JoinSet::new();
    let mut absent = vec![false; digests.len()];
    let mut next = 0;
    loop {
        while next < digests.len() && answers.len() < MAX_UPLOADS {
            let (connection, digest, index) = (Arc::clone(connection), digests[next], next);
            answers.spawn(async move { (index, is_absent(&connection, digest).await) });
            next += 1;
        }
        let Some(answer) = answers.join_next().await else { break };
        let (index, answer) = answer.map_err(ended)?;
        absent[index] = answer?;
    }
    let digests = digests.iter().zip(absent);
    Ok(digests.filter(|(_, absent)| *absent).map(|(digest, _)| *digest).collect())
}

async fn is_absent(connection: &Connection, digest: BlobDigest) -> Result<bool> {
    let digest_bytes = Bytes::copy_from_slice(digest.as_bytes());
    let request = StatBlobRequest { digest: digest_bytes, send_chunks: false, send_bao: false };
    match connection.blobs().stat(request).await {
        Ok(_) => Ok(false),
        Err(status) if status.code() == Code::NotFound => Ok(true),
        Err(status) => Err(status::to_error(&format!("asking for blob {digest}"), &status)),
    }
}

/// The error of a task that did not end by itself.
pub(crate) fn ended(error: tokio::task::JoinError) -> Error {
    Error::unavailable("a transfer was cut, by a panic or by the end of the runtime").because(error)
}

/// Sends a blob that is in memory.
pub(crate) async fn whole(
    connection: &Connection,
    digest: BlobDigest,
    contents: Bytes,
) -> Result<()> {
    let pieces = Pieces { rest: contents };
    let answer = connection.blobs().put(tokio_stream::iter(pieces)).await;
    check_answer(connection, digest, answer)
}

fn check_answer(
    connection: &Connection,
    expected: BlobDigest,
    answer: Result<tonic::Response<granary_proto::castore::PutBlobResponse>, tonic::Status>,
) -> Result<()> {
    let doing = || format!("storing blob {expected}");
    let answer = answer.map_err(|status| status::to_error(&doing(), &status))?.into_inner();
    let actual = blob_digest("digest", &answer.digest);
    let actual = actual.map_err(|error| status::bad_answer(&doing(), error))?;
    if actual == expected {
        return Ok(());
    }
    let url = &connection.url;
    Err(Error::corrupt(format!("{url} stored blob {expected} as {actual}")))
}

/// Cuts a blob into messages.
struct Pieces {
    rest: Bytes,
}

impl Iterator for Pieces {
    type Item = BlobChunk;

    fn next(&mut self) -> Option<BlobChunk> {
        let len = self.rest.len().min(MAX_CHUNK_DATA_BYTES);
        (len > 0).then(|| BlobChunk { data: self.rest.split_to(len) })
    }
}

/// A blob that is sent while it is written.
pub(crate) struct Streamed {
    pieces: mpsc::Sender<Piece>,
    /// Tells the task what digest the answer must have.
    digest: oneshot::Sender<BlobDigest>,
}

enum Piece {
    Data(Bytes),
    End,
}

impl Streamed {
    /// Begins an upload in `tasks`. It ends with what `finish` gives it.
    pub(crate) fn start(
        connection: &Arc<Connection>,
    ) -> (Self, impl Future<Output = Result<()>> + Send + use<>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING_PIECES);
        let (digest, expected) = oneshot::channel();
        let connection = Arc::clone(connection);
        let upload = async move {
            let answer = connection.blobs().put(Incoming { pieces: receiver }).await;
            let doing = "storing a blob while it is written";
            let answer = answer.map_err(|status| status::to_error(doing, &status))?;
            let digest = expected.await.map_err(|_| {
                Error::unavailable(format!("{doing}: the server answered before its end"))
            })?;
            check_answer(&connection, digest, Ok(answer))
        };
        (Self { pieces: sender, digest }, upload)
    }

    /// Hands on the next bytes. False if the upload has ended, which says why itself.
    pub(crate) async fn send(&mut self, data: Bytes) -> bool {
        tokio::select! {
            sent = self.pieces.send(Piece::Data(data)) => sent.is_ok(),
            () = self.digest.closed() => false,
        }
    }

    /// Ends the blob, whose answer must have that digest.
    pub(crate) async fn finish(mut self, digest: BlobDigest) {
        // If either fails, the upload has ended before and says why itself.
        tokio::select! {
            _ = self.pieces.send(Piece::End) => {}
            () = self.digest.closed() => {}
        }
        self.digest.send(digest).ok();
    }
}

/// The messages of a streamed blob.
struct Incoming {
    pieces: mpsc::Receiver<Piece>,
}

impl Stream for Incoming {
    type Item = BlobChunk;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<BlobChunk>> {
        match self.pieces.poll_recv(cx) {
            Poll::Ready(Some(Piece::Data(data))) => Poll::Ready(Some(BlobChunk { data })),
            Poll::Ready(Some(Piece::End)) => Poll::Ready(None),
            // IMPORTANT: given up without an end. If the stream ended here, the server would
            // store what it has as a blob; so it hangs, until the call is cancelled.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_at_the_limit() {
        let lengths = |len: usize| -> Vec<_> {
            let pieces = Pieces { rest: Bytes::from(vec![0; len]) };
            pieces.map(|piece| piece.data.len()).collect()
        };
        assert_eq!(lengths(0), [] as [usize; 0]);
        assert_eq!(lengths(1), [1]);
        assert_eq!(lengths(MAX_CHUNK_DATA_BYTES), [MAX_CHUNK_DATA_BYTES]);
        assert_eq!(lengths(MAX_CHUNK_DATA_BYTES + 1), [MAX_CHUNK_DATA_BYTES, 1]);
    }
}

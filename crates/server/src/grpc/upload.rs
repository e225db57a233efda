//! A blob on its way into the store.

use std::{mem, sync::Arc};

use bytes::{Bytes, BytesMut};
use granary_castore::{BlobDigest, Castore, Root, WriteBatch};
use tonic::Status;

use super::blocking;

/// How much is collected before the store is called: a call costs more than a small copy.
const WINDOW_BYTES: usize = 1 << 20;

/// Pieces of at least this length are not copied, and keep the buffer that they were received
/// in, which may have room for the longest message. There are few of them in a window.
const SHARED_PIECE_BYTES: usize = 256 << 10;

/// Collects what arrives, and writes it window by window. Nothing of it becomes visible
/// before [`finish`](Self::finish).
pub(super) struct Upload {
    castore: Arc<dyn Castore>,
    /// There is one once the first window is full.
    batch: Option<Box<dyn WriteBatch>>,
    waiting: Vec<Bytes>,
    /// What comes behind those: small pieces, joined.
    joined: BytesMut,
    waiting_bytes: usize,
}

impl Upload {
    pub(super) fn new(castore: Arc<dyn Castore>) -> Self {
        let (waiting, joined) = (Vec::new(), BytesMut::new());
        Self { castore, batch: None, waiting, joined, waiting_bytes: 0 }
    }

    pub(super) async fn push(&mut self, data: Bytes) -> Result<(), Status> {
        self.waiting_bytes += data.len();
        if data.len() < SHARED_PIECE_BYTES {
            self.joined.extend_from_slice(&data);
        } else {
            self.close_joined();
            self.waiting.push(data);
        }
        if self.waiting_bytes < WINDOW_BYTES {
            return Ok(());
        }
        self.close_joined();
        let (castore, batch) = (self.castore.clone(), self.batch.take());
        let pieces = mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let written = blocking::run(move || {
            let mut batch = batch.map_or_else(|| castore.batch(), Ok)?;
            pieces.iter().try_for_each(|piece| batch.write(piece))?;
            Ok(batch)
        });
        self.batch = Some(written.await?);
        Ok(())
    }

    /// Whether all that was pushed is written.
    pub(super) fn holds_nothing(&self) -> bool {
        self.waiting_bytes == 0
    }

    fn close_joined(&mut self) {
        if !self.joined.is_empty() {
            self.waiting.push(self.joined.split().freeze());
        }
    }

    /// Ends the blob, and returns when it is durable.
    pub(super) async fn finish(mut self) -> Result<BlobDigest, Status> {
        self.close_joined();
        let Self { castore, batch, waiting, .. } = self;
        blocking::run(move || {
            let whole = batch.is_none();
            let mut batch = batch.map_or_else(|| castore.batch(), Ok)?;
            let digest = if whole {
                batch.put_blob(joined(waiting))?
            } else {
                waiting.iter().try_for_each(|piece| batch.write(piece))?;
                batch.finish_blob()?
            };
            batch.lease(&Root::Blob(digest))?;
            batch.commit()?;
            Ok(digest)
        })
        .await
    }
}

/// All pieces as one. A blob that came in one message is not copied.
fn joined(pieces: Vec<Bytes>) -> Bytes {
    match <[Bytes; 1]>::try_from(pieces) {
        Ok([whole]) => whole,
        Err(pieces) => pieces.concat().into(),
    }
}

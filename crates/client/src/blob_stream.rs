//! A blob or chunk as it streams in, from its beginning to its end.

use std::sync::Arc;

use bytes::Bytes;
use granary_castore::{BlobDigest, Error, Result};
use granary_proto::castore::{BlobChunk, ReadBlobRequest};
use tonic::{Code, Streaming};

use crate::{client::Connection, status};

/// A blob on its way here. Its digest is checked when it has ended.
pub(crate) struct BlobStream {
    connection: Arc<Connection>,
    digest: BlobDigest,
    messages: Streaming<BlobChunk>,
    hasher: blake3::Hasher,
    position: u64,
}

impl BlobStream {
    /// Begins to read; `None` if it is not stored.
    pub(crate) fn open(connection: &Arc<Connection>, digest: BlobDigest) -> Result<Option<Self>> {
        let request = ReadBlobRequest { digest: Bytes::copy_from_slice(digest.as_bytes()) };
        let mut blobs = connection.blobs();
        match connection.runtime.block_on(blobs.read(request)) {
            Ok(response) => Ok(Some(Self {
                connection: Arc::clone(connection),
                digest,
                messages: response.into_inner(),
                hasher: blake3::Hasher::new(),
                position: 0,
            })),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status::to_error(&doing(&digest), &status)),
        }
    }

    /// The next bytes, not checked yet; `None` at the end, when all of them are.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let message = self.connection.runtime.block_on(self.messages.message());
            match message.map_err(|status| status::to_error(&doing(&self.digest), &status))? {
                Some(BlobChunk { data }) if data.is_empty() => {}
                Some(BlobChunk { data }) => {
                    self.hasher.update(&data);
                    self.position += data.len() as u64;
                    return Ok(Some(data));
                }
                None => return self.check().map(|()| None),
            }
        }
    }

    fn check(&self) -> Result<()> {
        let actual = BlobDigest::from(self.hasher.finalize());
        if actual == self.digest {
            return Ok(());
        }
        let Self { digest, connection, .. } = self;
        let url = &connection.url;
        Err(Error::corrupt(format!("{url} sent bytes for blob {digest} that have digest {actual}")))
    }

    /// How many bytes came so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }
}

fn doing(digest: &BlobDigest) -> String {
    format!("reading blob {digest}")
}

//! `BlobService`.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use granary_castore::{BlobDigest, Castore, Result, Root, Touch};
use granary_proto::{
    MAX_STAT_BYTES, blob_digest,
    castore::{
        BlobChunk, PutBlobResponse, ReadBlobRequest, StatBlobRequest, StatBlobResponse,
        blob_service_server::BlobService, stat_blob_response::ChunkMeta,
    },
    encoded_len,
};
use tonic::{Request, Response, Status, Streaming};

use super::{bao, blocking, read::BlobStreams, status, upload::Upload, uploads::Uploads};

/// Blobs up to this length are sent without their chunks: a peer opens each chunk with two
/// calls of its own, which costs more than the blob.
const MAX_WHOLE_BYTES: u64 = 1 << 20;

/// The fewest bytes that a chunk takes in a reply: two keys, two lengths, a digest, a size.
const MIN_CHUNK_META_BYTES: usize = 38;

/// The most bytes that key and length of the field `bao` take.
const BAO_FIELD_BYTES: u64 = 6;

/// Serves the blobs of a store.
#[derive(Clone)]
pub(super) struct Blobs {
    castore: Arc<dyn Castore>,
    streams: BlobStreams,
    uploads: Uploads,
}

impl Blobs {
    pub(super) fn new(castore: Arc<dyn Castore>, uploads: Uploads) -> Self {
        let streams = BlobStreams::new(castore.clone());
        Self { castore, streams, uploads }
    }
}

type Chunks = BoxStream<'static, Result<BlobChunk, Status>>;

#[tonic::async_trait]
impl BlobService for Blobs {
    async fn stat(
        &self,
        request: Request<StatBlobRequest>,
    ) -> Result<Response<StatBlobResponse>, Status> {
        let request = request.into_inner();
        let digest = blob_digest("digest", &request.digest).map_err(|e| status::of_field(&e))?;
        let castore = self.castore.clone();
        let found = blocking::run(move || stat(&*castore, &digest, &request)).await?;
        found
            .map(Response::new)
            .ok_or_else(|| Status::not_found(format!("blob or chunk {digest} is not stored")))
    }

    type ReadStream = Chunks;

    async fn read(&self, request: Request<ReadBlobRequest>) -> Result<Response<Chunks>, Status> {
        let digest = blob_digest("digest", &request.into_inner().digest)
            .map_err(|error| status::of_field(&error))?;
        self.streams.open(digest).await.map(Response::new)
    }

    type GetStream = Chunks;

    async fn get(&self, request: Request<ReadBlobRequest>) -> Result<Response<Chunks>, Status> {
        self.read(request).await
    }

    async fn put(
        &self,
        request: Request<Streaming<BlobChunk>>,
    ) -> Result<Response<PutBlobResponse>, Status> {
        let mut messages = self.uploads.begin("data", request).await?;
        let mut upload = Upload::new(self.castore.clone());
        while let Some(BlobChunk { data }) = messages.next().await? {
            upload.push(data).await?;
            if upload.holds_nothing() {
                messages.written();
            }
        }
        let digest = upload.finish().await?;
        Ok(Response::new(PutBlobResponse { digest: Bytes::copy_from_slice(digest.as_bytes()) }))
    }
}

fn stat(
    castore: &dyn Castore,
    digest: &BlobDigest,
    asked: &StatBlobRequest,
) -> Result<Option<StatBlobResponse>> {
    let Some(known) = castore.stat(digest)? else { return Ok(None) };
    // Who only asks whether it is there may rely on that, and not send it. Who asks for more is
    // going to read.
    let only_asks = !asked.send_chunks && !asked.send_bao;
    if only_asks && !castore.touch(&Root::Blob(*digest), Touch::Lease)? {
        return Ok(None);
    }
    let mut reply = StatBlobResponse::default();
    if asked.send_chunks && known.size_bytes > MAX_WHOLE_BYTES {
        let Some(chunks) = castore.chunks(digest, MAX_STAT_BYTES / MIN_CHUNK_META_BYTES)? else {
            return Ok(None);
        };
        reply.chunks = chunks
            .iter()
            .map(|chunk| ChunkMeta {
                digest: Bytes::copy_from_slice(chunk.digest.as_bytes()),
                size: chunk.size_bytes,
            })
            .collect();
        if encoded_len(&reply) > MAX_STAT_BYTES {
            reply.chunks.clear();
        }
    }
    if asked.send_bao {
        let total =
            encoded_len(&reply) as u64 + BAO_FIELD_BYTES + bao::encoded_len(known.size_bytes);
        if total <= MAX_STAT_BYTES as u64 {
            let Some(bao) = bao::encode(castore, digest)? else { return Ok(None) };
            reply.bao = bao;
        }
    }
    Ok(Some(reply))
}

//! Servers that know only the services of tvix, or send wrong bytes.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::Router;
use bytes::Bytes;
use granary_castore::{BlobDigest, BlobService as _, Castore, ChunkDigest, Error};
use granary_proto::castore::{
    BlobChunk, PutBlobResponse, ReadBlobRequest, StatBlobRequest, StatBlobResponse,
    blob_service_server::{BlobService, BlobServiceServer},
    stat_blob_response::ChunkMeta,
};
use granary_store::StatsSource as _;
use granary_testkit::Random;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::servers::{Server, runtime};

/// Blobs in a map, as another server might keep them.
#[derive(Clone, Default)]
struct Foreign {
    blobs: Arc<Mutex<HashMap<Bytes, Bytes>>>,
    puts: Arc<AtomicUsize>,
    /// Flips the byte of every blob at this place on its way out.
    wrong_byte: Option<usize>,
    /// Lists chunks of this length.
    chunk_len: Option<usize>,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<BlobChunk, Status>> + Send>>;

impl Foreign {
    fn find(&self, digest: &Bytes) -> Result<Bytes, Status> {
        let blobs = self.blobs.lock().expect("no panic");
        blobs.get(digest).cloned().ok_or_else(|| Status::not_found("not here"))
    }

    fn insert(&self, contents: &[u8]) -> BlobDigest {
        let digest = BlobDigest::of(contents);
        let key = Bytes::copy_from_slice(digest.as_bytes());
        self.blobs.lock().expect("no panic").insert(key, Bytes::copy_from_slice(contents));
        digest
    }

    fn serve(&self) -> Server {
        let service = BlobServiceServer::new(self.clone()).max_decoding_message_size(16 << 20);
        let router = Router::new()
            .route_service("/tvix.castore.v1.BlobService/{*method}", service)
            .fallback(granary_server::grpc::fallback);
        Server::with(runtime(), "127.0.0.1:0", router)
    }
}

#[tonic::async_trait]
impl BlobService for Foreign {
    async fn stat(
        &self,
        request: Request<StatBlobRequest>,
    ) -> Result<Response<StatBlobResponse>, Status> {
        let request = request.into_inner();
        let contents = self.find(&request.digest)?;
        let mut response = StatBlobResponse::default();
        if let Some(len) = self.chunk_len
            && request.send_chunks
        {
            for chunk in contents.chunks(len) {
                let digest = Bytes::copy_from_slice(ChunkDigest::of(chunk).as_bytes());
                response.chunks.push(ChunkMeta { digest, size: chunk.len() as u64 });
            }
        }
        Ok(Response::new(response))
    }

    type ReadStream = Chunks;

    async fn read(&self, request: Request<ReadBlobRequest>) -> Result<Response<Chunks>, Status> {
        let mut contents = self.find(&request.into_inner().digest)?.to_vec();
        if let Some(byte) = self.wrong_byte.and_then(|place| contents.get_mut(place)) {
            *byte ^= 1;
        }
        let messages: Vec<_> = contents
            .chunks(100_000)
            .map(|data| Ok(BlobChunk { data: Bytes::copy_from_slice(data) }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    type GetStream = Chunks;

    async fn get(&self, request: Request<ReadBlobRequest>) -> Result<Response<Chunks>, Status> {
        self.read(request).await
    }

    async fn put(
        &self,
        request: Request<Streaming<BlobChunk>>,
    ) -> Result<Response<PutBlobResponse>, Status> {
        self.puts.fetch_add(1, Ordering::Relaxed);
        let mut messages = request.into_inner();
        let mut contents = Vec::new();
        while let Some(message) = messages.message().await? {
            contents.extend_from_slice(&message.data);
        }
        let digest = self.insert(&contents);
        Ok(Response::new(PutBlobResponse { digest: Bytes::copy_from_slice(digest.as_bytes()) }))
    }
}

fn blob(len: usize) -> Vec<u8> {
    Random::new(70).incompressible(len)
}

#[test]
fn only_what_is_missing_is_sent() {
    let foreign = Foreign::default();
    let blobs: Vec<_> = (0..100).map(u32::to_le_bytes).collect();
    for blob in &blobs[..60] {
        foreign.insert(blob);
    }
    let server = foreign.serve();
    let client = server.connect();
    let mut batch = client.batch().expect("a batch");
    for blob in &blobs {
        batch.put_blob(Bytes::copy_from_slice(blob)).expect("taken");
        batch.put_blob(Bytes::copy_from_slice(blob)).expect("taken");
    }
    batch.commit().expect("committed");
    assert_eq!(foreign.puts.load(Ordering::Relaxed), 40);
    for blob in &blobs {
        assert!(client.stat(&BlobDigest::of(blob)).expect("an answer").is_some());
    }
    let error = client.stats().expect_err("it knows no numbers");
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
}

#[test]
fn blobs_of_unknown_length_are_read() {
    let foreign = Foreign::default();
    let server = foreign.serve();
    let client = server.connect();
    for len in [0, 1, 1 << 20, (5 << 20) + 1] {
        let contents = blob(len);
        let digest = foreign.insert(&contents);
        let stat = client.stat(&digest).expect("an answer").expect("it is stored");
        assert_eq!(stat.size_bytes, len as u64);
        let mut reader = client.open(&digest).expect("an answer").expect("it is stored");
        assert_eq!(reader.size_bytes(), len as u64);
        // Forward, and back, and to the end.
        for offset in [len / 2, len / 4, len.saturating_sub(1), 0] {
            let bytes = reader.read_at(offset as u64, 1000).expect("it is read");
            assert_eq!(bytes.is_empty(), offset >= len);
            assert!(contents[offset.min(len)..].starts_with(&bytes), "at {offset} of {len}");
        }
    }
}

#[test]
fn a_wrong_byte_is_corrupt() {
    const LEN: usize = 5 << 20;
    for chunk_len in [None, Some(300_000)] {
        for wrong_byte in [0, LEN / 2, LEN - 1] {
            let foreign = Foreign { wrong_byte: Some(wrong_byte), chunk_len, ..Foreign::default() };
            let contents = blob(LEN);
            let digest = foreign.insert(&contents);
            let server = foreign.serve();
            let client = server.connect();
            // Without chunks the whole is checked before it is opened.
            let read = client.open(&digest).and_then(|reader| {
                let mut reader = reader.expect("it is stored");
                let mut offset = 0;
                loop {
                    let bytes = reader.read_at(offset, usize::MAX)?;
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    let start = usize::try_from(offset).expect("small");
                    assert!(contents[start..].starts_with(&bytes), "a wrong byte was handed out");
                    offset += bytes.len() as u64;
                }
            });
            let error = read.expect_err("a byte is wrong");
            assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
            assert!(error.to_string().contains(server.url()), "{error}");
        }
    }
}

#[test]
fn a_wrong_chunk_is_corrupt_at_random_places_too() {
    let foreign = Foreign { wrong_byte: Some(7), chunk_len: Some(300_000), ..Foreign::default() };
    let contents = blob(2 << 20);
    for chunk in contents.chunks(300_000) {
        foreign.insert(chunk);
    }
    let digest = foreign.insert(&contents);
    let server = foreign.serve();
    let client = server.connect();
    let mut reader = client.open(&digest).expect("an answer").expect("it is stored");
    let error = reader.read_at(1_000_000, 10).expect_err("a byte is wrong");
    assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
}

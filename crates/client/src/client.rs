//! The client and its calls about blobs.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use granary_castore::{
    BlobDigest, BlobReader, BlobService, BlobStat, Castore, ChunkDigest, ChunkMeta, Error, Result,
    WriteBatch,
};
use granary_proto::{
    MAX_BLOB_CHUNK_BYTES, MAX_DIRECTORY_BYTES, MAX_PATH_INFO_BYTES, MAX_STAT_BYTES, blob_digest,
    castore::{
        StatBlobRequest, StatBlobResponse, blob_service_client::BlobServiceClient,
        directory_service_client::DirectoryServiceClient,
    },
    granary::{
        StatsRequest, integrity_service_client::IntegrityServiceClient,
        retention_service_client::RetentionServiceClient, store_service_client::StoreServiceClient,
    },
    store::path_info_service_client::PathInfoServiceClient,
};
use granary_store::{StatsSource, StoreStats};
use tokio::runtime::Handle;
use tonic::{Code, transport::Channel};

use crate::{
    address,
    batch::Batch,
    blob_reader,
    blob_stream::BlobStream,
    limits::{MAX_INTEGRITY_EVENT_BYTES, MAX_RETENTION_ANSWER_BYTES},
    status,
};

/// The bytes of a length in front of the tree that verifies a blob.
const BAO_LENGTH_BYTES: usize = 8;

/// A store elsewhere. Clones share the connection, which is made again when it was lost.
///
/// Its methods wait on the runtime they were given, so none may be called on a thread of a
/// runtime: see the [crate](crate).
#[derive(Clone)]
pub struct Client {
    pub(crate) connection: Arc<Connection>,
}

pub(crate) struct Connection {
    pub(crate) url: String,
    pub(crate) runtime: Handle,
    channel: Channel,
    /// The server has told that it does not know our own service.
    is_foreign: AtomicBool,
}

impl Client {
    /// Connects to the store at `url`: `http://HOST:PORT`, `grpc://HOST:PORT`, `unix:/PATH`
    /// or `grpc+unix:/PATH`. `runtime` must be driven by threads of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if `url` is none of these, [`Error::Unavailable`] if nobody
    /// answers there.
    pub fn connect(url: &str, runtime: Handle) -> Result<Self> {
        let endpoint = address::endpoint(url)?;
        let channel = runtime.block_on(endpoint.connect()).map_err(|error| {
            let what =
                format!("cannot connect to the store at {url}: is `granary daemon` running there?");
            Error::unavailable(what).because(error)
        })?;
        let is_foreign = AtomicBool::new(false);
        let connection = Connection { url: url.to_owned(), runtime, channel, is_foreign };
        Ok(Self { connection: Arc::new(connection) })
    }

    /// The URL that it was connected by.
    pub fn url(&self) -> &str {
        &self.connection.url
    }

    /// What the server says of a blob; `None` if it does not have it.
    fn stat_blob(
        &self,
        digest: &BlobDigest,
        chunks: bool,
        bao: bool,
    ) -> Result<Option<StatBlobResponse>> {
        let request = StatBlobRequest {
            digest: Bytes::copy_from_slice(digest.as_bytes()),
            send_chunks: chunks,
            send_bao: bao,
        };
        let mut blobs = self.connection.blobs();
        match self.connection.runtime.block_on(blobs.stat(request)) {
            Ok(response) => Ok(Some(response.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status::to_error(&format!("asking for blob {digest}"), &status)),
        }
    }

    /// The chunks of a blob as the server lists them, none if it does not.
    fn listed_chunks(&self, digest: &BlobDigest) -> Result<Option<Vec<ChunkMeta>>> {
        let Some(stat) = self.stat_blob(digest, true, false)? else { return Ok(None) };
        let chunks = stat.chunks.iter().enumerate().map(|(index, chunk)| {
            let digest = blob_digest(format_args!("chunks[{index}].digest"), &chunk.digest)?;
            Ok(ChunkMeta { digest: ChunkDigest::from(digest), size_bytes: chunk.size })
        });
        let chunks: Result<Vec<_>, _> = chunks.collect();
        let doing = || format!("asking for the chunks of blob {digest}");
        chunks.map(Some).map_err(|error| status::bad_answer(&doing(), error))
    }

    /// The length of a blob from the head of its bao, if the server sends one. The wire has
    /// no other field for it.
    fn announced_size(&self, digest: &BlobDigest) -> Result<Option<u64>> {
        let stat = self.stat_blob(digest, false, true)?;
        let head = stat.as_ref().and_then(|stat| stat.bao.first_chunk::<BAO_LENGTH_BYTES>());
        Ok(head.map(|length| u64::from_le_bytes(*length)))
    }

    /// The length of a blob without known chunks; `None` if it is not stored.
    pub(crate) fn unlisted_size(&self, digest: &BlobDigest) -> Result<Option<u64>> {
        if let Some(size_bytes) = self.announced_size(digest)? {
            return Ok(Some(size_bytes));
        }
        let Some(mut stream) = BlobStream::open(&self.connection, *digest)? else {
            return Ok(None);
        };
        while stream.next()?.is_some() {}
        Ok(Some(stream.position()))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.connection.url).finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn blobs(&self) -> BlobServiceClient<Channel> {
        let limit = MAX_BLOB_CHUNK_BYTES.max(MAX_STAT_BYTES);
        BlobServiceClient::new(self.channel.clone()).max_decoding_message_size(limit)
    }

    pub(crate) fn directories(&self) -> DirectoryServiceClient<Channel> {
        DirectoryServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_DIRECTORY_BYTES)
    }

    pub(crate) fn path_infos(&self) -> PathInfoServiceClient<Channel> {
        PathInfoServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_PATH_INFO_BYTES)
    }

    /// What checks a store.
    pub(crate) fn integrity(&self) -> IntegrityServiceClient<Channel> {
        IntegrityServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_INTEGRITY_EVENT_BYTES)
    }

    /// What keeps things in a store.
    pub(crate) fn retention(&self) -> RetentionServiceClient<Channel> {
        RetentionServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_RETENTION_ANSWER_BYTES)
    }

    /// Our own service, unless the server is known not to have it.
    pub(crate) fn own(&self) -> Option<StoreServiceClient<Channel>> {
        let is_foreign = self.is_foreign.load(Ordering::Relaxed);
        (!is_foreign).then(|| StoreServiceClient::new(self.channel.clone()))
    }

    /// Remembers that the server does not know our own service.
    pub(crate) fn set_foreign(&self) {
        self.is_foreign.store(true, Ordering::Relaxed);
    }
}

impl BlobService for Client {
    fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>> {
        let Some(chunks) = self.listed_chunks(digest)? else { return Ok(None) };
        let size_bytes = if chunks.is_empty() {
            self.unlisted_size(digest)?
        } else {
            Some(blob_reader::total_size(digest, &chunks)?)
        };
        Ok(size_bytes.map(|size_bytes| BlobStat { size_bytes }))
    }

    fn chunks(&self, digest: &BlobDigest, max_chunks: usize) -> Result<Option<Vec<ChunkMeta>>> {
        let chunks = self.listed_chunks(digest)?;
        Ok(chunks.map(|chunks| if chunks.len() > max_chunks { Vec::new() } else { chunks }))
    }

    fn open(&self, digest: &BlobDigest) -> Result<Option<Box<dyn BlobReader>>> {
        let Some(chunks) = self.listed_chunks(digest)? else { return Ok(None) };
        blob_reader::open(self, *digest, chunks)
    }
}

impl Castore for Client {
    fn batch(&self) -> Result<Box<dyn WriteBatch>> {
        Ok(Box::new(Batch::new(self.clone())))
    }
}

impl StatsSource for Client {
    /// The numbers of the store.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the other end is not Granary.
    fn stats(&self) -> Result<StoreStats> {
        const DOING: &str = "asking for the numbers of the store";
        let Some(mut own) = self.connection.own() else {
            return Err(Error::invalid(format!("{DOING}: {} is no Granary", self.url())));
        };
        let stats = self.connection.runtime.block_on(own.stats(StatsRequest {}));
        let stats = stats.map_err(|status| status::to_error(DOING, &status))?;
        Ok(stats.into_inner().into())
    }
}

//! Many uploads at a time, and silent ones.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use granary_castore::{
    BlobDigest, BlobReader, BlobService, BlobStat, Castore, ChunkMeta, DirectoryDigest,
    DirectoryService, MemoryStore, Result, WriteBatch,
};
use granary_proto::castore::{
    BlobChunk, Directory, FileNode, GetDirectoryRequest, PutBlobResponse, StatBlobRequest,
    blob_service_client::BlobServiceClient, get_directory_request::ByWhat,
};
use granary_server::grpc::GrpcOptions;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, transport::Channel};

use super::{Server, all, noise, refused, router_with};

/// Longest that anything here may take: far more than it does, so that only a hang fails.
const LIMIT: Duration = Duration::from_secs(60);

/// Time for something that should not happen.
const PAUSE: Duration = Duration::from_millis(300);

/// Fills a window of an upload, so that the store is called.
const WINDOW_BYTES: usize = 1 << 20;

/// A store in memory that counts what it is asked for.
#[derive(Clone, Default)]
pub(super) struct Counting {
    memory: MemoryStore,
    pub(super) batches: Arc<AtomicUsize>,
    pub(super) directories: Arc<AtomicUsize>,
}

impl BlobService for Counting {
    fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>> {
        self.memory.stat(digest)
    }

    fn chunks(&self, digest: &BlobDigest, max_chunks: usize) -> Result<Option<Vec<ChunkMeta>>> {
        self.memory.chunks(digest, max_chunks)
    }

    fn open(&self, digest: &BlobDigest) -> Result<Option<Box<dyn BlobReader>>> {
        self.memory.open(digest)
    }
}

impl DirectoryService for Counting {
    fn directory(&self, digest: &DirectoryDigest) -> Result<Option<granary_castore::Directory>> {
        self.directories.fetch_add(1, Ordering::Relaxed);
        self.memory.directory(digest)
    }
}

impl Castore for Counting {
    fn batch(&self) -> Result<Box<dyn WriteBatch>> {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.memory.batch()
    }
}

pub(super) async fn within<F: Future>(work: F) -> F::Output {
    timeout(LIMIT, work).await.expect("this should not take so long")
}

pub(super) async fn start(options: GrpcOptions) -> (Server, Counting) {
    let store = Counting::default();
    (Server::serving(router_with(Arc::new(store.clone()), options).await).await, store)
}

async fn connect(server: &Server) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", server.address)).expect("a URI");
    endpoint.connect().await.expect("the daemon listens")
}

/// An upload that is sent message by message.
struct Upload {
    messages: mpsc::Sender<BlobChunk>,
    answer: JoinHandle<Result<Response<PutBlobResponse>, Status>>,
}

impl Upload {
    fn begin(channel: &Channel) -> Self {
        let (messages, receiver) = mpsc::channel(1);
        let mut client = BlobServiceClient::new(channel.clone());
        let put = async move { client.put(ReceiverStream::new(receiver)).await };
        Self { messages, answer: tokio::spawn(put) }
    }

    async fn send(&self, data: &[u8]) {
        let message = BlobChunk { data: Bytes::copy_from_slice(data) };
        within(self.messages.send(message)).await.expect("the upload goes on");
    }

    async fn end(self) -> Result<Bytes, Status> {
        drop(self.messages);
        let answer = within(self.answer).await.expect("no panic");
        answer.map(|answer| answer.into_inner().digest)
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let reached = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(LIMIT, reached).await.is_ok(), "{what} did not come");
}

fn digest(contents: &[u8]) -> Bytes {
    Bytes::copy_from_slice(BlobDigest::of(contents).as_bytes())
}

#[tokio::test]
async fn further_uploads_wait_and_then_go_on() {
    let most = GrpcOptions::default().max_uploading_connections;
    let (server, store) = start(GrpcOptions::default()).await;
    let contents = noise(WINDOW_BYTES);
    let mut running = Vec::new();
    for _ in 0..most {
        let upload = Upload::begin(&connect(&server).await);
        upload.send(&contents).await;
        running.push(upload);
    }
    let batches = || store.batches.load(Ordering::Relaxed);
    until("the batch of each upload", || batches() == most).await;

    let further = Upload::begin(&connect(&server).await);
    further.send(&contents).await;
    sleep(PAUSE).await;
    assert_eq!(batches(), most, "an upload beyond the limit was read");
    let ended = running.pop().expect("some run").end().await;
    assert_eq!(ended.expect("valid"), digest(&contents));
    assert_eq!(further.end().await.expect("valid"), digest(&contents));
}

#[tokio::test]
async fn uploads_of_one_connection_do_not_stand_in_each_others_way() {
    let options = GrpcOptions { max_uploading_connections: 1, ..GrpcOptions::default() };
    let (server, _) = start(options).await;
    let contents = noise(200_000);
    let (begin, end) = contents.split_at(100_000);
    // Together more than the window of a connection, so that it would be full of uploads that
    // nobody reads. Those that have begun last end first.
    let mut uploads = Vec::new();
    for _ in 0..100 {
        let upload = Upload::begin(&server.channel);
        upload.send(begin).await;
        uploads.push(upload);
    }
    let other = Upload::begin(&connect(&server).await);
    other.send(begin).await;
    for upload in uploads.into_iter().rev() {
        upload.send(end).await;
        assert_eq!(upload.end().await.expect("valid"), digest(&contents));
    }
    other.send(end).await;
    assert_eq!(other.end().await.expect("valid"), digest(&contents));
}

#[tokio::test]
async fn silent_uploads_are_given_up() {
    let options = GrpcOptions {
        max_uploading_connections: 1,
        upload_idle_timeout: PAUSE,
        ..GrpcOptions::default()
    };
    let (server, _) = start(options).await;
    let contents = noise(2 * WINDOW_BYTES);
    let silent = Upload::begin(&server.channel);
    silent.send(&contents).await;
    let answer = within(silent.answer).await.expect("no panic");
    refused(answer, Code::DeadlineExceeded, "data: nothing of any upload of this connection came");
    let stat = StatBlobRequest { digest: digest(&contents), ..StatBlobRequest::default() };
    refused(server.blobs().stat(stat).await, Code::NotFound, "blob");

    let (messages, receiver) = mpsc::channel(1);
    messages.send(leaf(0)).await.expect("there is room");
    let put = within(server.directories().put(ReceiverStream::new(receiver))).await;
    refused(put, Code::DeadlineExceeded, "Directory: nothing of any upload");
    let absent = within(server.directories().get(by(&leaf(0), false))).await.expect("headers");
    refused(all(absent.into_inner()).await, Code::NotFound, "directory");

    // The slot is free again, for whoever comes.
    let next = Upload::begin(&connect(&server).await);
    next.send(&contents).await;
    assert_eq!(next.end().await.expect("valid"), digest(&contents));
}

#[tokio::test]
async fn an_upload_may_pause_while_others_of_its_connection_go_on() {
    let idle = 10 * PAUSE;
    let options = GrpcOptions { upload_idle_timeout: idle, ..GrpcOptions::default() };
    let (server, _) = start(options).await;
    let paused = Upload::begin(&server.channel);
    paused.send(b"begin ").await;
    let began = Instant::now();
    let other = Upload::begin(&server.channel);
    while began.elapsed() < idle + 2 * PAUSE {
        other.send(b"more").await;
        sleep(PAUSE / 3).await;
    }
    paused.send(b"end").await;
    assert_eq!(paused.end().await.expect("valid"), digest(b"begin end"));
    other.end().await.expect("valid");
}

#[tokio::test]
async fn uploads_hold_no_more_than_the_limit() {
    let options = GrpcOptions { max_held_upload_bytes: 1_000_000, ..GrpcOptions::default() };
    let (server, store) = start(options).await;
    // A part of a message counts as well: this one never comes in full.
    let large = Upload::begin(&server.channel);
    large.send(&noise(3_000_000)).await;
    refused(large.end().await, Code::ResourceExhausted, "the uploads of all clients would hold");
    // Directories wait for their root, and so do those that come in other uploads.
    let (messages, receiver) = mpsc::channel(1);
    let mut client = server.directories();
    let put = tokio::spawn(async move { client.put(ReceiverStream::new(receiver)).await });
    let mut number = 0;
    while messages.send(leaf(number)).await.is_ok() {
        number += 1;
    }
    let put = within(put).await.expect("no panic");
    refused(put, Code::ResourceExhausted, "the uploads of all clients would hold");
    assert_eq!(store.batches.load(Ordering::Relaxed), 0, "something was written");
    // What has ended holds nothing.
    let contents = noise(800_000);
    for _ in 0..3 {
        assert_eq!(server.put(&contents, 100_000).await, digest(&contents));
    }
}

/// A directory of about 4 KB.
pub(super) fn leaf(number: usize) -> Directory {
    let file = |n: usize| FileNode {
        name: format!("{number:08}-{n:0>200}").into(),
        digest: vec![1; 32].into(),
        size: 5,
        executable: false,
    };
    Directory { files: (0..16).map(file).collect(), ..Directory::default() }
}

pub(super) fn by(directory: &Directory, recursive: bool) -> GetDirectoryRequest {
    let checked = granary_castore::Directory::try_from(directory.clone()).expect("valid");
    let digest = Bytes::copy_from_slice(checked.digest().as_bytes());
    GetDirectoryRequest { by_what: Some(ByWhat::Digest(digest)), recursive }
}

//! A thousand clients at once, some of them unfriendly, and the real daemon.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use granary_castore::BlobDigest;
use granary_nix_formats::NarInfo;
use granary_proto::{
    castore::{ReadBlobRequest, blob_service_client::BlobServiceClient},
    store::{
        GetPathInfoRequest, get_path_info_request::ByWhat,
        path_info_service_client::PathInfoServiceClient,
    },
};
use granary_testkit::Random;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tonic::transport::Channel;

use crate::support::{Daemon, Home};

/// Clients that ask over HTTP and over gRPC, and read what comes.
const HTTP_CLIENTS: usize = 500;
const GRPC_CLIENTS: usize = 300;
/// Clients that send half a header, and that ask for much and never read it.
const SILENT_CLIENTS: usize = 100;
const DEAF_CLIENTS: usize = 100;

/// Time for all of it: far more than it takes, so that only a hang fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the daemon may hold at its peak.
const MEMORY_LIMIT_KIB: u64 = 300 << 10;

/// Files that the test has open, in two ends of each connection and some more.
const OPEN_FILES: u64 = 4_096;

/// Files that are asked for, and how long they are.
const FILES: usize = 16;
const FILE_BYTES: usize = 200_000;
/// More than the buffers of two sockets hold.
const LARGE_BYTES: usize = 32 << 20;

/// What is stored.
struct Stored {
    address: String,
    url: String,
    files: Vec<StoredFile>,
    /// Where the NAR of the large file is.
    large: String,
}

struct StoredFile {
    contents: Bytes,
    /// The hash part of its store path.
    hash: String,
}

impl Stored {
    fn new(home: &Home, daemon: &Daemon) -> Self {
        let mut random = Random::new(31);
        let files = (0..FILES).map(|number| {
            let contents = random.compressible(FILE_BYTES);
            let hash = import(home, &format!("file-{number}"), &contents);
            StoredFile { contents: contents.into(), hash }
        });
        let files = files.collect();
        let large = import(home, "large", &random.incompressible(LARGE_BYTES));
        Self { address: daemon.address(), url: daemon.url(), files, large }
    }

    fn file(&self, number: usize) -> &StoredFile {
        &self.files[number % FILES]
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.expect("the daemon listens")
    }

    /// The body of the answer to a GET.
    async fn get(&self, mut stream: TcpStream, path: &str) -> Vec<u8> {
        let request = format!("GET /{path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the daemon reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("the daemon answers");
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        let head_len = answer.windows(4).position(|end| end == b"\r\n\r\n").expect("a header");
        answer.split_off(head_len + 4)
    }

    async fn narinfo(&self, stream: TcpStream, hash: &str) -> NarInfo {
        let text = self.get(stream, &format!("{hash}.narinfo")).await;
        NarInfo::parse(std::str::from_utf8(&text).expect("text")).expect("a narinfo")
    }

    /// Downloads a path as Nix does.
    async fn http_client(&self, stream: TcpStream, number: usize) {
        let narinfo = self.narinfo(stream, &self.file(number).hash).await;
        let nar = self.get(self.connect().await, &narinfo.url).await;
        assert_eq!(nar.len() as u64, narinfo.nar_size);
        assert_eq!(<[u8; 32]>::from(Sha256::digest(&nar)), *narinfo.nar_hash.as_bytes());
    }

    /// Asks for a path info and reads the file.
    async fn grpc_client(&self, channel: Channel, number: usize) {
        let StoredFile { contents, hash } = self.file(number);
        let hash = granary_nix_formats::StorePathHash::parse(hash).expect("a hash part");
        let by_what = Some(ByWhat::ByOutputHash(Bytes::copy_from_slice(hash.as_bytes())));
        let mut path_infos = PathInfoServiceClient::new(channel.clone());
        let found = path_infos.get(GetPathInfoRequest { by_what }).await.expect("it is stored");
        assert!(found.into_inner().node.is_some());
        let digest = Bytes::copy_from_slice(BlobDigest::of(contents).as_bytes());
        let mut blobs = BlobServiceClient::new(channel);
        let mut read =
            blobs.read(ReadBlobRequest { digest }).await.expect("it is stored").into_inner();
        let mut received = Vec::new();
        while let Some(chunk) = read.message().await.expect("it is stored") {
            received.extend_from_slice(&chunk.data);
        }
        assert!(received == *contents, "other bytes came");
    }
}

/// Imports a file and returns the hash part of its store path.
fn import(home: &Home, name: &str, contents: &[u8]) -> String {
    home.file(name, contents);
    let store_path = home.text(["import", name]);
    store_path["/nix/store/".len()..][..32].to_owned()
}

/// Lets this process have as many files open as it needs.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.unwrap_or(OPEN_FILES);
    assert!(maximum >= OPEN_FILES, "this test needs {OPEN_FILES} open files, ulimit -Hn {maximum}");
    if limit.current.is_some_and(|current| current < OPEN_FILES) {
        let raised = Rlimit { current: Some(OPEN_FILES), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("below the hard limit");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_at_once() {
    raise_open_files();
    let home = Home::new();
    let daemon = home.daemon();
    let mut stored = Stored::new(&home, &daemon);
    stored.large = stored.narinfo(stored.connect().await, &stored.large).await.url;
    let stored = Arc::new(stored);
    timeout(PATIENCE, serve_all(Arc::clone(&stored))).await.expect("nobody waits for ever");
    let peak = daemon.peak_kib();
    println!("a thousand clients: {peak} KiB");
    assert!(peak < MEMORY_LIMIT_KIB, "the daemon had {peak} KiB");
    daemon.stop();
}

async fn serve_all(stored: Arc<Stored>) {
    // The unfriendly ones come first and stay to the end.
    let mut unfriendly = Vec::new();
    for number in 0..SILENT_CLIENTS + DEAF_CLIENTS {
        let mut stream = stored.connect().await;
        let request = if number < SILENT_CLIENTS {
            "GET /nix-cache-info HTTP/1.1\r\nHost: te".to_owned()
        } else {
            format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", stored.large)
        };
        stream.write_all(request.as_bytes()).await.expect("the daemon reads");
        unfriendly.push(stream);
    }
    // All are connected before the first of them asks.
    let streams = join_all((0..HTTP_CLIENTS).map(|_| stored.connect())).await;
    let endpoint = Channel::from_shared(stored.url.clone()).expect("a URI");
    let channels = join_all((0..GRPC_CLIENTS).map(|_| endpoint.connect())).await;
    let mut clients = JoinSet::new();
    for (number, stream) in streams.into_iter().enumerate() {
        let stored = Arc::clone(&stored);
        clients.spawn(async move { stored.http_client(stream, number).await });
    }
    for (number, channel) in channels.into_iter().enumerate() {
        let stored = Arc::clone(&stored);
        let channel = channel.expect("the daemon listens");
        clients.spawn(async move { stored.grpc_client(channel, number).await });
    }
    let mut served = 0;
    while let Some(ended) = clients.join_next().await {
        ended.expect("it got what it asked for");
        served += 1;
    }
    assert_eq!(served, HTTP_CLIENTS + GRPC_CLIENTS);
    drop(unfriendly);
}

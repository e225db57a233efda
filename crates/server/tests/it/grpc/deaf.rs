//! Clients that ask for much and then take nothing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use granary_castore::{MemoryStore, Node, Result};
use granary_nix_formats::StorePathHash;
use granary_proto::{
    castore::{Directory, DirectoryNode, directory_service_client::DirectoryServiceClient},
    store::{ListPathInfoRequest, path_info_service_client::PathInfoServiceClient},
};
use granary_server::grpc::{self, GrpcOptions, GrpcServices};
use granary_store::{NarDigest, PathInfo, PathInfoService};
use prost::Message as _;
use tonic::transport::Channel;

use super::{
    FixedStats, Server, all,
    limits::{by, leaf, start, within},
    path_infos::path_info,
};

/// How many directories are below the root that nobody takes.
const LEAVES: usize = 600;

/// Puts a directory over `LEAVES` others.
async fn put_tree(server: &Server) -> Directory {
    let leaves: Vec<_> = (0..LEAVES).map(leaf).collect();
    let children = leaves.iter().enumerate().map(|(number, leaf)| {
        let leaf = granary_castore::Directory::try_from(leaf.clone()).expect("valid");
        DirectoryNode {
            name: format!("{number:0>60}").into(),
            digest: Bytes::copy_from_slice(leaf.digest().as_bytes()),
            size: leaf.size(),
        }
    });
    let root = Directory { directories: children.collect(), ..Directory::default() };
    let upload: Vec<_> = leaves.iter().chain([&root]).cloned().collect();
    server.directories().put(futures::stream::iter(upload)).await.expect("a closure");
    root
}

/// Clients that take nothing.
const DEAF: usize = 128;

/// How many of them may read long windows.
const LONG: usize = 32;

/// A connection on which next to nothing of each answer comes before it is taken.
async fn connect_deaf(server: &Server) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", server.address)).expect("a URI");
    let endpoint =
        endpoint.initial_stream_window_size(1024).initial_connection_window_size(8 << 20);
    endpoint.connect().await.expect("the daemon listens")
}

#[tokio::test]
async fn what_is_read_of_closures_that_nobody_takes_is_bounded() {
    // A window, and for the others what is in the buffers of the connection as well.
    const MOST: usize = LONG * 257 + (DEAF - LONG) * 48;

    let (server, store) = start(GrpcOptions::default()).await;
    let root = put_tree(&server).await;
    let deaf = connect_deaf(&server).await;
    let mut streams = Vec::new();
    for _ in 0..DEAF {
        let mut client = DirectoryServiceClient::new(deaf.clone());
        let stream = within(client.get(by(&root, true))).await.expect("it was put");
        streams.push(stream.into_inner());
    }
    // Each has had its first window, and takes no more of it than this.
    for stream in &mut streams {
        assert_eq!(within(stream.message()).await.expect("it was put"), Some(root.clone()));
    }
    let read = || store.directories.load(Ordering::Relaxed);
    assert!(read() <= MOST, "{} directories were read", read());

    // They leave enough to whoever takes it.
    let closure = within(server.directories().get(by(&root, true))).await.expect("it was put");
    let closure = within(all(closure.into_inner())).await.expect("it was put");
    assert_eq!(closure.len(), 1 + LEAVES);
    assert!(read() <= MOST + 1 + LEAVES, "{} directories were read", read());
    drop(streams);
}

/// Many path infos, and how many of them were asked for.
#[derive(Default)]
struct ManyPathInfos {
    read: AtomicUsize,
}

impl ManyPathInfos {
    const COUNT: u32 = 4000;
}

impl PathInfoService for ManyPathInfos {
    fn path_info(&self, _: &StorePathHash) -> Result<Option<PathInfo>> {
        Ok(None)
    }

    fn put_path_info(&self, path_info: PathInfo) -> Result<PathInfo> {
        Ok(path_info)
    }

    fn path_infos(&self) -> Box<dyn Iterator<Item = Result<PathInfo>> + Send + '_> {
        Box::new((0..Self::COUNT).map(|number| {
            self.read.fetch_add(1, Ordering::Relaxed);
            Ok(PathInfo::try_from(path_info(number)).expect("valid"))
        }))
    }

    fn path_infos_after(
        &self,
        after: Option<&StorePathHash>,
        limit: usize,
    ) -> Result<Vec<PathInfo>> {
        let number = |hash: &StorePathHash| {
            let first = hash.as_bytes()[..4].try_into().expect("four bytes");
            u32::from_be_bytes(first)
        };
        let begin = after.map_or(0, |hash| number(hash) + 1);
        let numbers = (begin..Self::COUNT).take(limit);
        self.read.fetch_add(numbers.len(), Ordering::Relaxed);
        Ok(numbers.map(|n| PathInfo::try_from(path_info(n)).expect("valid")).collect())
    }

    fn calculate_nar(&self, _: &Node) -> Result<Option<NarDigest>> {
        Ok(None)
    }
}

#[tokio::test]
async fn what_is_read_of_lists_that_nobody_takes_is_bounded() {
    let message_bytes = path_info(0).encoded_len();
    let most_in = |bytes: usize| bytes / message_bytes + 33;
    // Of the others, what is in the buffers of the connection.
    let most = LONG * most_in(256 << 10) + (DEAF - LONG) * most_in(64 << 10);

    let path_infos = Arc::new(ManyPathInfos::default());
    let services = GrpcServices {
        castore: Arc::new(MemoryStore::default()),
        path_infos: path_infos.clone(),
        stats: Arc::new(FixedStats),
        integrity: None,
        retention: None,
    };
    let server = Server::serving(grpc::router(services).await).await;
    let deaf = connect_deaf(&server).await;
    let mut streams = Vec::new();
    for _ in 0..DEAF {
        let mut client = PathInfoServiceClient::new(deaf.clone());
        let stream = within(client.list(ListPathInfoRequest {})).await.expect("headers");
        streams.push(stream.into_inner());
    }
    for stream in &mut streams {
        assert_eq!(within(stream.message()).await.expect("there are some"), Some(path_info(0)));
    }
    let read = path_infos.read.load(Ordering::Relaxed);
    assert!(read <= most, "{read} path infos were read, and {most} may be");

    let list = within(server.path_infos().list(ListPathInfoRequest {})).await.expect("headers");
    let list = within(all(list.into_inner())).await.expect("it ends well");
    assert!(list.into_iter().eq((0..ManyPathInfos::COUNT).map(path_info)));
    drop(streams);
}

//! Making a connection.

use std::{net::TcpListener, sync::Arc};

use granary_castore::{BlobDigest, BlobService, Error, MemoryStore};
use granary_client::Client;
use granary_store::StatsSource;

use crate::servers::{FixedStats, Server, runtime};

#[test]
fn nobody_there_is_an_error_that_helps() {
    let runtime = runtime();
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    for url in [format!("http://{address}"), "unix:/nowhere/at/all".to_owned()] {
        let error = Client::connect(&url, runtime.handle().clone()).expect_err("nobody is there");
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&url) && text.contains("granary daemon"), "{text}");
        assert!(std::error::Error::source(&error).is_some(), "{error:?}");
    }
}

#[test]
fn a_bad_url_is_invalid() {
    let error = Client::connect("localhost", runtime().handle().clone()).expect_err("no URL");
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
}

#[test]
fn unix_sockets() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let runtime = runtime();
    let services = granary_server::grpc::GrpcServices {
        castore: Arc::new(MemoryStore::default()),
        path_infos: Arc::new(Server::over(Arc::new(MemoryStore::default())).connect()),
        stats: Arc::new(FixedStats),
        integrity: None,
        retention: None,
    };
    let router = runtime.block_on(granary_server::grpc::router(services));
    let server = Server::with(runtime, &format!("unix:{}", path.display()), router);
    let client = server.connect();
    assert_eq!(client.url(), server.url());
    assert!(client.stat(&BlobDigest::of(b"x")).expect("an answer").is_none());
    assert_eq!(client.stats().expect("an answer"), FixedStats.stats().expect("fixed"));
}

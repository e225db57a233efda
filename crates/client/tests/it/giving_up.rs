//! Batches that end before their time, and servers that refuse.

use std::{sync::Arc, thread, time::Duration};

use bytes::Bytes;
use granary_castore::{BlobDigest, BlobService, Castore, Error, MemoryStore};
use granary_server::grpc::{self, GrpcServices};
use granary_testkit::Random;

use crate::servers::{FixedStats, Server, runtime};

#[test]
fn a_large_blob_that_never_ends_is_not_stored() {
    let store = MemoryStore::default();
    let server = Server::over(Arc::new(store.clone()));
    let client = server.connect();
    let contents = Random::new(80).incompressible(9 << 20);
    // Several times: the server learns of it at another moment each time.
    for _ in 0..10 {
        let mut batch = client.batch().expect("a batch");
        batch.write(&contents).expect("taken");
        drop(batch);
    }
    // Whatever the server could take for an end, it has had time for.
    thread::sleep(Duration::from_millis(500));
    for len in 0..=9 {
        let digest = BlobDigest::of(&contents[..len << 20]);
        assert!(store.stat(&digest).expect("memory").is_none(), "{len} MiB of it are stored");
    }
    // The connection is as good as before.
    let mut batch = client.batch().expect("a batch");
    batch.write(&contents).expect("taken");
    let digest = batch.finish_blob().expect("ended");
    batch.commit().expect("committed");
    assert!(store.stat(&digest).expect("memory").is_some());
}

/// Without the access that the daemon gives to who may write, nobody may.
fn read_only() -> Server {
    let castore = Arc::new(MemoryStore::default());
    let path_infos = Arc::new(Server::over(castore.clone()).connect());
    let services = GrpcServices {
        castore,
        path_infos,
        stats: Arc::new(FixedStats),
        retention: None,
        integrity: None,
    };
    let runtime = runtime();
    let router = runtime.block_on(grpc::router(services));
    let deny = axum::middleware::map_request(|mut request: axum::extract::Request| async move {
        request.extensions_mut().remove::<granary_server::Access>();
        request
    });
    Server::with(runtime, "127.0.0.1:0", router.layer(deny))
}

#[test]
fn a_refusal_comes_back_as_one() {
    let server = read_only();
    let client = server.connect();
    let mut batch = client.batch().expect("a batch");
    batch.put_blob(Bytes::from_static(b"small")).expect("taken");
    let error = batch.commit().expect_err("nobody may write");
    assert!(matches!(error, Error::Denied(_)), "{error:?}");

    // One that is refused while it is still being written, and goes on with it for long.
    let mut batch = client.batch().expect("a batch");
    let piece = Random::new(81).incompressible(1 << 20);
    let written = (0..64).try_for_each(|_| batch.write(&piece));
    let error = written.and_then(|()| batch.finish_blob().map(drop)).and_then(|()| batch.commit());
    let error = error.expect_err("nobody may write");
    assert!(matches!(error, Error::Denied(_)), "{error:?}");
}

#[test]
fn a_failed_batch_stays_failed() {
    let server = read_only();
    let client = server.connect();
    let mut batch = client.batch().expect("a batch");
    let piece = Random::new(82).incompressible(1 << 20);
    let failed = (0..64).find_map(|_| batch.write(&piece).err());
    assert!(matches!(failed, Some(Error::Denied(_))), "{failed:?}");
    for outcome in [batch.write(b"more"), batch.finish_blob().map(drop), batch.commit()] {
        assert!(outcome.is_err());
    }
}

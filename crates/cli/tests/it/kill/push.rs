//! While clients push to a daemon, over gRPC and over HTTP.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use granary_castore::{BlobDigest, Castore as _};
use granary_client::Client;

use super::{OBJECTS, after_the_crash, contents, delay, rounds};
use crate::{
    http::get,
    support::{Daemon, Home, read_blob},
    upload::{Upload, fetch},
};

/// Writes numbered objects to a daemon from several threads until it is killed, and returns
/// those that were acknowledged. `write` says whether one was.
fn push_until_killed(
    daemon: Daemon,
    delay: Duration,
    write: impl Fn(usize) -> bool + Sync,
) -> Vec<usize> {
    const WRITERS: usize = 4;
    let next = AtomicUsize::new(0);
    let acknowledged = Mutex::new(Vec::new());
    let first = std::sync::Barrier::new(2);
    let noted = |number| {
        let mut acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        acknowledged.push(number);
        acknowledged.len()
    };
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= OBJECTS || !write(number) {
                        break;
                    }
                    if noted(number) == 1 {
                        first.wait();
                    }
                }
            });
        }
        first.wait();
        thread::sleep(delay);
        daemon.kill();
    });
    acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn during_a_push_over_grpc() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let connect = |url: &str| Client::connect(url, runtime.handle().clone());
    let put = |client: &Client, contents: Vec<u8>| -> granary_castore::Result<BlobDigest> {
        let mut batch = client.batch()?;
        let digest = batch.put_blob(Bytes::from(contents))?;
        batch.commit().map(|()| digest)
    };
    for seed in rounds() {
        let home = Home::new();
        let daemon = home.daemon();
        let client = connect(&daemon.url()).expect("it listens");
        let acknowledged = push_until_killed(daemon, delay(seed), |number| {
            put(&client, contents(seed, number)).is_ok()
        });
        println!("round {seed}: {} of {OBJECTS} put", acknowledged.len());

        after_the_crash(&home, |daemon| {
            let client = connect(&daemon.url()).expect("it listens");
            for &number in &acknowledged {
                let expected = contents(seed, number);
                let stored = read_blob(&client, &BlobDigest::of(&expected));
                assert!(stored == Some(expected), "round {seed}: {number} is lost");
            }
        });
        let daemon = home.daemon();
        let client = connect(&daemon.url()).expect("it listens");
        for number in (0..OBJECTS).filter(|number| !acknowledged.contains(number)) {
            put(&client, contents(seed, number)).expect("it can be put again");
        }
        let last = contents(seed, OBJECTS - 1);
        assert!(read_blob(&client, &BlobDigest::of(&last)) == Some(last));
        daemon.stop();
    }
}

/// Whether an upload was acknowledged. Any other answer than success is a failure of the test,
/// unlike none.
fn put(upload: &Upload, address: &str) -> bool {
    upload.put(address).is_some_and(|answer| {
        assert!(answer.is_success(), "{}: {}", upload.nar_url, answer.text());
        true
    })
}

#[test]
fn during_a_push_over_http() {
    for seed in rounds() {
        let upload = |number| Upload::new(&format!("object-{number}"), contents(seed, number));
        let uploads: BTreeMap<_, _> = (0..OBJECTS).map(|number| (number, upload(number))).collect();
        let home = Home::new();
        let daemon = home.daemon();
        let address = daemon.address();
        let acknowledged =
            push_until_killed(daemon, delay(seed), |number| put(&uploads[&number], &address));
        println!("round {seed}: {} of {OBJECTS} uploaded", acknowledged.len());

        after_the_crash(&home, |daemon| {
            let address = daemon.address();
            for number in &acknowledged {
                let upload = &uploads[number];
                let hash = upload.store_path.hash().to_string();
                assert!(fetch(&address, &hash) == upload.nar, "round {seed}: {hash} is lost");
                // Nix remembers the URL that it uploaded to.
                assert!(get(&address, &upload.nar_url) == upload.nar, "{}", upload.nar_url);
            }
        });
        let daemon = home.daemon();
        let address = daemon.address();
        for (number, upload) in &uploads {
            if !acknowledged.contains(number) {
                assert!(put(upload, &address), "{number} cannot be uploaded again");
            }
        }
        let last = &uploads[&(OBJECTS - 1)];
        assert!(home.output(["nar", &last.store_path.hash().to_string()]) == last.nar);
        daemon.stop();
    }
}

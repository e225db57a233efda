//! Narinfos that are asked for again and again, while what they say changes or does not.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use granary_castore::{MemoryStore, RecordKind, RecordStore, RecordWrite, Result};
use granary_nix_formats::{NarInfo, SigningKey, StorePath};
use granary_server::http::HttpOptions;
use granary_store::{PathInfoService, kinds};

use super::{BLOCKING_THREADS, Cache, nar_of_tree, signing_key, store_path};

/// The target of a path's narinfo.
fn target(path: &StorePath) -> String {
    format!("{}.narinfo", path.hash())
}

/// A path whose narinfo was asked for often enough to be kept.
fn kept_path(cache: &Cache) -> StorePath {
    let path = cache.add_path("tree-1.0", &nar_of_tree(10, "true"), &[]);
    // The first time its NAR is hashed, and a record written.
    (0..2).for_each(|_| drop(cache.narinfo(&path)));
    path
}

#[test]
fn every_answer_is_the_same() {
    let cache = Cache::start();
    let path = cache.add_path("tree-1.0", &nar_of_tree(10, "true"), &[]);
    let target = target(&path);
    let first = cache.get(&target);
    let narinfo = NarInfo::parse(&first.text()).expect("a narinfo");
    let [signature] = &narinfo.signatures[..] else { panic!("one signature") };
    assert!(signing_key().public_key().verify(narinfo.fingerprint().as_bytes(), signature));
    let length = first.body.len().to_string();
    for args in [&[][..], &[], &["--http2-prior-knowledge"], &["--head"], &["--http1.0"]] {
        let again = cache.curl(&target, args);
        assert_eq!(again.status, 200, "{args:?}");
        assert_eq!(again.header("content-type"), Some("text/x-nix-narinfo"), "{args:?}");
        assert_eq!(again.header("content-length"), Some(length.as_str()), "{args:?}");
        let is_head = args.contains(&"--head");
        assert!(is_head || again.body == first.body, "{args:?}: {}", again.text());
    }
}

#[test]
fn a_change_is_seen_at_once() {
    let cache = Cache::start();
    let path = kept_path(&cache);
    let mut path_info =
        cache.store.path_info(path.hash()).expect("memory").expect("it was just put");
    let deriver = store_path("tree-1.0.drv");
    path_info.nar.as_mut().expect("it has them").deriver = Some(deriver.clone());
    cache.store.put_path_info(path_info).expect("memory");
    for _ in 0..2 {
        assert_eq!(cache.narinfo(&path).deriver.as_ref(), Some(&deriver));
    }

    let mut narinfo = cache.narinfo(&path);
    let other_key = SigningKey::generate("other-1", [8; 32]).expect("a good name");
    narinfo.signatures.push(other_key.sign(narinfo.fingerprint().as_bytes()));
    let put = cache.put(&target(&path), narinfo.to_string().as_bytes());
    assert_eq!(put.status, 201, "{}", put.text());
    for _ in 0..2 {
        let names: Vec<_> = cache.narinfo(&path).signatures.into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["other-1", "granary-test-1"]);
    }

    let key = Bytes::copy_from_slice(path.hash().as_bytes());
    let write = RecordWrite { kind: kinds::PATH_INFO, key, value: None };
    cache.store.records().write_records(vec![write]).expect("memory");
    let target = target(&path);
    assert_eq!((cache.get(&target).status, cache.head(&target).status), (404, 404));
}

/// Records that nobody can look up while the gate is held.
#[derive(Default)]
struct Gated {
    memory: MemoryStore,
    gate: RwLock<()>,
    /// How many look-ups there were, those before the gate included.
    look_ups: AtomicUsize,
}

impl RecordStore for Gated {
    fn record(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Bytes>> {
        self.look_ups.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.read().expect("not poisoned"));
        self.memory.record(kind, key)
    }

    fn write_records(&self, writes: Vec<RecordWrite>) -> Result<()> {
        self.memory.write_records(writes)
    }

    fn scan_records(
        &self,
        kind: RecordKind,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        self.memory.scan_records(kind, after, limit)
    }
}

#[test]
fn one_that_is_kept_needs_no_record_and_no_thread() {
    let records = Arc::new(Gated::default());
    let castore = Arc::new(records.memory.clone());
    let cache = Cache::start_over(castore, records.clone(), HttpOptions::default());
    let path = kept_path(&cache);
    let look_ups = records.look_ups.load(Ordering::SeqCst);
    let gate = records.gate.write().expect("not poisoned");

    // All threads that may block wait for other paths.
    let waiting: Vec<TcpStream> = (0..BLOCKING_THREADS)
        .map(|number| {
            let mut stream = TcpStream::connect(cache.address).expect("the daemon listens");
            let target = target(&store_path(&format!("other-{number}")));
            let request = format!("GET /{target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("the daemon reads");
            stream
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    while records.look_ups.load(Ordering::SeqCst) < look_ups + BLOCKING_THREADS {
        assert!(Instant::now() < deadline, "not all of them look a record up");
        thread::sleep(Duration::from_millis(5));
    }

    assert_eq!(cache.narinfo(&path).store_path, path);
    assert_eq!(cache.head(&target(&path)).status, 200);
    drop(gate);
    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
}

//! How fast blobs are stored, found and read, by the engine as a whole: what is put goes through
//! chunking, compression, the log and a sync, on a directory of the disk.

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{
    BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use granary_castore::{BlobDigest, BlobService, Castore, WriteBatch};
use granary_engine::{Engine, OpenOptions};
use granary_testkit::Random;
use tempfile::TempDir;

const LARGE_BYTES: usize = 64 << 20;
const SMALL_BLOBS: usize = 10_000;
const SMALL_BYTES: usize = 2 << 10;

/// As references lie in a closure: hundreds of paths, one named every few KiB.
const REFERENCES: usize = 300;
const REFERENCE_EVERY_BYTES: usize = 4 << 10;

/// A blob comes over the network in pieces of about this size.
const WRITE_BYTES: usize = 256 << 10;

/// What readers ask for at once.
const READ_BYTES: usize = 1 << 20;

/// Blobs that are put and read together.
struct Workload {
    name: &'static str,
    blobs: Vec<Bytes>,
}

impl Workload {
    fn all() -> [Self; 4] {
        let mut random = Random::new(1);
        let large = |name, contents: Vec<u8>| Self { name, blobs: vec![contents.into()] };
        let referring = random.with_references(LARGE_BYTES, REFERENCES, REFERENCE_EVERY_BYTES, 2);
        [
            large("64 MiB of text", random.compressible(LARGE_BYTES)),
            large("64 MiB with references", referring),
            large("64 MiB, incompressible", random.incompressible(LARGE_BYTES)),
            Self::small(),
        ]
    }

    fn small() -> Self {
        let mut random = Random::new(3);
        let blob = |_| {
            let len = 1 + random.below(2 * SMALL_BYTES);
            random.compressible(len).into()
        };
        Self { name: "10,000 small blobs", blobs: (0..SMALL_BLOBS).map(blob).collect() }
    }

    fn size_bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.len() as u64).sum()
    }

    fn put(&self, engine: &Engine) {
        let mut batch = begin(engine);
        for blob in &self.blobs {
            batch.put_blob(blob.clone()).expect("the disk takes it");
        }
        batch.commit().expect("the disk takes it");
    }

    /// The same in pieces, so that a large blob is known only once all of it was cut.
    fn write(&self, engine: &Engine) {
        let mut batch = begin(engine);
        for blob in &self.blobs {
            for piece in blob.chunks(WRITE_BYTES) {
                batch.write(piece).expect("the disk takes it");
            }
            batch.finish_blob().expect("the disk takes it");
        }
        batch.commit().expect("the disk takes it");
    }

    fn digests(&self) -> Vec<BlobDigest> {
        self.blobs.iter().map(|blob| BlobDigest::of(blob)).collect()
    }
}

fn begin(engine: &Engine) -> Box<dyn WriteBatch> {
    engine.batch().expect("it takes writes")
}

/// A store that is gone when this is dropped.
struct Store {
    engine: Engine,
    _directory: TempDir,
}

fn new_store() -> Store {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(directory.path(), &OpenOptions::default()).expect("a new store");
    Store { engine, _directory: directory }
}

fn read(engine: &Engine, digest: &BlobDigest) -> u64 {
    let mut reader = engine.open(digest).expect("it can be read").expect("it is stored");
    let mut offset = 0;
    loop {
        let bytes = reader.read_at(offset, READ_BYTES).expect("it can be read");
        if bytes.is_empty() {
            return offset;
        }
        offset += bytes.len() as u64;
    }
}

fn blobs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("blobs");
    // Each takes long enough for a sample of its own.
    group.sampling_mode(SamplingMode::Flat);
    for workload in Workload::all() {
        group.throughput(Throughput::Bytes(workload.size_bytes()));
        group.bench_function(BenchmarkId::new("put", workload.name), |bencher| {
            let put = |store: Store| {
                workload.put(&store.engine);
                store
            };
            bencher.iter_batched(new_store, put, BatchSize::PerIteration);
        });
        let store = new_store();
        workload.put(&store.engine);
        group.bench_function(BenchmarkId::new("write again", workload.name), |bencher| {
            bencher.iter(|| workload.write(&store.engine));
        });
        let digests = workload.digests();
        group.bench_function(BenchmarkId::new("read", workload.name), |bencher| {
            bencher.iter(|| digests.iter().map(|digest| read(&store.engine, digest)).sum::<u64>());
        });
    }
}

fn look_up(criterion: &mut Criterion) {
    let workload = Workload::small();
    let store = new_store();
    workload.put(&store.engine);
    let stored = workload.digests();
    let absent: Vec<_> = stored.iter().map(|digest| BlobDigest::of(digest.as_bytes())).collect();
    let mut group = criterion.benchmark_group("look up one of 10,000");
    for (name, digests, is_stored) in [("hit", &stored, true), ("miss", &absent, false)] {
        let mut digests = digests.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let digest = digests.next().expect("they never end");
                let stat = store.engine.stat(black_box(digest)).expect("the index answers");
                assert_eq!(stat.is_some(), is_stored);
            });
        });
    }
}

criterion_group! {
    name = engine;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = blobs, look_up
}
criterion_main!(engine);

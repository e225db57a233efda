//! How fast NARs are planned, read and taken apart, over the store in memory: what this crate
//! does, and no disk.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use granary_castore::{Castore, MemoryStore, WriteBatch};
use granary_store::{NarPieces, NarPlan, ingest_nar};
use granary_testkit::{Random, tree::Tree};

const DIRECTORIES: usize = 200;
const FILES_PER_DIRECTORY: usize = 100;
const SMALL_BYTES: usize = 2 << 10;
const LARGE_FILES: usize = 2;
const LARGE_BYTES: usize = 16 << 20;

fn many_small_files() -> Tree {
    let mut random = Random::new(1);
    Tree::directory((0..DIRECTORIES).map(|directory| {
        let files = (0..FILES_PER_DIRECTORY).map(|file| {
            let len = 1 + random.below(2 * SMALL_BYTES);
            (format!("file-{file}"), Tree::file(random.compressible(len)))
        });
        (format!("directory-{directory}"), Tree::directory(files))
    }))
}

fn few_large_files() -> Tree {
    let mut random = Random::new(2);
    Tree::directory((0..LARGE_FILES).map(|file| {
        (format!("library-{file}.so"), Tree::executable(random.incompressible(LARGE_BYTES)))
    }))
}

/// All pieces of a NAR, one after the other, as the daemon sends them.
fn read(store: &MemoryStore, plan: &Arc<NarPlan>) -> usize {
    let mut pieces = NarPieces::new(Arc::clone(plan), 0..plan.nar_size());
    let mut read = 0;
    while let Some(piece) = pieces.next(store).expect("it is there") {
        let buffers = piece.read().expect("it is there");
        read += buffers.iter().map(Bytes::len).sum::<usize>();
    }
    read
}

fn begin(store: &MemoryStore) -> Box<dyn WriteBatch> {
    store.batch().expect("memory takes all")
}

fn serving(criterion: &mut Criterion) {
    let (nar, store) = (many_small_files().to_nar(), MemoryStore::default());
    let mut batch = begin(&store);
    let root = ingest_nar(&nar[..], &mut *batch).expect("it is a NAR").node;
    batch.commit().expect("memory takes all");
    let new_plan = || NarPlan::new(&store, &root).expect("it is there").expect("all of it");
    let plan = Arc::new(new_plan());
    assert_eq!(read(&store, &plan), nar.len(), "a piece is missing");
    let mut group = criterion.benchmark_group("20,000 small files");
    group.throughput(Throughput::Elements(plan.blobs().len() as u64));
    group.bench_function("plan", |bencher| bencher.iter(new_plan));
    group.throughput(Throughput::Bytes(nar.len() as u64));
    group.bench_function("read pieces", |bencher| bencher.iter(|| read(&store, &plan)));
}

fn ingestion(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ingest");
    let trees = [("20,000 small files", many_small_files()), ("2 large files", few_large_files())];
    for (name, tree) in trees {
        let (nar, store) = (tree.to_nar(), MemoryStore::default());
        group.throughput(Throughput::Bytes(nar.len() as u64));
        // The batch is dropped: what it holds is thrown away, and the next one begins anew.
        group.bench_function(name, |bencher| {
            bencher.iter(|| ingest_nar(&nar[..], &mut *begin(&store)).expect("it is a NAR"));
        });
    }
}

criterion_group! {
    name = nars;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = serving, ingestion
}
criterion_main!(nars);

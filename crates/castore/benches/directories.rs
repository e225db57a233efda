//! How fast directories are encoded, named and decoded.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use granary_castore::{BlobDigest, Directory, DirectoryDigest, Node, NodeName, SymlinkTarget};

const ENTRIES: [u32; 2] = [10, 1000];

/// Mostly files, some directories, few symlinks.
fn directory(entries: u32) -> Directory {
    let entries = (0..entries).map(|number| {
        let name = NodeName::new(format!("some-file-{number:04}.c")).expect("a valid name");
        let node = match number % 10 {
            0 | 1 => Node::Directory {
                digest: DirectoryDigest::of(&number.to_le_bytes()),
                size: u64::from(number),
            },
            2 => Node::Symlink {
                target: SymlinkTarget::new(format!("../{number}")).expect("a valid target"),
            },
            _ => Node::File {
                digest: BlobDigest::of(&number.to_le_bytes()),
                size_bytes: u64::from(number) << 10,
                executable: number % 3 == 0,
            },
        };
        (name, node)
    });
    Directory::new(entries.collect()).expect("all names are different")
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("directory");
    for entries in ENTRIES {
        let directory = directory(entries);
        let encoded = directory.encode();
        group.throughput(Throughput::Elements(u64::from(entries)));
        group.bench_function(BenchmarkId::new("encode", entries), |bencher| {
            bencher.iter(|| black_box(&directory).encode());
        });
        group.bench_function(BenchmarkId::new("digest", entries), |bencher| {
            bencher.iter(|| black_box(&directory).digest());
        });
        group.bench_function(BenchmarkId::new("decode", entries), |bencher| {
            bencher.iter(|| Directory::decode(black_box(&encoded)).expect("it was encoded"));
        });
    }
}

criterion_group! {
    name = directories;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = codec
}
criterion_main!(directories);

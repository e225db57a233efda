//! How fast NARs, narinfos and nixbase32 are written and read, in memory.

use std::{hint::black_box, io, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use granary_nix_formats::{NarHash, NarInfo, SigningKey, StorePath, StorePathHash, nar, nixbase32};

/// A tree as NARs know it: files of one size in directories of a hundred.
#[derive(Clone, Copy)]
struct Tree {
    files: usize,
    file_bytes: usize,
}

const MANY_FILES: Tree = Tree { files: 10_000, file_bytes: 4 << 10 };
const LARGE_FILE: Tree = Tree { files: 1, file_bytes: 64 << 20 };
const FILES_PER_DIRECTORY: usize = 100;

/// Contents of files come and go in pieces of this size.
const BUFFER_BYTES: usize = 256 << 10;

/// References of the narinfo: about as many as a desktop program has.
const REFERENCES: u8 = 40;

impl Tree {
    fn write<W: io::Write>(self, sink: W) -> Result<W, nar::Error> {
        let buffer = vec![b'x'; BUFFER_BYTES];
        let mut writer = nar::Writer::new(sink)?;
        writer.directory()?;
        for first in (0..self.files).step_by(FILES_PER_DIRECTORY) {
            writer.entry(format!("directory-{first:06}").as_bytes())?;
            writer.directory()?;
            for file in first..self.files.min(first + FILES_PER_DIRECTORY) {
                writer.entry(format!("file-{file:06}").as_bytes())?;
                writer.file_header(false, self.file_bytes as u64)?;
                let mut left = self.file_bytes;
                while left > 0 {
                    let len = left.min(buffer.len());
                    writer.file_data(&buffer[..len])?;
                    left -= len;
                }
                writer.end_file()?;
                writer.end_entry()?;
            }
            writer.end_directory()?;
            writer.end_entry()?;
        }
        writer.end_directory()?;
        writer.finish()
    }
}

/// Reads a NAR as ingestion does: every event, and all contents.
fn read(archive: &[u8], buffer: &mut [u8]) -> Result<usize, nar::Error> {
    let mut reader = nar::Reader::new(archive);
    let mut events = 0;
    while let Some(event) = reader.next()? {
        events += 1;
        if matches!(event, nar::Event::File { .. }) {
            while reader.read_data(buffer)? > 0 {}
        }
    }
    reader.finish()?;
    Ok(events)
}

fn nars(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nar");
    let mut buffer = vec![0; BUFFER_BYTES];
    group.throughput(Throughput::Elements(MANY_FILES.files as u64));
    // What is written is thrown away, so that contents cost nothing.
    group.bench_function("write 10,000 files", |bencher| {
        bencher.iter(|| MANY_FILES.write(io::sink()).expect("the tree has a NAR"));
    });
    let archive = MANY_FILES.write(Vec::new()).expect("the tree has a NAR");
    group.bench_function("read 10,000 files of 4 KiB", |bencher| {
        bencher.iter(|| read(black_box(&archive), &mut buffer).expect("it is a NAR"));
    });
    let archive = LARGE_FILE.write(Vec::new()).expect("the tree has a NAR");
    group.throughput(Throughput::Bytes(archive.len() as u64));
    group.bench_function("read a file of 64 MiB", |bencher| {
        bencher.iter(|| read(black_box(&archive), &mut buffer).expect("it is a NAR"));
    });
}

fn narinfo() -> NarInfo {
    let path = |number| {
        let name = format!("program-1.{number}");
        StorePath::new(StorePathHash::from_bytes([number; 20]), name).expect("a valid name")
    };
    let nar_hash = NarHash::from_bytes([7; 32]);
    let mut info = NarInfo {
        store_path: path(0),
        url: format!("nar/{}.nar.zst", nixbase32::encode(nar_hash.as_bytes())),
        compression: "zstd".to_owned(),
        file_hash: Some(nar_hash),
        file_size: Some(1 << 20),
        nar_hash,
        nar_size: 4 << 20,
        references: (0..REFERENCES).map(path).collect(),
        deriver: Some(path(REFERENCES)),
        system: None,
        signatures: Vec::new(),
        ca: None,
    };
    let key = SigningKey::generate("bench-1", [1; 32]).expect("a valid name of a key");
    info.signatures.push(key.sign(info.fingerprint().as_bytes()));
    info
}

fn narinfos(criterion: &mut Criterion) {
    let info = narinfo();
    let text = info.to_string();
    let mut group = criterion.benchmark_group("narinfo");
    group.bench_function("render", |bencher| bencher.iter(|| black_box(&info).to_string()));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| NarInfo::parse(black_box(&text)).expect("it was rendered"));
    });
    group.bench_function("fingerprint", |bencher| {
        bencher.iter(|| black_box(&info).fingerprint());
    });
}

fn nixbase32s(criterion: &mut Criterion) {
    let digest = [0xa5; 32];
    let text = nixbase32::encode(&digest);
    let mut group = criterion.benchmark_group("nixbase32 of a SHA-256");
    group.bench_function("encode", |bencher| {
        bencher.iter(|| nixbase32::encode(black_box(&digest)));
    });
    group.bench_function("decode", |bencher| {
        let decode = nixbase32::decode_fixed::<32>;
        bencher.iter(|| decode(black_box(&text)).expect("it was encoded"));
    });
}

criterion_group! {
    name = formats;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = nars, narinfos, nixbase32s
}
criterion_main!(formats);

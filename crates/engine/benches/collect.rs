//! Measures garbage collection at scale: how long marking takes, and in how much memory.
//!
//! `collect --chunks N --dir DIR [--json]` makes a store of N chunks of some hundred bytes in DIR,
//! which must be empty: in directories of a thousand files, half of which are then collected.

use std::{
    error::Error,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use granary_castore::{
    Castore, CollectionKind, Collector, Directory, Node, NodeName, Root, SweepOptions,
};
use granary_engine::{Engine, OpenOptions};
use granary_testkit::Random;

const FILES_IN_DIRECTORY: u64 = 1_000;

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Arguments {
    chunks: u64,
    dir: PathBuf,
    json: bool,
}

impl Arguments {
    fn parse() -> Outcome<Self> {
        let (mut chunks, mut dir, mut json) = (None, None, false);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--chunks" => chunks = arguments.next(),
                "--dir" => dir = arguments.next(),
                "--json" => json = true,
                // What `cargo bench` gives to every benchmark.
                "--bench" => {}
                other => return Err(format!("{other} is unknown").into()),
            }
        }
        let (Some(chunks), Some(dir)) = (chunks, dir) else {
            return Err("usage: collect --chunks N --dir DIR [--json]".into());
        };
        Ok(Self { chunks: chunks.parse()?, dir: dir.into(), json })
    }
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse()?;
    let figures = measure(&arguments)?;
    if arguments.json {
        let fields: Vec<_> =
            figures.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        println!("{{{}}}", fields.join(", "));
    } else {
        for (name, value) in figures {
            println!("{name:<24} {value}");
        }
    }
    Ok(())
}

/// All figures, by name. Units are the ends of names.
fn measure(arguments: &Arguments) -> Outcome<Vec<(&'static str, String)>> {
    let roots = write(arguments)?;
    // Opened anew, so that nothing is left in memory of what was written.
    let engine = Engine::open(&arguments.dir, &OpenOptions::default())?;
    let before_bytes = peak_bytes()?;
    let mut collection = engine.begin_collection(CollectionKind::Survey)?;
    let began = Instant::now();
    for root in &roots {
        collection.keep(root)?;
    }
    let mark_all = began.elapsed();
    drop(collection);
    let marking_peak_bytes = peak_bytes()?;

    let mut collection = engine.begin_collection(CollectionKind::Sweep)?;
    for root in roots.iter().step_by(2) {
        collection.keep(root)?;
    }
    let began = Instant::now();
    let options = SweepOptions { max_unused_permille: 80, bytes_per_s: None, observer: &() };
    let swept = collection.sweep(&options)?;
    let sweep = began.elapsed();
    drop(collection);

    let seconds = |duration: Duration| format!("{:.3}", duration.as_secs_f64());
    Ok(vec![
        ("chunks", arguments.chunks.to_string()),
        ("mark_seconds", seconds(mark_all)),
        ("peak_before_bytes", before_bytes.to_string()),
        ("marking_peak_bytes", marking_peak_bytes.to_string()),
        ("sweep_half_seconds", seconds(sweep)),
        ("peak_bytes", peak_bytes()?.to_string()),
        ("stored_before_bytes", swept.stored_bytes_before.to_string()),
        ("stored_after_bytes", swept.stored_bytes_after.to_string()),
        ("removed_objects", swept.removed_objects.to_string()),
        ("copied_bytes", swept.copied_bytes.to_string()),
    ])
}

/// Fills the store, and returns the roots of its trees.
fn write(arguments: &Arguments) -> Outcome<Vec<Root>> {
    let engine = Engine::open(&arguments.dir, &OpenOptions::default())?;
    let mut roots = Vec::new();
    let mut random = Random::new(1);
    let mut number = 0;
    while number < arguments.chunks {
        let end = arguments.chunks.min(number + FILES_IN_DIRECTORY);
        let mut batch = engine.batch()?;
        let mut entries = Vec::new();
        for number in number..end {
            let contents = Bytes::from(random.incompressible(200));
            let size_bytes = contents.len() as u64;
            let digest = batch.put_blob(contents)?;
            let name = NodeName::new(number.to_string().into_bytes())?;
            entries.push((name, Node::File { digest, size_bytes, executable: false }));
        }
        roots.push(Root::Directory(batch.put_directory(&Directory::new(entries)?)?));
        batch.commit()?;
        number = end;
    }
    engine.close()?;
    Ok(roots)
}

/// The most memory that this process had at a time.
fn peak_bytes() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).ok_or("no VmHWM")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}

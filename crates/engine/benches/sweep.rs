//! What settings cost: imports trees into a new store that is opened with those of the command
//! line, and prints what that took.
//!
//! `python3 -m bench --only sweep` runs it once for each combination that is of interest.

use std::{
    error::Error,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use granary_castore::{Castore, Chain, Node};
use granary_engine::{Compression, Engine, FrameSizes, OpenOptions};
use granary_store::{NarPieces, NarPlan, StoredBytes, ingest_path};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

/// The daemon's level of zstd for what it sends and has no frame of.
const WIRE_LEVEL: i32 = 1;

/// What `stat` counts the blocks of a file in.
const BLOCK_BYTES: u64 = 512;

/// Imports trees, one after the other, into a new store, and prints a JSON object for each:
/// what it took, and what it added.
#[derive(Parser)]
#[command(name = "sweep")]
struct Args {
    /// Where the store is made; nothing may be there
    #[arg(long)]
    data_dir: PathBuf,

    /// What chunks have on average, a power of two
    #[arg(long, value_name = "KIB")]
    average_chunk_kib: u32,

    /// Length at which a frame of consecutive chunks of one blob is closed
    #[arg(long, value_name = "KIB")]
    run_kib: usize,

    /// Length at which a frame of small objects is closed
    #[arg(long, value_name = "KIB")]
    group_kib: usize,

    #[command(flatten)]
    way: Way,

    /// Binary logarithm of the entries of zstd's table for text, and what a match has at least; text
    /// is compressed like all else unless given
    #[arg(long, num_args = 2, value_names = ["LOG", "BYTES"])]
    fast_text: Option<Vec<u32>>,

    /// What to import
    #[arg(required = true)]
    trees: Vec<PathBuf>,
}

/// How all else is compressed.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Way {
    /// As a level of zstd does
    #[arg(long)]
    level: Option<i32>,

    /// By zstd's strategy dfast: binary logarithms of the entries of its tables, of long matches and
    /// of short ones, and what a match has at least
    #[arg(long, num_args = 3, value_names = ["LONG", "SHORT", "BYTES"])]
    two_tables: Option<Vec<u32>>,

    /// By zstd's strategy fast: binary logarithm of the entries of its table, and what a match has
    /// at least
    #[arg(long, num_args = 2, value_names = ["LOG", "BYTES"])]
    fast: Option<Vec<u32>>,
}

impl Way {
    fn compression(&self) -> Compression {
        match (self.level, self.two_tables.as_deref(), self.fast.as_deref()) {
            (Some(level), ..) => Compression::level(level),
            (_, Some(&[long, short, shortest_match]), _) => {
                Compression::two_tables(long, short, shortest_match)
            }
            (.., Some(&[log, shortest_match])) => Compression::fast(log, shortest_match),
            _ => unreachable!("one is required, with all of its values"),
        }
    }
}

impl Args {
    fn options(&self) -> OpenOptions<'static> {
        let compression = self.way.compression();
        let compression = match self.fast_text.as_deref() {
            Some(&[log, shortest_match]) => compression.with_fast_text(log, shortest_match),
            _ => compression,
        };
        OpenOptions {
            compression,
            frame_sizes: FrameSizes {
                run_bytes: self.run_kib << 10,
                group_bytes: self.group_kib << 10,
            },
            average_chunk_bytes: self.average_chunk_kib << 10,
            ..OpenOptions::default()
        }
    }
}

fn main() -> ExitCode {
    // `cargo bench` runs every bench target, with this argument and no trees.
    if std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match sweep(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sweep: {}", Chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn sweep(args: &Args) -> Result<(), Box<dyn Error>> {
    let options = args.options();
    let defaults = OpenOptions::default();
    let are_defaults = options.compression == defaults.compression
        && options.frame_sizes == defaults.frame_sizes
        && options.average_chunk_bytes == defaults.average_chunk_bytes;
    fs::create_dir(&args.data_dir).map_err(|cause| {
        let place = args.data_dir.display();
        granary_castore::Error::invalid(format!("cannot make {place}")).because(cause)
    })?;
    let mut before = Sizes::default();
    for tree in &args.trees {
        let (node, seconds, cpu_seconds) = import(tree, &args.data_dir, &options)?;
        let after = Sizes::of(&args.data_dir, &node, &options)?;
        println!(
            "{}",
            json!({
                "defaults": are_defaults,
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
                "packs_bytes": after.packs_bytes - before.packs_bytes,
                "index_bytes": after.index_bytes - before.index_bytes,
                "chunks": after.chunks - before.chunks,
                "wire_bytes": after.wire_bytes,
            })
        );
        before = after;
    }
    Ok(())
}

/// Imports a tree until it is durable and the store closed; gives its root, and the seconds and
/// CPU seconds that this took.
fn import(
    tree: &Path,
    data_dir: &Path,
    options: &OpenOptions<'_>,
) -> Result<(Node, f64, f64), Box<dyn Error>> {
    let (began, cpu_began) = (Instant::now(), cpu_seconds());
    let engine = Engine::open(data_dir, options)?;
    let mut batch = engine.batch()?;
    let node = ingest_path(tree, &mut *batch, &())?.node;
    batch.commit()?;
    engine.close()?;
    drop(engine);
    Ok((node, began.elapsed().as_secs_f64(), cpu_seconds() - cpu_began))
}

/// User and system time of all threads.
fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(spent).expect("a process spends no negative time").as_secs_f64()
}

/// How large a closed store is. Differences may be negative: the index gets smaller when it is
/// compacted.
#[derive(Default)]
struct Sizes {
    packs_bytes: i64,
    index_bytes: i64,
    chunks: i64,
    /// Of one NAR alone, as the daemon sends it to a client that reads many frames.
    wire_bytes: u64,
}

impl Sizes {
    fn of(data_dir: &Path, node: &Node, options: &OpenOptions<'_>) -> Result<Self, Box<dyn Error>> {
        // Before it is opened again, which writes.
        let packs_bytes = disk_bytes(&data_dir.join("packs"))?.try_into()?;
        let index_bytes = disk_bytes(&data_dir.join("index"))?.try_into()?;
        let engine = Engine::open(data_dir, options)?;
        let stats = engine.stats()?;
        let chunks = (stats.chunk_count + stats.patched_chunk_count).try_into()?;
        let wire_bytes = wire_bytes(&engine, node)?;
        engine.close()?;
        Ok(Self { packs_bytes, index_bytes, chunks, wire_bytes })
    }
}

/// What the files and directories below `directory` take on the disk.
fn disk_bytes(directory: &Path) -> io::Result<u64> {
    let mut sum = fs::metadata(directory)?.blocks() * BLOCK_BYTES;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            metadata.blocks() * BLOCK_BYTES
        };
    }
    Ok(sum)
}

/// Bytes of the NAR of `node` as frames: those that are stored, and all else compressed piece by
/// piece.
fn wire_bytes(engine: &Engine, node: &Node) -> Result<u64, Box<dyn Error>> {
    let plan = NarPlan::new(engine, node)?.ok_or("what was imported is not there")?;
    let mut zstd = zstd::bulk::Compressor::new(WIRE_LEVEL)?;
    let mut pieces = NarPieces::new(Arc::new(plan), 0..u64::MAX);
    let mut sum = 0;
    while let Some(piece) = pieces.next(engine)? {
        let mut between = Between { zstd: &mut zstd, bytes: Vec::new() };
        piece.read_stored(|bytes| {
            match bytes {
                StoredBytes::Literal(bytes) => between.bytes.extend_from_slice(bytes),
                StoredBytes::Plain(bytes) => between.bytes.extend_from_slice(&bytes),
                StoredBytes::Zstd { frame, .. } => sum += between.end()? + frame.len() as u64,
            }
            Ok(())
        })?;
        sum += between.end()?;
    }
    Ok(sum)
}

/// What lies between two stored frames of a piece.
struct Between<'a> {
    zstd: &'a mut zstd::bulk::Compressor<'static>,
    bytes: Vec<u8>,
}

impl Between<'_> {
    /// How long it is once compressed; it is empty then.
    fn end(&mut self) -> granary_castore::Result<u64> {
        if self.bytes.is_empty() {
            return Ok(0);
        }
        let frame = self.zstd.compress(&self.bytes).map_err(|cause| {
            granary_castore::Error::unavailable("there is no memory to compress").because(cause)
        })?;
        self.bytes.clear();
        Ok(frame.len() as u64)
    }
}

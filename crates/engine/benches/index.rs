//! Measures the index at scale: how long a store of many chunks takes to start, and a look-up.
//!
//! `index --chunks N --dir DIR [--json]` makes a store of N tiny blobs in DIR, which must be
//! empty. They are written by a child, which is killed once everything is acknowledged: the
//! first start is one after a crash, the second one after the store was closed. Everything goes
//! through the public interface of the engine.

use std::{
    error::Error,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use granary_castore::{BlobDigest, BlobService, Castore};
use granary_engine::{Engine, OpenOptions};
use granary_testkit::Random;

/// Blobs that are committed together.
const BATCH_BLOBS: u64 = 100_000;

/// Look-ups of each kind that are timed, and as many before them that are not.
const LOOKUPS: u64 = 100_000;

/// Set for the child that writes.
const WRITER: &str = "GRANARY_INDEX_BENCH_WRITER";

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
            return Err("usage: index --chunks N --dir DIR [--json]".into());
        };
        Ok(Self { chunks: chunks.parse()?, dir: dir.into(), json })
    }
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse()?;
    if std::env::var_os(WRITER).is_some() {
        return write(&arguments);
    }
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
    let Arguments { chunks, dir, .. } = arguments;
    let began = Instant::now();
    let mut writer = Writer::start(arguments)?;
    let writer_peak_bytes = writer.wait_until_written()?;
    let write_seconds = began.elapsed();
    drop(writer);

    let (engine, unclean_open) = open(dir)?;
    let replayed = engine.report().replayed_segments;
    engine.close()?;
    drop(engine);
    let (engine, open) = open(dir)?;
    let known = |random: &mut Random| random.next_u64() % chunks;
    let absent = |random: &mut Random| chunks + random.next_u64() % chunks;
    let lookups = time_lookups(&engine, true, known)?;
    let absent = time_lookups(&engine, false, absent)?;
    drop(engine);

    let seconds = |duration: Duration| format!("{:.3}", duration.as_secs_f64());
    Ok(vec![
        ("chunks", chunks.to_string()),
        ("open_seconds", seconds(open)),
        ("unclean_open_seconds", seconds(unclean_open)),
        ("replayed_segments", replayed.to_string()),
        ("lookup_p50_us", percentile_us(&lookups, 50)),
        ("lookup_p99_us", percentile_us(&lookups, 99)),
        ("absent_p50_us", percentile_us(&absent, 50)),
        ("absent_p99_us", percentile_us(&absent, 99)),
        ("index_bytes", disk_bytes(&dir.join("index"))?.to_string()),
        ("packs_bytes", disk_bytes(&dir.join("packs"))?.to_string()),
        ("peak_bytes", peak_bytes()?.to_string()),
        ("write_seconds", seconds(write_seconds)),
        ("writer_peak_bytes", writer_peak_bytes.to_string()),
    ])
}

/// The child that writes. It is killed when this is dropped.
struct Writer(Child);

impl Writer {
    fn start(arguments: &Arguments) -> Outcome<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["--chunks", &arguments.chunks.to_string(), "--dir"])
            .arg(&arguments.dir)
            .env(WRITER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self(child))
    }

    /// Its peak memory in bytes, when everything is acknowledged.
    fn wait_until_written(&mut self) -> Outcome<u64> {
        let output = self.0.stdout.as_mut().ok_or("the writer has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        line.trim().parse().map_err(|_| "the writer failed".into())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("cannot end the writer: {error}");
        }
    }
}

/// What the child does: it never closes the store.
fn write(arguments: &Arguments) -> Outcome<()> {
    let (engine, _) = open(&arguments.dir)?;
    let mut number = 0;
    while number < arguments.chunks {
        let mut batch = engine.batch()?;
        let end = arguments.chunks.min(number + BATCH_BLOBS);
        for number in number..end {
            batch.put_blob(contents(number))?;
        }
        batch.commit()?;
        number = end;
    }
    println!("{}", peak_bytes()?);
    std::io::stdout().flush()?;
    // Until it is killed, or whoever started it is gone.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn contents(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

fn open(dir: &Path) -> Outcome<(Engine, Duration)> {
    let began = Instant::now();
    let engine = Engine::open(dir, &OpenOptions::default())?;
    Ok((engine, began.elapsed()))
}

/// How long each look-up of a blob took, in ascending order. The numbers of the blobs come from
/// `choose`, and all or none of them must be there.
fn time_lookups(
    engine: &Engine,
    there: bool,
    choose: impl Fn(&mut Random) -> u64,
) -> Outcome<Vec<Duration>> {
    let mut random = Random::new(1);
    let mut times = Vec::new();
    for lookup in 0..2 * LOOKUPS {
        let digest = BlobDigest::of(&contents(choose(&mut random)));
        let began = Instant::now();
        let found = engine.stat(&digest)?;
        let took = began.elapsed();
        if found.is_some() != there {
            return Err(format!("{digest} is {found:?}").into());
        }
        if lookup >= LOOKUPS {
            times.push(took);
        }
    }
    times.sort_unstable();
    Ok(times)
}

fn percentile_us(times: &[Duration], percent: usize) -> String {
    let time = times.get(times.len() * percent / 100).copied().unwrap_or_default();
    format!("{:.2}", time.as_secs_f64() * 1e6)
}

/// Blocks of the files below a directory, in bytes.
fn disk_bytes(dir: &Path) -> Outcome<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            entry.metadata()?.blocks() * 512
        };
    }
    Ok(bytes)
}

/// The most memory that this process ever had.
fn peak_bytes() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = peak.ok_or("no VmHWM")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

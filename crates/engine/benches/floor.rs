//! What an import can hardly take less than: what libraries have to do for one, and reading, in one
//! thread, in pieces of a MiB.
//!
//! Files are read into a NAR, that is hashed, files are hashed, large ones are cut and their chunks
//! hashed, everything is compressed as text is. Nothing is looked up, written or kept; nor is left out
//! what was there before, of which a tree of sources has little. `python3 -m bench --only import` sets
//! an import beside it.

use std::{
    error::Error,
    ffi::CString,
    hint::black_box,
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use fastcdc::v2020::FastCDC;
use granary_castore::Chain;
use granary_engine::DEFAULT_AVERAGE_CHUNK_BYTES;
use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, fstat, openat},
    io::read,
    time::{ClockId, clock_gettime},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use zstd::zstd_safe::{CParameter, Strategy, compress_bound};

/// How much is read before it is hashed and compressed, about as in an import.
const PIECE_BYTES: usize = 1 << 20;

/// What a NAR has for an entry of a directory beside its name and contents; for a file it has half as
/// much again.
const ENTRY_BYTES: usize = 120;

/// The longest name, and more than all that comes with it.
const MAX_ENTRY_BYTES: usize = 4 << 10;

/// Does what libraries have to do for the import of a tree, and prints a JSON object: what of
/// that took how long
#[derive(Parser)]
#[command(name = "floor")]
struct Args {
    /// Binary logarithm of the entries of zstd's table for text, and what a match has at least
    #[arg(long, num_args = 2, value_names = ["LOG", "BYTES"], required = true)]
    fast_text: Vec<u32>,

    /// What would be imported
    tree: PathBuf,
}

fn main() -> ExitCode {
    // `cargo bench` runs every bench target, with this argument and no tree.
    if std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match measure(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {}", Chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut floor = Floor::new(args)?;
    let (began, cpu_began) = (Instant::now(), cpu_seconds());
    let tree = openat(CWD, &args.tree, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    floor.walk(tree.as_fd())?;
    floor.end_piece()?;
    black_box(floor.nar_hash.finalize_reset());
    let (seconds, cpu_seconds) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu_began);
    let Floor { took, sizes, .. } = floor;
    println!(
        "{}",
        json!({
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "reading_seconds": took.reading.as_secs_f64(),
            "nar_hash_seconds": took.nar_hash.as_secs_f64(),
            "file_hash_seconds": took.file_hash.as_secs_f64(),
            "cutting_seconds": took.cutting.as_secs_f64(),
            "chunk_hash_seconds": took.chunk_hash.as_secs_f64(),
            "compressing_seconds": took.compressing.as_secs_f64(),
            "nar_bytes": sizes.nar,
            "cut_bytes": sizes.cut,
            "compressed_bytes": sizes.compressed,
        })
    );
    Ok(())
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(spent).expect("a process spends no negative time").as_secs_f64()
}

#[derive(Default)]
struct Took {
    reading: Duration,
    nar_hash: Duration,
    file_hash: Duration,
    cutting: Duration,
    chunk_hash: Duration,
    compressing: Duration,
}

#[derive(Default)]
struct Sizes {
    nar: usize,
    cut: usize,
    compressed: usize,
}

struct Floor {
    /// A piece of the NAR: so much of its beginning.
    nar: Box<[u8]>,
    filled: usize,
    /// The files in it, and parts of large ones.
    files: Vec<Contents>,
    nar_hash: Sha256,
    /// Of the large file that is read.
    file_hash: blake3::Hasher,
    zstd: zstd::bulk::Compressor<'static>,
    compressed: Vec<u8>,
    took: Took,
    sizes: Sizes,
}

/// Contents of a file in a piece.
struct Contents {
    range: Range<usize>,
    is_whole: bool,
}

impl Floor {
    fn new(args: &Args) -> Result<Self, Box<dyn Error>> {
        let mut zstd = zstd::bulk::Compressor::new(1)?;
        zstd.set_parameter(CParameter::Strategy(Strategy::ZSTD_fast))?;
        zstd.set_parameter(CParameter::HashLog(args.fast_text[0]))?;
        zstd.set_parameter(CParameter::MinMatch(args.fast_text[1]))?;
        Ok(Self {
            nar: vec![0; 2 * PIECE_BYTES + MAX_ENTRY_BYTES].into(),
            filled: 0,
            files: Vec::new(),
            nar_hash: Sha256::new(),
            file_hash: blake3::Hasher::new(),
            zstd,
            compressed: Vec::new(),
            took: Took::default(),
            sizes: Sizes::default(),
        })
    }

    /// Everything in a directory, in the order of a NAR.
    fn walk(&mut self, directory: BorrowedFd<'_>) -> Result<(), Box<dyn Error>> {
        let mut entries = timed(&mut self.took.reading, || list(directory))?;
        entries.sort_unstable();
        for (name, kind) in entries {
            if self.filled >= PIECE_BYTES {
                self.end_piece()?;
            }
            let name_bytes = name.as_bytes();
            let (in_nar, after) = self.nar[self.filled..].split_at_mut(name_bytes.len());
            in_nar.copy_from_slice(name_bytes);
            after[..ENTRY_BYTES].fill(0);
            self.filled += name_bytes.len() + ENTRY_BYTES;
            match kind {
                Kind::Directory => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    self.walk(openat(directory, &name, flags, Mode::empty())?.as_fd())?;
                }
                Kind::File => self.read(directory, &name)?,
                Kind::Other => {}
            }
        }
        Ok(())
    }

    fn read(&mut self, directory: BorrowedFd<'_>, name: &CString) -> Result<(), Box<dyn Error>> {
        let (file, len) = timed(&mut self.took.reading, || {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(directory, name, flags, Mode::empty())?;
            let len = usize::try_from(fstat(&file)?.st_size).expect("files are of some size");
            rustix::io::Result::Ok((file, len))
        })?;
        let is_whole = len <= PIECE_BYTES;
        let mut left = len;
        loop {
            let (begin, end) = (self.filled, self.filled + left.min(PIECE_BYTES));
            timed(&mut self.took.reading, || {
                while self.filled < end {
                    match read(&file, &mut self.nar[self.filled..end])? {
                        0 => return Err(rustix::io::Errno::NODATA),
                        len => self.filled += len,
                    }
                }
                Ok(())
            })?;
            self.files.push(Contents { range: begin..end, is_whole });
            left -= end - begin;
            if left == 0 {
                break;
            }
            self.end_piece()?;
        }
        timed(&mut self.took.reading, || drop(file));
        Ok(())
    }

    /// Hashes, cuts and compresses what was read.
    fn end_piece(&mut self) -> Result<(), Box<dyn Error>> {
        let nar = &self.nar[..self.filled];
        let Self { files, nar_hash, file_hash, zstd, compressed, took, sizes, .. } = self;
        timed(&mut took.nar_hash, || nar_hash.update(nar));
        timed(&mut took.file_hash, || {
            for Contents { range, is_whole } in &*files {
                if *is_whole {
                    black_box(blake3::hash(&nar[range.clone()]));
                } else {
                    file_hash.update(&nar[range.clone()]);
                }
            }
        });
        let undivided_bytes = DEFAULT_AVERAGE_CHUNK_BYTES as usize;
        let large = files.iter().filter(|file| file.range.len() > undivided_bytes);
        let large = large.map(|file| &nar[file.range.clone()]);
        let chunks: Vec<_> = timed(&mut took.cutting, || large.flat_map(cut).collect());
        timed(&mut took.chunk_hash, || {
            for chunk in &chunks {
                black_box(blake3::hash(chunk));
            }
        });
        sizes.cut += chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
        timed(&mut took.compressing, || {
            compressed.clear();
            compressed.reserve(compress_bound(nar.len()));
            zstd.compress_to_buffer(nar, compressed)
        })?;
        sizes.nar += nar.len();
        sizes.compressed += compressed.len();
        files.clear();
        self.filled = 0;
        Ok(())
    }
}

/// The chunks of a file, or of a part of one, as the store cuts them.
fn cut(contents: &[u8]) -> Vec<&[u8]> {
    let average = DEFAULT_AVERAGE_CHUNK_BYTES as usize;
    let chunker = FastCDC::new(contents, average / 4, average, average * 4);
    let (mut chunks, mut begin) = (Vec::new(), 0);
    while contents.len() - begin > average {
        let (_, end) = chunker.cut(begin, contents.len() - begin);
        chunks.push(&contents[begin..end]);
        begin = end;
    }
    if begin < contents.len() {
        chunks.push(&contents[begin..]);
    }
    chunks
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Directory,
    File,
    Other,
}

fn list(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<(CString, Kind)>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let kind = match entry.file_type() {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File,
            // Or a tree would seem to be read that is not.
            FileType::Unknown => return Err(rustix::io::Errno::OPNOTSUPP),
            _ => Kind::Other,
        };
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            entries.push((entry.file_name().to_owned(), kind));
        }
    }
    Ok(entries)
}

fn timed<T>(took: &mut Duration, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    *took += began.elapsed();
    result
}

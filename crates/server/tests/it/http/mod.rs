//! The binary cache over HTTP: a daemon on a port of its own over a store in memory, and
//! real tools that talk to it.

mod faults;
mod frames;
mod narinfos;
mod nix;
mod reading;
mod uploads;
mod writing;

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use granary_castore::{Castore, MemoryStore, RecordStore};
use granary_nix_formats::{NarHash, NarInfo, SigningKey, StorePath, StorePathHash, nar, nixbase32};
use granary_server::{
    daemon::{ListenAddress, ServeOptions, bind, serve},
    http::{HttpOptions, router},
};
use granary_store::{
    IngestedNar, NarFacts, PathInfo, PathInfoService, Store, StoreOptions, ingest_nar,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::oneshot};

/// The compressions that Nix can be told to use, with the suffix that it gives their NARs.
const COMPRESSIONS: [(&str, &str); 5] =
    [("none", ""), ("xz", ".xz"), ("zstd", ".zst"), ("gzip", ""), ("bzip2", ".bz2")];

/// Few, so that whoever holds one without need is noticed.
const BLOCKING_THREADS: usize = 4;

/// A daemon on a port of its own.
struct Cache {
    address: SocketAddr,
    store: Arc<Store>,
    /// Dropped, it stops the daemon.
    _stop: oneshot::Sender<()>,
    _runtime: Runtime,
    files: TempDir,
    next_file: AtomicU32,
}

impl Cache {
    fn start() -> Self {
        Self::start_with(HttpOptions::default())
    }

    fn start_with(options: HttpOptions) -> Self {
        let memory = Arc::new(MemoryStore::default());
        Self::start_over(memory.clone(), memory, options)
    }

    fn start_over(
        castore: Arc<dyn Castore>,
        records: Arc<dyn RecordStore>,
        options: HttpOptions,
    ) -> Self {
        let store_options = StoreOptions { signing_key: Some(signing_key()) };
        let store = Arc::new(Store::new(castore, records, store_options));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads can be had");
        let listen = ListenAddress::Ip(([127, 0, 0, 1], 0).into());
        let listeners = runtime.block_on(bind(std::slice::from_ref(&listen))).expect("a free port");
        let ListenAddress::Ip(address) = *listeners[0].address() else {
            panic!("it was told an IP address")
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let router = router(Arc::clone(&store), options);
        let serve_options =
            ServeOptions { blocking_threads: BLOCKING_THREADS, ..ServeOptions::default() };
        runtime.spawn(serve(listeners, router, serve_options, async {
            stopped.await.ok();
        }));
        let files = tempfile::tempdir().expect("a temporary directory");
        Self { address, store, _stop: stop, _runtime: runtime, files, next_file: AtomicU32::new(0) }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// A file with `contents`, to be handed to a tool.
    fn file(&self, contents: &[u8]) -> PathBuf {
        let path = self.new_file();
        std::fs::write(&path, contents).expect("the temporary directory takes files");
        path
    }

    fn new_file(&self) -> PathBuf {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        self.files.path().join(format!("file-{number}"))
    }

    /// Asks for `path` with the real curl.
    fn curl(&self, path: &str, args: &[&str]) -> Answer {
        let (headers, body) = (self.new_file(), self.new_file());
        let output = run(Command::new("curl")
            .args(["--silent", "--show-error", "--globoff", "--max-time", "60"])
            .arg("--dump-header")
            .arg(&headers)
            .arg("--output")
            .arg(&body)
            .args(args)
            .arg(self.url(path)));
        let headers = std::fs::read_to_string(headers).unwrap_or_default();
        // Behind a "100 Continue" comes the answer that counts.
        let last = headers.rfind("HTTP/").map_or("", |start| &headers[start..]);
        let status = last.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        Answer {
            status: status.unwrap_or(0),
            headers: last.lines().skip(1).map(str::to_owned).collect(),
            body: std::fs::read(body).unwrap_or_default(),
            curl_failed: !output.status.success(),
        }
    }

    /// Sends bytes on a connection of its own, ends that side if told to, and returns all
    /// that comes back.
    fn exchange(&self, request: &[u8], half_close: bool) -> String {
        let mut stream = TcpStream::connect(self.address).expect("the daemon listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a good timeout");
        stream.write_all(request).expect("the daemon reads");
        if half_close {
            stream.shutdown(Shutdown::Write).expect("it is open");
        }
        let mut answer = Vec::new();
        // A reset is as good an end here.
        stream.read_to_end(&mut answer).ok();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn get(&self, path: &str) -> Answer {
        self.curl(path, &[])
    }

    fn head(&self, path: &str) -> Answer {
        self.curl(path, &["--head"])
    }

    fn put(&self, path: &str, body: &[u8]) -> Answer {
        self.put_with(path, body, &[])
    }

    fn put_with(&self, path: &str, body: &[u8], args: &[&str]) -> Answer {
        let file = self.file(body);
        let file = file.to_str().expect("the temporary directory has a plain name");
        self.curl(path, &[&["--upload-file", file], args].concat())
    }

    /// Stores `nar` under `name` with the given references, as another client did before.
    fn add_path(&self, name: &str, nar: &[u8], references: &[StorePath]) -> StorePath {
        let ingested = ingest(&self.store, nar);
        let store_path = store_path(name);
        let path_info = PathInfo {
            store_path: store_path.clone(),
            node: ingested.node,
            references: references.iter().map(|reference| *reference.hash()).collect(),
            nar: Some(NarFacts {
                nar_size: ingested.nar.nar_size,
                nar_hash: ingested.nar.nar_hash,
                signatures: Vec::new(),
                reference_names: references.to_vec(),
                deriver: None,
                ca: None,
            }),
        };
        self.store.put_path_info(path_info).expect("stores");
        store_path
    }

    /// The narinfo of `path`.
    fn narinfo(&self, path: &StorePath) -> NarInfo {
        let answer = self.get(&format!("{}.narinfo", path.hash()));
        assert_eq!(answer.status, 200, "{}", answer.text());
        NarInfo::parse(&answer.text()).expect("a narinfo")
    }
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
    /// The transfer did not end well, whatever the status.
    curl_failed: bool,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value.trim()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Checks the status, and that the text has `part` in it.
    fn assert_refused(&self, status: u16, part: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        assert!(self.text().contains(part), "{:?} has no {part:?}", self.text());
    }
}

fn signing_key() -> SigningKey {
    SigningKey::generate("granary-test-1", [7; 32]).expect("a good name")
}

/// Runs a tool that must be installed, to its end.
fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| {
        panic!("{} is needed by this test: {error}", command.get_program().to_string_lossy())
    })
}

/// What a tool that must succeed writes to its standard output, given a file to read.
fn filter(cache: &Cache, tool: &[&str], input: &[u8]) -> Vec<u8> {
    let output = run(Command::new(tool[0]).args(&tool[1..]).arg(cache.file(input)));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool:?} failed: {errors}");
    output.stdout
}

/// The real tool that compresses to standard output, or the reverse.
fn tool(compression: &str, reverse: bool) -> Vec<&'static str> {
    let mut tool = match compression {
        "none" => return vec!["cat"],
        "xz" => vec!["xz", "--format=xz", "--stdout", "--keep"],
        "zstd" => vec!["zstd", "--quiet", "--stdout", "--keep"],
        "gzip" => vec!["gzip", "--stdout", "--keep"],
        "bzip2" => vec!["bzip2", "--stdout", "--keep"],
        other => panic!("{other} is no compression"),
    };
    if reverse {
        tool.push("--decompress");
        // gzip goes by the name of its file unless it is told that any will do.
        tool.push("--force");
    }
    tool
}

fn compress(cache: &Cache, compression: &str, bytes: &[u8]) -> Vec<u8> {
    filter(cache, &tool(compression, false), bytes)
}

/// Undoes a compression by the real tool. All of these check what can be checked.
fn decompress(cache: &Cache, compression: &str, bytes: &[u8]) -> Vec<u8> {
    if compression == "gzip" {
        // `gzip -d` wants a suffix that it knows, but not of its standard input.
        let input = cache.file(bytes);
        let output = run(Command::new("sh").args(["-c", "gzip -d < \"$0\""]).arg(input));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return output.stdout;
    }
    filter(cache, &tool(compression, true), bytes)
}

/// A store path whose hash part follows from its name.
fn store_path(name: &str) -> StorePath {
    let digest = Sha256::digest(name.as_bytes());
    let hash = StorePathHash::from_bytes(digest[..20].try_into().expect("20 of 32 bytes"));
    StorePath::new(hash, name).expect("a good name")
}

/// Bytes that compress by half, the same for the same seed.
fn bytes(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        b'A' + (state % 16).to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// The NAR of a directory with some of everything; `large` is the size of one file in it.
fn nar_of_tree(large: usize, text: &str) -> Vec<u8> {
    let mut writer = nar::Writer::new(Vec::new()).expect("memory takes it");
    let mut write = || -> Result<(), nar::Error> {
        let file = |writer: &mut nar::Writer<Vec<u8>>, name: &str, executable, data: &[u8]| {
            writer.entry(name.as_bytes())?;
            writer.file_header(executable, data.len() as u64)?;
            writer.file_data(data)?;
            writer.end_file()?;
            writer.end_entry()
        };
        writer.directory()?;
        writer.entry(b"bin")?;
        writer.directory()?;
        file(&mut writer, "run", true, format!("#!/bin/sh\n{text}\n").as_bytes())?;
        writer.end_directory()?;
        writer.end_entry()?;
        file(&mut writer, "empty", false, b"")?;
        file(&mut writer, "large", false, &bytes(1, large))?;
        writer.entry(b"link")?;
        writer.symlink(b"bin/run")?;
        writer.end_entry()?;
        writer.end_directory()
    };
    write().expect("a valid tree");
    writer.finish().expect("a valid tree")
}

fn ingest(store: &Store, nar: &[u8]) -> IngestedNar {
    let mut batch = store.castore().batch().expect("takes writes");
    let ingested = ingest_nar(nar, &mut *batch).expect("a valid NAR");
    batch.commit().expect("commits");
    ingested
}

fn sha256(bytes: &[u8]) -> NarHash {
    NarHash::from_bytes(Sha256::digest(bytes).into())
}

/// The name under which Nix uploads `file`.
fn nar_name(file: &[u8], suffix: &str) -> String {
    format!("{}.nar{suffix}", nixbase32::encode(sha256(file).as_bytes()))
}

/// What Nix writes into the narinfo of a NAR that it uploaded as `file`.
fn narinfo_of(path: &StorePath, nar: &[u8], compression: &str, file: &[u8], name: &str) -> NarInfo {
    NarInfo {
        store_path: path.clone(),
        url: format!("nar/{name}"),
        compression: compression.to_owned(),
        file_hash: Some(sha256(file)),
        file_size: Some(file.len() as u64),
        nar_hash: sha256(nar),
        nar_size: nar.len() as u64,
        references: Vec::new(),
        deriver: None,
        system: None,
        signatures: Vec::new(),
        ca: None,
    }
}

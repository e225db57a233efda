//! Kill -9 in the middle of writing: what was acknowledged is there afterwards, and the rest
//! can be written again.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use granary_castore::{BlobDigest, Castore as _};
use granary_client::Client;
use granary_nix_formats::{NarHash, NarInfo, StorePath};
use granary_testkit::{Random, tree::Tree};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};

use crate::support::{Daemon, Home};

/// How often each test kills, each time after another delay.
const ROUNDS: u64 = 5;

/// Things to write: more than are written before the kill.
const OBJECTS: usize = 400;

/// Longest delay before the kill, after the first acknowledgement.
const MAX_DELAY_MS: usize = 400;

/// Contents that tell their number, of sizes from nothing to several chunks.
fn contents(seed: u64, number: usize) -> Vec<u8> {
    let mut random = Random::new(seed << 32 | number as u64);
    let len = match number % 10 {
        0 => 200_000 + random.below(400_000),
        1..4 => random.below(20_000),
        _ => random.below(500),
    };
    let mut contents = format!("object {number} of round {seed}\n").into_bytes();
    contents.extend(random.compressible(len));
    contents
}

fn delay(seed: u64) -> Duration {
    Duration::from_millis(Random::new(seed ^ 0xdead).below(MAX_DELAY_MS) as u64)
}

/// Does `check` with a daemon that begins after the crash with what that left, and with one
/// that has to do without the index.
fn after_the_crash(home: &Home, check: impl Fn(&Daemon)) {
    let daemon = home.daemon();
    check(&daemon);
    daemon.stop();
    fs::remove_dir_all(home.data_dir().join("index")).expect("there is an index");
    let daemon = home.daemon();
    check(&daemon);
    daemon.stop();
}

#[test]
fn during_an_import() {
    for seed in 0..ROUNDS {
        let home = Home::new();
        fs::create_dir(home.path("in")).expect("the disk takes it");
        let names: Vec<_> = (0..OBJECTS).map(|number| format!("in/file-{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            fs::write(home.path(name), contents(seed, number)).expect("the disk takes it");
        }
        let args: Vec<_> = ["import"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let acknowledged = import_until_killed(home.granary(&args), delay(seed));
        assert!(!acknowledged.is_empty(), "round {seed}: killed before anything");
        println!("round {seed}: {} of {OBJECTS} imported", acknowledged.len());

        after_the_crash(&home, |daemon| {
            for (number, store_path) in acknowledged.iter().enumerate() {
                let stored = fetch(&daemon.address(), &store_path["/nix/store/".len()..][..32]);
                let expected = Tree::file(contents(seed, number)).to_nar();
                assert!(stored == expected, "round {seed}: {store_path} is lost");
            }
        });
        let again: Vec<_> = home.text(&args).lines().map(str::to_owned).collect();
        assert_eq!(again.len(), OBJECTS);
        assert_eq!(again[..acknowledged.len()], acknowledged);
        let last = home.output(["cat", &again[OBJECTS - 1]]);
        assert!(last == contents(seed, OBJECTS - 1));
    }
}

/// The lines that a command printed until it was killed, `delay` after the first.
fn import_until_killed(mut command: Command, delay: Duration) -> Vec<String> {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary can be run");
    let pid = Pid::from_child(&child);
    let mut stdout = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let mut first = String::new();
    stdout.read_line(&mut first).expect("it can be read");
    let killer = thread::spawn(move || {
        thread::sleep(delay);
        // It is not waited for before this, so the number is still its own.
        kill_process(pid, Signal::KILL).expect("it is ours");
    });
    let rest = stdout.lines().map(|line| line.expect("text"));
    let lines = [first.trim_end().to_owned()].into_iter().chain(rest).collect();
    killer.join().expect("it killed");
    child.wait().expect("it is ours");
    lines
}

/// Writes numbered objects to a daemon from several threads until it is killed, and returns
/// those that were acknowledged. `write` says whether one was.
fn push_until_killed(
    daemon: Daemon,
    delay: Duration,
    write: impl Fn(usize) -> bool + Sync,
) -> Vec<usize> {
    const WRITERS: usize = 4;
    let next = AtomicUsize::new(0);
    let acknowledged = Mutex::new(Vec::new());
    let first = std::sync::Barrier::new(2);
    let noted = |number| {
        let mut acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        acknowledged.push(number);
        acknowledged.len()
    };
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= OBJECTS || !write(number) {
                        break;
                    }
                    if noted(number) == 1 {
                        first.wait();
                    }
                }
            });
        }
        first.wait();
        thread::sleep(delay);
        daemon.kill();
    });
    acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn during_a_push_over_grpc() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let connect = |url: &str| Client::connect(url, runtime.handle().clone());
    let put = |client: &Client, contents: Vec<u8>| -> granary_castore::Result<BlobDigest> {
        let mut batch = client.batch()?;
        let digest = batch.put_blob(Bytes::from(contents))?;
        batch.commit().map(|()| digest)
    };
    for seed in 0..ROUNDS {
        let home = Home::new();
        let daemon = home.daemon();
        let client = connect(&daemon.url()).expect("it listens");
        let acknowledged = push_until_killed(daemon, delay(seed), |number| {
            put(&client, contents(seed, number)).is_ok()
        });
        println!("round {seed}: {} of {OBJECTS} put", acknowledged.len());

        after_the_crash(&home, |daemon| {
            let client = connect(&daemon.url()).expect("it listens");
            for &number in &acknowledged {
                let expected = contents(seed, number);
                let stored = read_blob(&client, &BlobDigest::of(&expected));
                assert!(stored == Some(expected), "round {seed}: {number} is lost");
            }
        });
        let daemon = home.daemon();
        let client = connect(&daemon.url()).expect("it listens");
        for number in (0..OBJECTS).filter(|number| !acknowledged.contains(number)) {
            put(&client, contents(seed, number)).expect("it can be put again");
        }
        let last = contents(seed, OBJECTS - 1);
        assert!(read_blob(&client, &BlobDigest::of(&last)) == Some(last));
        daemon.stop();
    }
}

fn read_blob(client: &Client, digest: &BlobDigest) -> Option<Vec<u8>> {
    use granary_castore::BlobService as _;

    let mut blob = client.open(digest).expect("it answers")?;
    let mut contents = Vec::new();
    loop {
        let data = blob.read_at(contents.len() as u64, 1 << 20).expect("it can be read");
        if data.is_empty() {
            return Some(contents);
        }
        contents.extend_from_slice(&data);
    }
}

/// A store path as Nix uploads it.
struct Upload {
    store_path: StorePath,
    nar: Vec<u8>,
    nar_url: String,
    narinfo: String,
}

impl Upload {
    fn new(seed: u64, number: usize) -> Self {
        let nar = Tree::file(contents(seed, number)).to_nar();
        let nar_hash = NarHash::from_bytes(Sha256::digest(&nar).into());
        let store_path =
            StorePath::for_source(format!("object-{number}"), &nar_hash).expect("a valid name");
        let hash = nar_hash.to_nix_string();
        let hash = hash.strip_prefix("sha256:").expect("the algorithm comes first");
        let nar_url = format!("nar/{hash}.nar");
        let narinfo = format!(
            "StorePath: {}\nURL: {nar_url}\nCompression: none\nFileHash: {nar_hash}\n\
             FileSize: {size}\nNarHash: {nar_hash}\nNarSize: {size}\nReferences: \n",
            store_path.absolute(),
            size = nar.len()
        );
        NarInfo::parse(&narinfo).expect("it is valid");
        Self { store_path, nar, nar_url, narinfo }
    }

    /// Uploads it as Nix does, the NAR first; whether both were acknowledged.
    fn put(&self, address: &str) -> bool {
        put(address, &self.nar_url, &self.nar)
            && put(address, &format!("{}.narinfo", self.store_path.hash()), self.narinfo.as_bytes())
    }
}

/// The NAR of a store path as Nix gets it, by way of its narinfo.
fn fetch(address: &str, hash: &str) -> Vec<u8> {
    let narinfo = String::from_utf8(get(address, &format!("{hash}.narinfo"))).expect("text");
    let narinfo = NarInfo::parse(&narinfo).expect("it is valid");
    get(address, &narinfo.url)
}

/// The body of the answer to a GET, which must succeed.
fn get(address: &str, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: granary\r\nConnection: close\r\n\r\n")
        .expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{path}: {}", answer.escape_ascii());
    let header_end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    answer.split_off(header_end.expect("the header ends") + 4)
}

/// Whether a PUT was acknowledged. Any other answer than success is a failure of the test,
/// unlike none.
fn put(address: &str, path: &str, body: &[u8]) -> bool {
    let attempt = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        write!(
            stream,
            "PUT /{path} HTTP/1.1\r\nHost: granary\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        )?;
        stream.write_all(body)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    match attempt() {
        Ok(answer) if answer.is_empty() => false,
        Ok(answer) => {
            assert!(answer.starts_with("HTTP/1.1 2"), "{path}: {answer}");
            true
        }
        Err(_) => false,
    }
}

#[test]
fn during_a_push_over_http() {
    for seed in 0..ROUNDS {
        let uploads: BTreeMap<_, _> =
            (0..OBJECTS).map(|number| (number, Upload::new(seed, number))).collect();
        let home = Home::new();
        let daemon = home.daemon();
        let address = daemon.address();
        let acknowledged =
            push_until_killed(daemon, delay(seed), |number| uploads[&number].put(&address));
        println!("round {seed}: {} of {OBJECTS} uploaded", acknowledged.len());

        after_the_crash(&home, |daemon| {
            let address = daemon.address();
            for number in &acknowledged {
                let upload = &uploads[number];
                let hash = upload.store_path.hash().to_string();
                assert!(fetch(&address, &hash) == upload.nar, "round {seed}: {hash} is lost");
                // Nix remembers the URL that it uploaded to.
                assert!(get(&address, &upload.nar_url) == upload.nar, "{}", upload.nar_url);
            }
        });
        let daemon = home.daemon();
        let address = daemon.address();
        for (number, upload) in &uploads {
            if !acknowledged.contains(number) {
                assert!(upload.put(&address), "{number} cannot be uploaded again");
            }
        }
        let last = &uploads[&(OBJECTS - 1)];
        assert!(home.output(["nar", &last.store_path.hash().to_string()]) == last.nar);
        daemon.stop();
    }
}

//! The daemon as a process.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
};

use granary_castore::Castore as _;
use granary_client::Client;
use rustix::process::Signal;

use crate::support::{Daemon, Home, STOP_TIME};

/// More than the buffers of two sockets hold.
const STALLED_BYTES: usize = 32 << 20;

#[test]
fn says_how_to_use_it() {
    let home = Home::new();
    let daemon = home.daemon();
    let [version, listening, data_dir, lines @ ..] = &daemon.announced[..] else {
        panic!("{:?}", daemon.announced);
    };
    assert_eq!(*version, format!("granary {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(*listening, format!("listening on {}", daemon.url()));
    assert_ne!(daemon.address(), "127.0.0.1:0", "the port is not the one it got");
    assert_eq!(*data_dir, format!("data directory {}", home.data_dir().display()));
    let public_key = fs::read_to_string(home.data_dir().join("signing-key.pub")).expect("a key");
    assert_eq!(lines[1], format!("extra-substituters = {}", daemon.url()));
    assert_eq!(lines[2], format!("extra-trusted-public-keys = {}", public_key.trim()));
    assert!(public_key.starts_with("granary-"), "{public_key}");
    let secret = fs::metadata(home.data_dir().join("signing-key")).expect("a key");
    assert_eq!(secret.permissions().mode() & 0o777, 0o600);
    let key_line = lines[2].clone();
    daemon.stop();
    let again = home.daemon();
    assert_eq!(again.announced.last(), Some(&key_line), "the key is another");
}

#[test]
fn takes_its_options_from_a_file() {
    let home = Home::new();
    home.file(
        "granary.toml",
        "data-dir = 'elsewhere'\nlisten = ['127.0.0.1:0', '[::1]:0']\npriority = 77\n",
    );
    let mut command = crate::support::bare(&home.path(""));
    command.args(["daemon", "--config", "granary.toml"]);
    let daemon = Daemon::start(command);
    assert_eq!(daemon.urls().len(), 2);
    assert!(home.path("elsewhere/daemon.json").exists());
    let info = get(&daemon, "/nix-cache-info");
    assert!(info.contains("Priority: 77\n"), "{info}");
    daemon.stop();
}

/// The answer to a GET, with its header.
fn get(daemon: &Daemon, path: &str) -> String {
    let mut stream = TcpStream::connect(daemon.address()).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: granary\r\nConnection: close\r\n\r\n")
        .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn paths_that_are_nothing_get_404() {
    let home = Home::new();
    let daemon = home.daemon();
    for path in ["/", "/favicon.ico", "/a/b/c", "/tvix.castore.v1.BlobService/Read"] {
        let answer = get(&daemon, path);
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    daemon.stop();
}

/// An upload that has begun and does not go on.
fn open_transfer(daemon: &Daemon) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.address()).expect("it listens");
    let head = "PUT /nar/1w1fff338fvdw53sqgamddn1b2xgds473pv6y13gizdbqjv4i5p3.nar HTTP/1.1\r\n\
                Host: granary\r\nContent-Length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("it reads");
    stream.write_all(&[0; 1000]).expect("it reads");
    stream
}

/// A NAR that nobody reads, larger than what lies between the two ends.
fn stalled_download(home: &Home, daemon: &Daemon) -> TcpStream {
    home.file("large", granary_testkit::Random::new(1).incompressible(STALLED_BYTES));
    let store_path = home.text(["import", "large"]);
    let narinfo = get(daemon, &format!("/{}.narinfo", &store_path["/nix/store/".len()..][..32]));
    let url = narinfo.lines().find_map(|line| line.strip_prefix("URL: ")).expect("it has a URL");
    let mut stream = TcpStream::connect(daemon.address()).expect("it listens");
    write!(stream, "GET /{url} HTTP/1.1\r\nHost: granary\r\n\r\n").expect("it reads");
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).expect("it answers");
    assert_eq!(&begin, b"HTTP/1.1 200");
    stream
}

#[test]
fn stops_with_transfers_open() {
    for signal in [Signal::TERM, Signal::INT] {
        let home = Home::new();
        let mut daemon = home.daemon();
        let upload = open_transfer(&daemon);
        let download = stalled_download(&home, &daemon);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let client = Client::connect(&daemon.url(), runtime.handle().clone()).expect("it listens");
        let mut batch = client.batch().expect("it takes writes");
        batch.write(&vec![7; 4 << 20]).expect("it takes writes");
        // A request that is never finished either.
        let mut idle = TcpStream::connect(daemon.address()).expect("it listens");
        idle.write_all(b"GET / HTTP/1.1\r\n").expect("it reads");
        daemon.signal(signal);
        let (status, elapsed) = daemon.wait();
        assert!(status.success(), "{status}");
        assert!(elapsed < STOP_TIME, "it took {elapsed:?}");
        assert!(!home.data_dir().join("daemon.json").exists());
        drop((upload, download, batch, idle));
    }
}

#[test]
fn stops_at_once_when_nothing_is_open() {
    let home = Home::new();
    let mut daemon = home.daemon();
    get(&daemon, "/nix-cache-info");
    daemon.signal(Signal::INT);
    let (status, elapsed) = daemon.wait();
    assert!(status.success(), "{status}");
    assert!(elapsed < STOP_TIME / 2, "it took {elapsed:?}");
}

#[test]
fn a_second_one_is_refused() {
    let home = Home::new();
    let daemon = home.daemon();
    let (code, stderr) = home.failure(["daemon", "--listen", "127.0.0.1:0"]);
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains(&home.data_dir().display().to_string()), "{stderr}");
    assert!(stderr.contains(&daemon.url()), "{stderr}");
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    // The first one is none the worse for it.
    assert!(get(&daemon, "/nix-cache-info").starts_with("HTTP/1.1 200 "));
    assert!(home.data_dir().join("daemon.json").exists());
    daemon.stop();
}

#[test]
fn a_port_in_use_is_told() {
    let home = Home::new();
    let daemon = home.daemon();
    let listen = ["daemon", "--data-dir", "other", "--listen", &daemon.address()];
    let (code, stderr) = home.failure(listen);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(&daemon.address()), "{stderr}");
    daemon.stop();
}

#[test]
fn starts_again_after_a_crash() {
    let home = Home::new();
    home.file("a", "contents\n");
    let daemon = home.daemon();
    let store_path = home.text(["import", "a"]);
    daemon.kill();
    let daemon = home.daemon();
    assert_eq!(home.output(["cat", &store_path]), b"contents\n");
    daemon.stop();
}

/// As a service manager does it: the socket is file descriptor 3 of the process.
#[test]
fn takes_sockets_that_it_is_passed() {
    let home = Home::new();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    let granary = home.granary(["daemon"]);
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@""#])
        .arg(granary.get_program())
        .args(granary.get_args())
        .env_clear()
        .envs(granary.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(std::os::fd::OwnedFd::from(socket));
    let daemon = Daemon::start(command);
    assert_eq!(daemon.urls(), [format!("http://{address}")]);
    let cache_info = get(&daemon, "/nix-cache-info");
    assert!(cache_info.contains("StoreDir: /nix/store"), "{cache_info}");
    daemon.stop();
}

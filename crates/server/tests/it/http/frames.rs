//! Bodies of many zstd frames, for clients that read all of them.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use granary_castore::Error;
use granary_server::http::HttpOptions;
use granary_testkit::{FramedStore, tools};
use tempfile::TempDir;

use super::{
    Cache, decompress, nar_of_tree,
    nix::{Closure, nix_with},
    sha256,
};

const ACCEPT: [&str; 2] = ["--header", "Accept-Encoding: zstd"];

/// A cache over a store with frames, and the NAR in it, by its URL.
fn cache_with_frames(
    max_extent_bytes: usize,
    large: usize,
    options: HttpOptions,
) -> (Cache, FramedStore, Vec<u8>, String) {
    let castore = FramedStore::new(max_extent_bytes);
    let records = Arc::new(castore.memory().clone());
    let cache = Cache::start_over(Arc::new(castore.clone()), records, options);
    let nar = nar_of_tree(large, "some text");
    let path = cache.add_path("framed", &nar, &[]);
    let url = cache.narinfo(&path).url;
    (cache, castore, nar, url)
}

/// How many frames `bytes` are, each of which must declare its content size.
fn frame_count(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while !bytes.is_empty() {
        let size = zstd::zstd_safe::get_frame_content_size(bytes);
        assert!(size.is_ok_and(|size| size.is_some()), "a frame without its size");
        let len = zstd::zstd_safe::find_frame_compressed_size(bytes).expect("a whole frame");
        bytes = &bytes[len..];
        count += 1;
    }
    count
}

#[test]
fn stored_frames_go_out_as_they_are() {
    let (cache, castore, nar, url) = cache_with_frames(100_000, 3_000_000, HttpOptions::default());
    let frames_before: usize = castore.counts().values().map(|counts| counts.frames).sum();
    let answer = cache.curl(&url, &ACCEPT);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-encoding"), Some("zstd"));
    assert_eq!(answer.header("vary"), Some("Accept-Encoding, User-Agent"));
    assert_eq!(answer.header("etag"), Some(&*format!("W/\"{}-frames\"", sha256(&nar))));
    assert!(frame_count(&answer.body) > 20);
    let frames: usize = castore.counts().values().map(|counts| counts.frames).sum();
    assert!(frames - frames_before > 10, "{frames} frames were asked for");
    assert!(decompress(&cache, "zstd", &answer.body) == nar, "other bytes");
    let head = cache.curl(&url, &["--head", ACCEPT[0], ACCEPT[1]]);
    assert_eq!((head.status, head.header("content-encoding")), (200, Some("zstd")));
    let tag = format!("If-None-Match: W/\"{}-frames\"", sha256(&nar));
    let known = cache.curl(&url, &[ACCEPT[0], ACCEPT[1], "--header", &tag]);
    assert_eq!(known.status, 304);
    // A part is counted in bytes of the NAR.
    let part = cache.curl(&url, &[ACCEPT[0], ACCEPT[1], "--range", "5-900000"]);
    assert_eq!((part.status, part.header("content-encoding")), (206, None));
    assert!(part.body == nar[5..=900_000]);
}

#[test]
fn whoever_is_not_known_to_read_them_gets_one_frame() {
    let options = HttpOptions {
        multi_frame_clients: vec!["reads-all/".to_owned()],
        ..HttpOptions::default()
    };
    let (cache, _, nar, url) = cache_with_frames(100_000, 1_000_000, options);
    for (agent, has_many) in [("reads-all/1.0", true), ("ureq/3.0", false), ("curl/8", false)] {
        let answer = cache.curl(&url, &[ACCEPT[0], ACCEPT[1], "--user-agent", agent]);
        assert_eq!(answer.header("content-encoding"), Some("zstd"), "{agent}");
        assert_eq!(frame_count(&answer.body) > 1, has_many, "{agent}");
        assert!(decompress(&cache, "zstd", &answer.body) == nar, "{agent}");
    }
}

#[test]
fn extents_of_any_length_make_the_same_nar() {
    for (max_extent_bytes, large) in
        [(1, 100), (7, 9_000), (5_000, 300_000), (70_000, 900_000), (3_000_000, 2_500_000)]
    {
        let (cache, _, nar, url) =
            cache_with_frames(max_extent_bytes, large, HttpOptions::default());
        let answer = cache.curl(&url, &ACCEPT);
        assert!(
            decompress(&cache, "zstd", &answer.body) == nar,
            "{large} bytes in extents of up to {max_extent_bytes}"
        );
    }
}

#[test]
fn damage_breaks_the_body_off() {
    let (cache, castore, nar, url) = cache_with_frames(100_000, 6_000_000, HttpOptions::default());
    castore.fail_from(5_500_000, Error::corrupt("an extent is damaged"));
    let answer = cache.curl(&url, &ACCEPT);
    assert_eq!(answer.status, 200, "it began well");
    assert!(answer.curl_failed, "and did not end well");
    assert!(!answer.body.is_empty());
    // What came is right as far as it goes.
    let mut decoder = zstd::stream::read::Decoder::new(&answer.body[..]).expect("memory");
    let mut read = Vec::new();
    std::io::Read::read_to_end(&mut decoder, &mut read).ok();
    assert!(!read.is_empty() && nar.starts_with(&read));
    castore.fail_from(0, Error::corrupt("an extent is damaged"));
    assert_eq!(cache.curl(&url, &ACCEPT).status, 500);
}

/// An nginx before the cache, which asks for zstd on behalf of its clients: Nix 2.8 decodes
/// what it never asks for.
struct Proxy {
    nginx: Child,
    port: u16,
    _files: TempDir,
}

impl Proxy {
    fn before(cache: &Cache) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let config = files.path().join("nginx.conf");
        fs::write(&config, configuration(files.path(), port, &cache.url("")))
            .expect("a temporary directory takes files");
        let mut nginx = Command::new(tools::find("nginx"))
            .arg("-e")
            .arg(files.path().join("error.log"))
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx starts");
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = nginx.try_wait().expect("it is a child of ours");
            assert!(ended.is_none(), "nginx ended: {ended:?}");
            assert!(began.elapsed() < Duration::from_secs(20), "nginx does not listen");
            std::thread::yield_now();
        }
        Self { nginx, port, _files: files }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.nginx.kill().ok();
        self.nginx.wait().ok();
    }
}

fn configuration(files: &Path, port: u16, upstream: &str) -> String {
    let files = files.display();
    format!(
        "daemon off; master_process off; pid {files}/pid;\n\
         events {{}}\n\
         http {{\n\
           access_log off;\n\
           client_body_temp_path {files}/body; proxy_temp_path {files}/proxy;\n\
           fastcgi_temp_path {files}/f; uwsgi_temp_path {files}/u; scgi_temp_path {files}/s;\n\
           server {{\n\
             listen 127.0.0.1:{port};\n\
             location / {{\n\
               proxy_pass {upstream};\n\
               proxy_http_version 1.1;\n\
               proxy_set_header Accept-Encoding zstd;\n\
             }}\n\
           }}\n\
         }}\n"
    )
}

#[test]
fn stock_nix_reads_them() {
    let closure = Closure::new();
    let nix = nix_with(&closure);
    let castore = FramedStore::new(60_000);
    let records = Arc::new(castore.memory().clone());
    let cache = Cache::start_over(Arc::new(castore.clone()), records, HttpOptions::default());
    let (source, root) = (nix.store("source"), closure.root());
    let to = cache.url("?compression=none");
    nix.nix("pushed", &["copy", "--no-check-sigs", "--from", &source, "--to", &to, &root]);
    let frames_before: usize = castore.counts().values().map(|counts| counts.frames).sum();
    let proxy = Proxy::before(&cache);
    let from = format!("http://127.0.0.1:{}", proxy.port);
    nix.nix("pulled", &["copy", "--from", &from, "--to", &nix.store("pulled"), &root]);
    nix.assert_has("pulled", &closure);
    let frames: usize = castore.counts().values().map(|counts| counts.frames).sum();
    assert!(frames > frames_before + 5, "it was sent frames");
}

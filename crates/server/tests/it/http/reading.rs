//! GET and HEAD of what is stored.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use granary_nix_formats::Listing;

use super::{
    BLOCKING_THREADS, Cache, decompress, filter, nar_of_tree, sha256, signing_key, store_path,
};

/// More than four pieces of a body.
const LARGE: usize = 2_300_000;

fn cache_with_path() -> (Cache, Vec<u8>, String) {
    let cache = Cache::start();
    let nar = nar_of_tree(LARGE, "exit 0");
    let path = cache.add_path("tree-1.0", &nar, &[]);
    let url = cache.narinfo(&path).url;
    (cache, nar, url)
}

#[test]
fn cache_info() {
    let cache = Cache::start();
    let answer = cache.get("nix-cache-info");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/x-nix-cache-info"));
    assert_eq!(answer.text(), "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n");
    let head = cache.head("nix-cache-info");
    let length = answer.body.len().to_string();
    assert_eq!((head.status, head.header("content-length")), (200, Some(length.as_str())));
}

#[test]
fn head_has_no_body() {
    let (cache, _, url) = cache_with_path();
    let hash = *store_path("tree-1.0").hash();
    let narinfo = format!("{hash}.narinfo");
    for (path, header) in [
        ("nix-cache-info", "A: b"),
        (&narinfo, "A: b"),
        (&url, "A: b"),
        (&url, "Accept-Encoding: zstd"),
    ] {
        let request =
            format!("HEAD /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n\r\n");
        let answer = cache.exchange(request.as_bytes(), false);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{path}: {answer}");
        assert_eq!(answer.matches("\r\n\r\n").count(), 1, "{path}: {answer}");
    }
}

#[test]
fn narinfo_has_all_fields_and_is_signed() {
    let cache = Cache::start();
    let nar = nar_of_tree(10, "true");
    let dependency = cache.add_path("dependency", &nar, &[]);
    let path = cache.add_path("tree-1.0", &nar, &[dependency.clone(), store_path("tree-1.0")]);
    let answer = cache.get(&format!("{}.narinfo", path.hash()));
    assert_eq!(answer.header("content-type"), Some("text/x-nix-narinfo"));
    for field in [
        "StorePath",
        "URL",
        "Compression",
        "FileHash",
        "FileSize",
        "NarHash",
        "NarSize",
        "References",
        "Sig",
    ] {
        assert!(answer.text().contains(&format!("{field}: ")), "{field} in {}", answer.text());
    }
    let narinfo = cache.narinfo(&path);
    assert_eq!(narinfo.store_path, path);
    assert!(narinfo.url.starts_with("nar/snix-castore/"), "{}", narinfo.url);
    assert!(narinfo.url.ends_with(&format!("?narsize={}", nar.len())), "{}", narinfo.url);
    assert_eq!(narinfo.compression, "none");
    assert_eq!((narinfo.nar_hash, narinfo.nar_size), (sha256(&nar), nar.len() as u64));
    assert_eq!(narinfo.file_hash, Some(narinfo.nar_hash));
    assert_eq!(narinfo.references.len(), 2);
    let verified =
        signing_key().public_key().verify(narinfo.fingerprint().as_bytes(), &narinfo.signatures[0]);
    assert!(verified);
    let head = cache.head(&format!("{}.narinfo", path.hash()));
    let length = answer.body.len().to_string();
    assert_eq!((head.status, head.header("content-length")), (200, Some(length.as_str())));
}

#[test]
fn nar_by_either_castore_url() {
    let (cache, nar, url) = cache_with_path();
    for url in [url.clone(), url.replace("snix-", "tvix-")] {
        let answer = cache.get(&url);
        assert_eq!(answer.status, 200);
        assert!(answer.body == nar, "other bytes");
        let length = nar.len().to_string();
        let etag = format!("\"{}\"", sha256(&nar));
        for answer in [answer, cache.head(&url)] {
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("content-length"), Some(length.as_str()));
            assert_eq!(answer.header("content-type"), Some("application/x-nix-nar"));
            assert_eq!(answer.header("accept-ranges"), Some("bytes"));
            assert_eq!(answer.header("vary"), Some("Accept-Encoding, User-Agent"));
            assert_eq!(answer.header("etag"), Some(etag.as_str()));
            assert_eq!(answer.header("content-encoding"), None);
        }
    }
}

#[test]
fn ranges() {
    let (cache, nar, url) = cache_with_path();
    let len = nar.len();
    for (range, expected) in [
        ("0-0".to_owned(), 0..1),
        ("1000-600000".to_owned(), 1000..600_001),
        ("524287-".to_owned(), 524_287..len),
        ("-5".to_owned(), len - 5..len),
        (format!("{}-{}", len - 1, len + 7), len - 1..len),
    ] {
        let answer = cache.curl(&url, &["--range", &range]);
        assert_eq!(answer.status, 206, "{range}");
        assert!(answer.body == nar[expected.clone()], "{range}");
        let content_range = format!("bytes {}-{}/{len}", expected.start, expected.end - 1);
        assert_eq!(answer.header("content-range"), Some(content_range.as_str()));
        let length = expected.len().to_string();
        assert_eq!(answer.header("content-length"), Some(length.as_str()));
    }
    let behind = cache.curl(&url, &["--range", &format!("{len}-")]);
    assert_eq!(behind.status, 416);
    assert_eq!(behind.header("content-range"), Some(format!("bytes */{len}").as_str()));
    let several = cache.curl(&url, &["--range", "0-1,5-6"]);
    assert_eq!((several.status, several.body.len()), (200, len));
    // Ranges are for GET alone.
    let head = cache.curl(&url, &["--head", "--range", "0-1"]);
    assert_eq!((head.status, head.header("content-length")), (200, Some(&*len.to_string())));
}

#[test]
fn if_range_and_if_none_match() {
    let (cache, nar, url) = cache_with_path();
    let etag = format!("\"{}\"", sha256(&nar));
    let with = |condition: &str| {
        cache.curl(&url, &["--range", "0-9", "--header", &format!("If-Range: {condition}")])
    };
    assert_eq!(with(&etag).status, 206);
    assert_eq!((with("\"other\"").status, with("\"other\"").body.len()), (200, nar.len()));
    let known = cache.curl(&url, &["--header", &format!("If-None-Match: \"x\", {etag}")]);
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(known.header("etag"), Some(etag.as_str()));
    assert_eq!(cache.curl(&url, &["--header", "If-None-Match: \"x\""]).status, 200);
}

#[test]
fn zstd_for_those_who_ask() {
    let (cache, nar, url) = cache_with_path();
    // A client that is not known to read more than one frame.
    let accept = ["--header", "Accept-Encoding: gzip, zstd", "--user-agent", "ureq/3.0"];
    let answer = cache.curl(&url, &accept);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-encoding"), Some("zstd"));
    assert_eq!(answer.header("vary"), Some("Accept-Encoding, User-Agent"));
    assert_eq!(answer.header("content-length"), None);
    let tag = format!("\"{}-zstd\"", sha256(&nar));
    assert_eq!(answer.header("etag"), Some(tag.as_str()));
    assert!(answer.body.len() < nar.len() * 3 / 4, "it is compressed");
    assert!(decompress(&cache, "zstd", &answer.body) == nar, "other bytes");
    // Some decoders stop behind the first frame: there is one, which knows its size.
    let list = filter(&cache, &["zstd", "--list", "--verbose"], &answer.body);
    let list = String::from_utf8_lossy(&list).into_owned();
    assert!(list.contains(&format!("({} B)", nar.len())), "{list}");
    assert!(list.lines().any(|line| line.ends_with("Frames: 1")), "{list}");
    // A HEAD says what a GET would.
    let head = cache.curl(&url, &[&accept[..], &["--head"]].concat());
    assert_eq!((head.status, head.header("content-encoding")), (200, Some("zstd")));
    assert_eq!(head.header("content-length"), None);
    // A part is one of the bytes as they are.
    let part = cache.curl(&url, &[&accept[..], &["--range", "0-9"]].concat());
    assert_eq!((part.status, part.header("content-encoding")), (206, None));
    assert_eq!(part.body, nar[..10]);
    // curl decodes it by itself, where it was built with zstd.
    let plain = cache.curl(&url, &["--header", "Accept-Encoding: zstd;q=0, gzip"]);
    assert_eq!(plain.header("content-encoding"), None);
    assert!(plain.body == nar);
}

#[test]
fn listing() {
    let (cache, nar, _) = cache_with_path();
    let hash = *store_path("tree-1.0").hash();
    let answer = cache.get(&format!("{hash}.ls"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    Listing::from_json(&answer.body).expect("a listing");
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let file = &json["root"]["entries"]["bin"]["entries"]["run"];
    let offset = usize::try_from(file["narOffset"].as_u64().expect("a number")).expect("small");
    assert!(nar[offset..].starts_with(b"#!/bin/sh\nexit 0\n"), "{file}");
    assert_eq!(file["executable"], true);
}

#[test]
fn clients_that_do_not_read_hold_no_thread() {
    let cache = Cache::start();
    // More than the buffers of a connection take.
    let nar = nar_of_tree(30_000_000, "true");
    let path = cache.add_path("tree", &nar, &[]);
    let url = cache.narinfo(&path).url;
    let stalled: Vec<TcpStream> = (0..BLOCKING_THREADS * 2)
        .map(|number| {
            let mut stream = TcpStream::connect(cache.address).expect("the daemon listens");
            let encoding = if number % 2 == 0 { "identity" } else { "zstd" };
            write!(stream, "GET /{url} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {encoding}\r\n\r\n")
                .expect("the daemon reads");
            // It has begun to answer, so that it works on the body by now.
            stream.read_exact(&mut [0; 15]).expect("an answer");
            stream
        })
        .collect();
    let answer = cache.get(&url);
    assert!(answer.status == 200 && answer.body == nar);
    drop(stalled);
}

#[test]
fn what_is_not_there() {
    let cache = Cache::start();
    let hash = *store_path("nothing").hash();
    let file = "0".repeat(52);
    for path in [
        format!("{hash}.narinfo"),
        format!("{hash}.ls"),
        format!("nar/{file}.nar.xz"),
        "nar/nonsense".to_owned(),
        "log/nothing.drv".to_owned(),
        "debuginfo/00".to_owned(),
        "realisations/sha256:00!out.doi".to_owned(),
        "build-trace-v2/x.drv/out.doi".to_owned(),
        "nonsense".to_owned(),
        "nonsense.narinfo".to_owned(),
        "non/sense".to_owned(),
        String::new(),
        // A directory that nobody has.
        "nar/snix-castore/CiQSIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAGAE".to_owned(),
    ] {
        for answer in [cache.get(&path), cache.head(&path)] {
            assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        }
    }
    cache.get("nar/snix-castore/nonsense").assert_refused(400, "castore URL");
}

#[test]
fn other_methods() {
    let (cache, _, url) = cache_with_path();
    let hash = *store_path("tree-1.0").hash();
    for (path, allow) in [
        ("nix-cache-info".to_owned(), "GET, HEAD, PUT"),
        (format!("{hash}.narinfo"), "GET, HEAD, PUT"),
        ("nar/x.nar".to_owned(), "GET, HEAD, PUT"),
        (url, "GET, HEAD"),
    ] {
        for method in ["POST", "DELETE", "PATCH", "OPTIONS"] {
            let answer = cache.curl(&path, &["--request", method]);
            assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{path}");
        }
    }
    assert_eq!(cache.curl("nonsense", &["--request", "DELETE"]).status, 404);
}

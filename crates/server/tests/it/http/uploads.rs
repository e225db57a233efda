//! PUT of NARs and narinfos as Nix does it, and what is refused.

use std::{io::Write as _, net::TcpStream, time::Duration};

use granary_nix_formats::NarInfo;
use granary_server::http::{DecodeLimits, HttpOptions};

use super::{
    COMPRESSIONS, Cache, compress, decompress, nar_name, nar_of_tree, narinfo_of, store_path,
};

#[test]
fn each_compression_comes_back_as_it_was_uploaded() {
    let cache = Cache::start();
    for (index, (compression, suffix)) in COMPRESSIONS.into_iter().enumerate() {
        let nar = nar_of_tree(1_500_000 + index * 4_097, compression);
        let file = compress(&cache, compression, &nar);
        let name = nar_name(&file, suffix);
        let url = format!("nar/{name}");
        assert_eq!(cache.head(&url).status, 404);
        let put = cache.put(&url, &file);
        assert_eq!(put.status, 201, "{compression}: {}", put.text());
        assert_eq!(cache.put(&url, &file).status, 200, "a second time");

        let head = cache.head(&url);
        let get = cache.get(&url);
        for answer in [&head, &get] {
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("content-type"), Some("application/x-nix-nar"));
        }
        assert!(decompress(&cache, compression, &get.body) == nar, "{compression}: other bytes");
        let length = get.body.len().to_string();
        let expected =
            if matches!(compression, "zstd" | "bzip2") { None } else { Some(length.as_str()) };
        assert_eq!(get.header("content-length"), expected, "{compression}");
        assert_eq!(head.header("content-length"), expected, "{compression}");

        let path = store_path(&format!("path-{compression}"));
        let narinfo = narinfo_of(&path, &nar, compression, &file, &name);
        let narinfo_url = format!("{}.narinfo", path.hash());
        let put = cache.put(&narinfo_url, narinfo.to_string().as_bytes());
        assert_eq!(put.status, 201, "{compression}: {}", put.text());
        let served = cache.narinfo(&path);
        assert_eq!((served.nar_hash, served.nar_size), (narinfo.nar_hash, narinfo.nar_size));
        assert!(cache.get(&served.url).body == nar);
    }
}

#[test]
fn an_uncompressed_upload_has_ranges() {
    let cache = Cache::start();
    let nar = nar_of_tree(700_000, "true");
    let url = format!("nar/{}", nar_name(&nar, ""));
    assert_eq!(cache.put(&url, &nar).status, 201);
    let part = cache.curl(&url, &["--range", "600000-600009"]);
    assert_eq!((part.status, &part.body[..]), (206, &nar[600_000..600_010]));
}

#[test]
fn several_frames_members_and_streams() {
    let cache = Cache::start();
    let nar = nar_of_tree(300_000, "true");
    for (compression, suffix) in COMPRESSIONS.into_iter().skip(1) {
        let (first, second) = nar.split_at(nar.len() / 3);
        let mut file = compress(&cache, compression, first);
        file.extend(compress(&cache, compression, second));
        let url = format!("nar/{}", nar_name(&file, suffix));
        let put = cache.put(&url, &file);
        assert_eq!(put.status, 201, "{compression}: {}", put.text());
        assert!(decompress(&cache, compression, &cache.get(&url).body) == nar, "{compression}");
    }
}

#[test]
fn a_body_with_another_hash_leaves_nothing() {
    let cache = Cache::start();
    let nar = nar_of_tree(10, "true");
    let file = compress(&cache, "xz", &nar);
    let url = format!("nar/{}", nar_name(b"something else", ".xz"));
    cache.put(&url, &file).assert_refused(400, "and not the one in that name");
    assert_eq!(cache.head(&url).status, 404);
    assert_eq!(cache.get(&url).status, 404);
}

#[test]
fn another_body_for_a_nar_that_is_stored() {
    let cache = Cache::start();
    let nar = nar_of_tree(10, "true");
    let url = format!("nar/{}", nar_name(&nar, ""));
    assert_eq!(cache.put(&url, &nar).status, 201);
    assert_eq!(cache.put(&url, &nar).status, 200);
    cache.put(&url, b"something else").assert_refused(400, "and not the one in that name");
    assert!(cache.get(&url).body == nar);
}

#[test]
fn bodies_that_are_no_nar() {
    let cache = Cache::start();
    let nar = nar_of_tree(100_000, "true");
    let put = |file: &[u8], suffix| {
        let url = format!("nar/{}", nar_name(file, suffix));
        let answer = cache.put(&url, file);
        assert_eq!(cache.head(&url).status, 404);
        answer
    };
    put(b"", "").assert_refused(415, "begins neither a NAR");
    put(b"hello, world", ".xz").assert_refused(415, "begins neither a NAR");
    put(&nar[..nar.len() - 1], "").assert_refused(400, "truncated");
    put(&[&nar[..], b"tail"].concat(), "").assert_refused(400, "not a valid NAR");
    put(&compress(&cache, "xz", &nar[..1000]), ".xz").assert_refused(400, "truncated");
    for (compression, suffix) in COMPRESSIONS.into_iter().skip(1) {
        let file = compress(&cache, compression, &nar);
        put(&file[..file.len() - 3], suffix).assert_refused(400, "does not decompress");
        let tail = [&file[..], b"a tail that is no frame"].concat();
        put(&tail, suffix).assert_refused(400, "does not decompress");
    }
    let name = nar_name(&nar, "");
    cache.put(&format!("nar/{name}.br"), &nar).assert_refused(415, "\".br\"");
    cache.put("nar/name.nar", &nar).assert_refused(400, "is no name for a NAR");
    cache.put("nar/snix-castore/Cg", &nar).assert_refused(405, "");
}

#[test]
fn a_bomb_is_stopped() {
    let decode_limits = DecodeLimits { free_bytes: 1_000_000, max_ratio: 20 };
    let cache = Cache::start_with(HttpOptions { decode_limits, ..HttpOptions::default() });
    let mut nar = nar_of_tree(0, "true");
    // The contents of a file that the NAR says is huge: zeros to no end.
    let contents = nar.windows(8).position(|found| found == b"contents").expect("a file");
    nar.truncate(contents + 8);
    nar.extend_from_slice(&(1_u64 << 40).to_le_bytes());
    nar.resize(60_000_000, 0);
    for (compression, suffix) in COMPRESSIONS.into_iter().skip(1) {
        let file = compress(&cache, compression, &nar);
        let url = format!("nar/{}", nar_name(&file, suffix));
        cache.put(&url, &file).assert_refused(413, "over the limit");
        assert_eq!(cache.head(&url).status, 404);
    }
}

/// Sends a PUT that claims `claimed` bytes and has `body`, ends its own side of the
/// connection if told to, and returns what comes back.
fn put_raw(cache: &Cache, path: &str, claimed: usize, body: &[u8], half_close: bool) -> String {
    let head = format!(
        "PUT /{path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {claimed}\r\n\r\n"
    );
    cache.exchange(&[head.as_bytes(), body].concat(), half_close)
}

#[test]
fn a_body_that_breaks_off_leaves_nothing() {
    let cache = Cache::start();
    let nar = nar_of_tree(200_000, "true");
    let url = format!("nar/{}", nar_name(&nar, ""));
    for sent in [0, 4, 100_000, nar.len()] {
        // What is sent may even be all of it: it is not, by what was claimed.
        put_raw(&cache, &url, nar.len() + 1, &nar[..sent], true);
        assert_eq!(cache.head(&url).status, 404, "after {sent} bytes");
    }
    assert_eq!(cache.put(&url, &nar).status, 201);
}

#[test]
fn a_client_that_goes_away_makes_room_for_the_next() {
    let options = HttpOptions { max_concurrent_uploads: 1, ..HttpOptions::default() };
    let cache = Cache::start_with(options);
    let nar = nar_of_tree(200_000, "true");
    let url = format!("nar/{}", nar_name(&nar, ""));
    for _ in 0..4 {
        let mut stream = TcpStream::connect(cache.address).expect("the daemon listens");
        let len = nar.len();
        write!(stream, "PUT /{url} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n")
            .expect("the daemon reads");
        stream.write_all(&nar[..len - 1]).expect("the daemon reads");
    }
    assert_eq!(cache.put(&url, &nar).status, 201);
    assert!(cache.get(&url).body == nar);
}

#[test]
fn a_client_that_stalls_is_given_up() {
    let options =
        HttpOptions { body_idle_timeout: Duration::from_millis(300), ..HttpOptions::default() };
    let cache = Cache::start_with(options);
    let nar = nar_of_tree(200_000, "true");
    let url = format!("nar/{}", nar_name(&nar, ""));
    let answer = put_raw(&cache, &url, nar.len(), &nar[..1000], false);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let narinfo = format!("{}.narinfo", store_path("x").hash());
    let answer = put_raw(&cache, &narinfo, 1000, b"StorePath", false);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[test]
fn what_is_no_nar_is_refused_before_all_of_it_came() {
    let options =
        HttpOptions { body_idle_timeout: Duration::from_millis(300), ..HttpOptions::default() };
    let cache = Cache::start_with(options);
    let nar = nar_of_tree(200_000, "true");
    let mut body = nar[..1000].to_vec();
    body[200..].fill(b'x');
    let url = format!("nar/{}", nar_name(&nar, ""));
    // The client says that there is more, and sends nothing of it.
    let answer = put_raw(&cache, &url, nar.len(), &body, false);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[test]
fn more_uploads_than_are_decoded_at_once_all_arrive() {
    let options = HttpOptions { max_concurrent_uploads: 1, ..HttpOptions::default() };
    let cache = Cache::start_with(options);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let cache = &cache;
            scope.spawn(move || {
                let nar = nar_of_tree(400_000, &number.to_string());
                let file = compress(cache, "zstd", &nar);
                let url = format!("nar/{}", nar_name(&file, ".zst"));
                assert_eq!(cache.put(&url, &file).status, 201);
                assert!(decompress(cache, "zstd", &cache.get(&url).body) == nar);
            });
        }
    });
}

#[test]
fn a_content_encoding_is_not_part_of_the_file() {
    let cache = Cache::start();
    let nar = nar_of_tree(50_000, "true");
    let file = compress(&cache, "xz", &nar);
    let url = format!("nar/{}", nar_name(&file, ".xz"));
    let encoded = compress(&cache, "gzip", &file);
    let put = cache.put_with(&url, &encoded, &["--header", "Content-Encoding: gzip"]);
    assert_eq!(put.status, 201, "{}", put.text());
    assert!(decompress(&cache, "xz", &cache.get(&url).body) == nar);
}

#[test]
fn narinfos_that_are_refused() {
    let cache = Cache::start();
    let nar = nar_of_tree(10, "true");
    let name = nar_name(&nar, "");
    let path = store_path("path");
    let put = |narinfo: &NarInfo| {
        cache.put(&format!("{}.narinfo", path.hash()), narinfo.to_string().as_bytes())
    };
    let good = narinfo_of(&path, &nar, "none", &nar, &name);
    put(&good).assert_refused(409, "upload the NAR first");
    assert_eq!(cache.put(&format!("nar/{name}"), &nar).status, 201);

    let other_url = format!("{}.narinfo", store_path("other").hash());
    cache
        .put(&other_url, good.to_string().as_bytes())
        .assert_refused(400, "the narinfo is that of");
    cache.put(&other_url, b"StorePath: /nix").assert_refused(400, "truncated");
    cache.put(&other_url, b"\xff\xfe\n").assert_refused(400, "utf-8");
    cache.put(&other_url, &vec![b'x'; 2_000_000]).assert_refused(413, "the limit");

    let missing = store_path("missing");
    let mut narinfo = good.clone();
    narinfo.references = vec![path.clone(), missing.clone()];
    let answer = put(&narinfo);
    answer.assert_refused(409, &missing.base_name());
    answer.assert_refused(409, "--refresh");

    let mut narinfo = good.clone();
    narinfo.nar_size += 8;
    put(&narinfo).assert_refused(422, "NarSize");
    assert_eq!(cache.get(&format!("{}.narinfo", path.hash())).status, 404);

    let mut narinfo = good.clone();
    narinfo.url = "nar/snix-castore/nonsense".to_owned();
    put(&narinfo).assert_refused(400, "castore URL");

    // Itself is no missing reference, and a castore URL is as good as an upload.
    let mut narinfo = good;
    narinfo.references = vec![path.clone()];
    assert_eq!(put(&narinfo).status, 201);
    narinfo.url = cache.narinfo(&path).url;
    assert_eq!(put(&narinfo).status, 201);
    assert_eq!(cache.narinfo(&path).references, [path]);
}

#[test]
fn narinfo_with_content_encoding() {
    let cache = Cache::start();
    let nar = nar_of_tree(10, "true");
    let name = nar_name(&nar, "");
    assert_eq!(cache.put(&format!("nar/{name}"), &nar).status, 201);
    let codings = [
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("zstd", "zstd"),
        ("xz", "xz"),
        ("identity", "none"),
    ];
    for (coding, compression) in codings {
        let path = store_path(coding);
        let narinfo = narinfo_of(&path, &nar, "none", &nar, &name).to_string();
        let body = compress(&cache, compression, narinfo.as_bytes());
        let header = format!("Content-Encoding: {coding}");
        let put =
            cache.put_with(&format!("{}.narinfo", path.hash()), &body, &["--header", &header]);
        assert_eq!(put.status, 201, "{coding}: {}", put.text());
        assert_eq!(cache.narinfo(&path).store_path, path);
    }
    let put = |coding: &str, body: &[u8]| {
        let header = format!("Content-Encoding: {coding}");
        let path = store_path(coding);
        cache.put_with(&format!("{}.narinfo", path.hash()), body, &["--header", &header])
    };
    put("br", b"...").assert_refused(415, "\"br\" is not supported");
    put("gzip", b"not gzip").assert_refused(400, "does not decompress as gzip");
    let large = compress(&cache, "zstd", &vec![b'x'; 5_000_000]);
    put("zstd", &large).assert_refused(413, "over the limit");
}

#[test]
fn curl_that_waits_for_100_continue() {
    let cache = Cache::start();
    let nar = nar_of_tree(2_000_000, "true");
    let url = format!("nar/{}", nar_name(&nar, ""));
    let expect = ["--header", "Expect: 100-continue", "--http1.1"];
    assert_eq!(cache.put_with(&url, &nar, &expect).status, 201);
    assert_eq!(cache.put_with(&url, &nar, &expect).status, 200);
    let name = nar_name(&nar, ".br");
    cache.put_with(&format!("nar/{name}"), &nar, &expect).assert_refused(415, ".br");
}

//! Damage is found, told, and never served: by `verify`, by reads, and by the scrub.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use granary_testkit::{Random, tools};
use serde_json::Value;

use crate::support::{Daemon, Home, damage};

/// Time in which a scrub of a small store is over.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store with a few files, none of which compresses, and their store paths.
fn with_files() -> (Home, Vec<(String, Vec<u8>)>) {
    let home = Home::new();
    let mut random = Random::new(31);
    let files = [5_000, 200_000, 900_000].map(|len| {
        let contents = random.incompressible(len);
        home.file("file", &contents);
        (home.text(["import", "file"]), contents)
    });
    (home, files.into())
}

/// What `verify` says with these arguments, and its exit code.
fn verify(home: &Home, args: &[&str]) -> (Value, i32) {
    let output = home.run([&["verify", "--json"], args].concat());
    let code = output.status.code().expect("it ended by itself");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let object = serde_json::from_slice(&output.stdout);
    (object.unwrap_or_else(|error| panic!("{error}: {stderr}")), code)
}

#[test]
fn a_clean_store() {
    let (home, _) = with_files();
    let text = home.text(["verify", "--data", "--nar"]);
    assert!(text.contains(": 0 errors, 0 warnings"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let (mut direct, code) = verify(&home, &["--data", "--nar"]);
    assert_eq!(code, 0);
    let daemon = home.daemon();
    let (remote, code) = verify(&home, &["--data", "--nar"]);
    assert_eq!((code, &remote), (0, &direct));
    daemon.stop();
    // What it is depends on how records are encoded.
    direct["checkedBytes"] = "NUMBER".into();
    insta::assert_json_snapshot!(direct);
}

#[test]
fn a_damaged_store() {
    let (home, files) = with_files();
    let (store_path, contents) = &files[1];
    damage(&home.data_dir(), contents);
    // Nobody has read it.
    assert_eq!(verify(&home, &[]).1, 0);
    let (direct, code) = verify(&home, &["--data"]);
    assert_eq!((code, &direct["clean"]), (1, &Value::Bool(false)));
    assert_eq!(direct["damagedPaths"], serde_json::json!([store_path]));
    let object = &direct["damagedObjects"][0];
    assert_eq!(object["storePaths"], serde_json::json!([store_path]), "{object}");
    let kinds: Vec<_> = direct["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|finding| (finding["severity"].as_str(), finding["pack"].is_string()))
        .collect();
    assert_eq!(kinds, [(Some("error"), true), (Some("error"), false)], "{direct}");
    let text = String::from_utf8(home.run(["verify", "--data"]).stdout).expect("text");
    assert!(text.contains(store_path) && text.contains("error: packs/"), "{text}");
    let daemon = home.daemon();
    let (remote, code) = verify(&home, &["--data"]);
    assert_eq!((code, remote), (1, direct));
    daemon.stop();
}

#[test]
fn what_cannot_run_has_its_own_code() {
    let home = Home::new();
    let (code, stderr) = home.failure(["verify"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("no store"), "{stderr}");
    assert_eq!(home.failure(["verify", "--store", "http://127.0.0.1:1"]).0, 2);
    assert_eq!(home.failure(["verify", "--public-key", "x"]).0, 2);
    let (home, _) = with_files();
    let daemon = home.daemon();
    let data_dir = home.data_dir();
    let data_dir = data_dir.to_str().expect("UTF-8");
    assert_eq!(home.failure(["verify", "--data-dir", data_dir]).0, 2);
    daemon.stop();
}

/// Gets the NAR of a path as Nix would: whether all of it came, and the status.
fn get_nar(daemon: &Daemon, store_path: &str) -> (bool, String) {
    let curl = |url: String, args: &[&str]| {
        let mut curl = Command::new(tools::find("curl"));
        curl.args(["--silent", &url]).args(args);
        let output = curl.output().expect("curl runs");
        (output.status.success(), String::from_utf8(output.stdout).expect("text"))
    };
    let hash = &store_path["/nix/store/".len()..][..32];
    let (_, narinfo) = curl(format!("{}/{hash}.narinfo", daemon.url()), &[]);
    let url = narinfo.lines().find_map(|line| line.strip_prefix("URL: ")).expect("a URL");
    let url = format!("{}/{url}", daemon.url());
    curl(url, &["--output", "/dev/null", "--write-out", "%{http_code}"])
}

fn damaged_objects(home: &Home) -> u64 {
    let stats: Value = serde_json::from_str(&home.text(["stats", "--json"])).expect("JSON");
    stats["damagedObjects"].as_u64().expect("a number")
}

/// The daemon without a scrub, so that only reads find anything.
fn without_scrub(home: &Home) -> Daemon {
    Daemon::start(home.granary(["daemon", "--listen", "127.0.0.1:0", "--scrub-rate", "0"]))
}

#[test]
fn a_daemon_serves_no_damage_and_all_else() {
    let (home, files) = with_files();
    for (_, contents) in &files[..2] {
        damage(&home.data_dir(), contents);
    }
    let large = Random::new(32).incompressible(9_000_000);
    let daemon = without_scrub(&home);
    assert_eq!(damaged_objects(&home), 0, "nobody has read it yet");
    // Small enough to be read before the first byte is sent.
    let (store_path, _) = &files[0];
    let output = home.run(["cat", store_path]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(output.stdout.is_empty());
    assert_eq!(damaged_objects(&home), 1);
    assert_eq!(get_nar(&daemon, store_path), (true, "500".to_owned()));
    assert_eq!(damaged_objects(&home), 1, "the same object");
    assert_eq!(home.run(["nar", &files[1].0]).status.code(), Some(5));
    assert_eq!(damaged_objects(&home), 2);
    let (store_path, contents) = &files[2];
    assert!(home.output(["cat", store_path]) == *contents);
    // Of a larger one the beginning is sent, and then the connection ends.
    home.file("large", &large);
    let (is_whole, status) = get_nar(&daemon, &home.text(["import", "large"]));
    assert!(is_whole && status == "200");
    // What was read twice is in memory, and right.
    daemon.stop();
    damage(&home.data_dir(), &large);
    let daemon = without_scrub(&home);
    let (is_whole, status) = get_nar(&daemon, &home.text(["import", "large"]));
    assert!(!is_whole && status == "200", "{status}");
    home.file("new", "it still takes writes");
    home.text(["import", "new"]);
    let log = daemon.stop_for_log();
    assert!(log.contains("damage found; it is not served"), "{log}");
}

#[test]
fn the_scrub_finds_damage_before_anybody_reads_it() {
    let (home, files) = with_files();
    damage(&home.data_dir(), &files[0].1);
    let args = ["daemon", "--listen", "127.0.0.1:0", "--scrub-rate", "1000"];
    let daemon = Daemon::start(home.granary(args));
    let began = Instant::now();
    while damaged_objects(&home) == 0 {
        assert!(began.elapsed() < PATIENCE, "the scrub finds nothing");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(damaged_objects(&home), 1);
    let log = daemon.stop_for_log();
    assert!(log.contains("damage found; it is not served"), "{log}");
    assert!(home.data_dir().join("scrub.json").exists());
}

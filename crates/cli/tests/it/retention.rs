//! Pins, deletion and garbage collection, on a directory and through the daemon.

use std::fs;

use granary_testkit::tree::Tree;
use serde_json::{Value, json};

use crate::support::Home;

/// A tree whose contents do not compress, so that it takes what it has.
fn tree(seed: u64) -> Tree {
    let own = granary_testkit::Random::new(seed).incompressible(200_000);
    Tree::directory([
        (&b"own"[..], Tree::file(own)),
        (b"shared", Tree::file(granary_testkit::Random::new(99).incompressible(100_000))),
    ])
}

/// A home with a store of so many paths, and their names.
fn with_paths(count: u64) -> (Home, Vec<String>) {
    let home = Home::new();
    let paths = (0..count).map(|number| {
        let name = format!("package-{number}");
        tree(number).write_to(&home.path(&name)).expect("the disk takes it");
        home.text(["import", &name])
    });
    let paths = paths.collect();
    (home, paths)
}

fn object(home: &Home, args: &[&str]) -> Value {
    serde_json::from_str(&home.text(args)).expect("JSON")
}

fn is_there(home: &Home, path: &str) -> bool {
    let output = home.run(["nar", path]);
    match output.status.code() {
        Some(0) => true,
        Some(3) => false,
        code => panic!("{code:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[test]
fn what_is_pinned_stays_and_all_else_goes() {
    for through_daemon in [false, true] {
        let (home, paths) = with_paths(4);
        let daemon = through_daemon.then(|| home.daemon());
        let pinned = home.text(["pin", "add", "release", &paths[1]]);
        assert_eq!(pinned, format!("pinned {} as \"release\"", paths[1]));
        let dry = object(&home, &["gc", "--dry-run", "--keep-for", "0", "--json"]);
        assert_eq!(dry["removedPaths"], json!(3));
        assert_eq!(dry["packages"][0]["name"], json!("package"));
        assert!(paths.iter().all(|path| is_there(&home, path)), "nothing went");

        let report = object(&home, &["gc", "--keep-for", "0", "--json"]);
        assert_eq!((&report["removedPaths"], &report["keptPaths"]), (&json!(3), &json!(1)));
        let freed = report["freedBytes"].as_u64().expect("a number");
        let expected = dry["freedBytes"].as_u64().expect("a number");
        assert!(freed >= 600_000, "{report}");
        assert!(freed.abs_diff(expected) < 20_000, "as was foretold: {expected} {freed}");
        for (number, path) in paths.iter().enumerate() {
            assert_eq!(is_there(&home, path), number == 1, "{path}");
        }
        // What is there is there as the disk says, too.
        let packs = fs::read_dir(home.data_dir().join("packs")).expect("readable");
        let packs = packs.map(|pack| pack.expect("readable").metadata().expect("there").len());
        assert!(packs.sum::<u64>() < 350_000);
        // And it can come again.
        assert_eq!(home.text(["import", "package-0"]), paths[0]);
        assert!(is_there(&home, &paths[0]));
        if let Some(daemon) = daemon {
            daemon.stop();
        }
        fs::remove_dir_all(home.data_dir().join("index")).expect("removed");
        assert!(is_there(&home, &paths[0]) && is_there(&home, &paths[1]));
        assert!(!is_there(&home, &paths[2]), "nothing comes back with another index");
        let pins = object(&home, &["pin", "list", "--json"]);
        assert_eq!(pins["pins"][0]["storePath"], json!(paths[1]), "no pin is lost");
    }
}

#[test]
fn pins_are_listed_and_removed() {
    let (home, paths) = with_paths(1);
    home.output(["pin", "add", "one", &paths[0], "--expires", "30d"]);
    let info = object(&home, &["info", "--json", &paths[0]]);
    let digest = info["node"]["digest"].as_str().expect("a digest");
    home.output(["pin", "add", "two", "--directory", digest]);
    let listed = home.text(["pin", "list"]);
    let (first, second) = listed.split_once('\n').expect("two lines");
    let expires = first.strip_prefix(&format!("\"one\": {}, expires in ", paths[0]));
    assert!(expires.is_some_and(|time| ["29 days", "30 days"].contains(&time)), "{first}");
    assert_eq!(second, format!("\"two\": directory {digest}"));

    let (code, stderr) = home.failure(["pin", "rm", "one", "none"]);
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("there is no pin \"none\""), "{stderr}");
    assert_eq!(home.text(["pin", "list"]), second, "the other went all the same");
    let (code, stderr) = home.failure(["pin", "add", "x", "--blob", "b3:AAAA"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("is no digest"), "{stderr}");
    let absent = format!("b3:{}=", "A".repeat(43));
    let (code, stderr) = home.failure(["pin", "add", "x", "--blob", &absent]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("it is not in the store"), "{stderr}");
    home.output(["gc", "--keep-for", "0"]);
    let listed = object(&home, &["pin", "list", "--json"]);
    assert_eq!(listed["pins"][0]["directory"], json!(digest));
    let stats = object(&home, &["stats", "--json"]);
    assert_eq!((&stats["pathInfos"], &stats["directories"]), (&json!(0), &json!(1)));
}

#[test]
fn deleted_paths_are_gone_at_once_and_their_space_after_a_collection() {
    for through_daemon in [false, true] {
        let (home, paths) = with_paths(3);
        let daemon = through_daemon.then(|| home.daemon());
        home.output(["pin", "add", "keep", &paths[0]]);
        let (code, stderr) = home.failure(["delete", &paths[0]]);
        assert_eq!(code, 1);
        assert!(stderr.contains("the pin \"keep\" keeps it"), "{stderr}");
        let before = object(&home, &["stats", "--json"]);
        let deleted = home.text(["delete", &paths[1]]);
        assert_eq!(deleted, format!("deleted {}", paths[1]));
        let (code, _) = home.failure(["delete", &paths[1]]);
        assert_eq!(code, 3, "it is gone");
        let after = object(&home, &["stats", "--json"]);
        assert!(before["storedBytes"].as_u64() <= after["storedBytes"].as_u64(), "{after}");
        let report = object(&home, &["gc", "--json"]);
        assert_eq!(report["removedPaths"], json!(0), "nothing else is old");
        assert!(report["freedBytes"].as_u64() >= Some(150_000), "{report}");
        assert!(is_there(&home, &paths[0]) && is_there(&home, &paths[2]));
        if let Some(daemon) = daemon {
            daemon.stop();
        }
    }
}

#[test]
fn the_least_recently_used_go_until_it_fits() {
    let (home, paths) = with_paths(5);
    home.output(["pin", "add", "oldest", &paths[0]]);
    // Each in a second of its own.
    let daemon = home.daemon();
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    home.output(["ls", &paths[3]]);
    let report = object(&home, &["gc", "--max-size", "800K", "--json"]);
    assert!(report["storedBytesAfter"].as_u64() <= Some(800 << 10), "{report}");
    assert!(is_there(&home, &paths[0]), "it is pinned");
    assert!(report["keptPaths"].as_u64() >= Some(2), "{report}");
    daemon.stop();
}

#[test]
fn why_says_what_keeps_a_path() {
    let (home, paths) = with_paths(2);
    let text = home.text(["why", &paths[0]]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], [&paths[0][..], "nothing needs it"]);
    assert!(lines[2].starts_with("used or uploaded ") && lines[2].ends_with(" ago"), "{text}");
    assert!(lines[3].starts_with("deleting it frees 19"), "{text}");
    home.output(["pin", "add", "a pin", &paths[0]]);
    let daemon = home.daemon();
    let mut why = object(&home, &["why", "--json", &paths[0]]);
    let own = why["ownBytes"].as_u64().expect("a number");
    assert!((200_000..210_000).contains(&own), "the rest is shared: {why}");
    for name in ["lastUse", "ownBytes", "closureBytes"] {
        why[name] = json!("NUMBER");
    }
    insta::assert_json_snapshot!("why", why);
    let (code, _) = home.failure(["why", "/nix/store/00000000000000000000000000000000-x"]);
    assert_eq!(code, 3);
    daemon.stop();
}

#[test]
fn the_report_of_a_collection() {
    let (home, paths) = with_paths(2);
    home.output(["pin", "add", "x", &paths[0]]);
    let mut report = object(&home, &["gc", "--keep-for", "0", "--json"]);
    for name in ["storedBytesBefore", "storedBytesAfter", "freedBytes", "copiedBytes"] {
        assert!(report[name].as_u64() > Some(0), "{name}: {report}");
        report[name] = json!("NUMBER");
    }
    report["packages"][0]["bytes"] = json!("NUMBER");
    report["unusedBytesAfter"] = json!("NUMBER");
    insta::assert_json_snapshot!("gc", report);
    insta::assert_json_snapshot!("delete", {
        let mut deleted = object(&home, &["delete", "--json", "--force", &paths[0]]);
        deleted["deleted"][0] = json!(deleted["deleted"][0] == json!(paths[0]));
        deleted
    });
}

#[test]
fn the_daemon_collects_by_itself() {
    let (home, paths) = with_paths(2);
    home.output(["pin", "add", "kept", &paths[0]]);
    let args = ["daemon", "--listen", "127.0.0.1:0", "--gc-interval", "1s", "--keep-for", "0"];
    let daemon = crate::support::Daemon::start(home.granary(args));
    let began = std::time::Instant::now();
    while home.run(["info", &paths[1]]).status.success() {
        assert!(began.elapsed().as_secs() < 60, "nothing was collected");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(is_there(&home, &paths[0]));
    daemon.stop();
}

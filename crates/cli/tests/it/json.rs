//! The JSON object of each command.

use std::{fs, os::unix::fs::PermissionsExt as _};

use granary_testkit::tree::Tree;
use serde_json::{Value, json};

use crate::support::{Daemon, Home};

/// Made for this test with `nix-store --generate-binary-cache-key`.
const SIGNING_KEY: &str = "test-1:NGDFtODfTMwrJf46QUY9TOfL/+l88x7Sp63Vx6B3rKKJ7LdlVuNr2VSpI2krS80aRDQw3j4gJAcLfWkrqOuzgg==";

/// A home with a store that has a tree in it, and its store path.
fn with_tree() -> (Home, String) {
    let home = Home::new();
    let tree = Tree::directory([
        (&b"bin"[..], Tree::directory([("run", Tree::executable("#!/bin/sh\n"))])),
        (b"empty", Tree::file("")),
        (b"link", Tree::symlink("bin/run")),
        (b"link-\xff", Tree::symlink(&b"\xfe"[..])),
        (b"name-\xff", Tree::file("x")),
    ]);
    tree.write_to(&home.path("tree")).expect("the disk takes it");
    let store_path = home.text(["import", "tree"]);
    (home, store_path)
}

/// The object that a command prints, without what depends on where the test runs.
fn object(home: &Home, args: &[&str]) -> Value {
    parse(home, &home.text(args))
}

fn parse(home: &Home, text: &str) -> Value {
    let place = home.path("").to_string_lossy().into_owned();
    serde_json::from_str(&text.replace(place.trim_end_matches('/'), "HOME")).expect("JSON")
}

/// Puts a name in the place of a number that compression decides.
fn redact(object: &mut Value, names: &[&str]) {
    for name in names {
        let value = object.get_mut(*name).expect("the field is there");
        assert!(value.is_number(), "{name} is {value}");
        *value = json!("NUMBER");
    }
}

#[test]
fn import() {
    let (home, store_path) = with_tree();
    home.file("other", "contents\n");
    let object = object(&home, &["import", "--json", "tree", "other"]);
    assert_eq!(object["imported"][0]["storePath"], json!(store_path));
    insta::assert_json_snapshot!(object);
}

#[test]
fn ls() {
    let (home, store_path) = with_tree();
    insta::assert_json_snapshot!("ls", object(&home, &["ls", "--json", &store_path]));
    insta::assert_json_snapshot!(
        "ls-recursive",
        object(&home, &["ls", "--json", "-R", &store_path])
    );
    let file = format!("{store_path}/bin/run");
    insta::assert_json_snapshot!("ls-file", object(&home, &["ls", "--json", &file]));
}

#[test]
fn info() {
    let (home, store_path) = with_tree();
    insta::assert_json_snapshot!(object(&home, &["info", "--json", &store_path]));
}

#[test]
fn stats() {
    let (home, _) = with_tree();
    let mut object = object(&home, &["stats", "--json"]);
    redact(&mut object, &["storedBytes", "compressionRatio", "totalRatio"]);
    insta::assert_json_snapshot!(object);
}

#[test]
fn recover() {
    let (home, _) = with_tree();
    let mut object = object(&home, &["recover", "--json"]);
    redact(&mut object, &["segments"]);
    insta::assert_json_snapshot!(object);
}

#[test]
fn daemon() {
    let home = Home::new();
    let key = home.file("key", SIGNING_KEY);
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let args = ["daemon", "--json", "--listen", "127.0.0.1:0", "--signing-key", "key"];
    let daemon = Daemon::start(home.granary(args));
    let [line] = &daemon.announced[..] else { panic!("{:?}", daemon.announced) };
    let mut object = parse(&home, line);
    redact(&mut object, &["pid"]);
    let url = object["listen"][0].as_str().expect("a URL").to_owned();
    assert_eq!(object["substituter"], json!(url));
    let text = object.to_string().replace(&url, "URL");
    insta::assert_json_snapshot!(serde_json::from_str::<Value>(&text).expect("JSON"));
    daemon.stop();
}

#[test]
fn the_same_through_a_daemon() {
    let (home, store_path) = with_tree();
    let commands: [&[&str]; 3] = [
        &["ls", "--json", "-R", &store_path],
        &["info", "--json", &store_path],
        &["stats", "--json"],
    ];
    let direct = commands.map(|args| object(&home, args));
    let daemon = home.daemon();
    for (args, direct) in commands.into_iter().zip(direct) {
        assert_eq!(object(&home, args), direct, "{args:?}");
    }
    daemon.stop();
}

#[test]
fn errors_are_text_on_standard_error() {
    let (home, _) = with_tree();
    let output = home.run(["info", "--json", "00000000000000000000000000000000"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    assert!(output.stderr.starts_with(b"granary: "));
}

//! Exit codes and hints.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::support::Home;

/// The hash part of nothing.
const ABSENT: &str = "00000000000000000000000000000000";

/// What each of these command lines fails with, as somebody at a terminal sees it.
fn failures(home: &Home, command_lines: &[&[&str]]) -> String {
    let mut shown = String::new();
    for args in command_lines {
        let (code, stderr) = home.failure(*args);
        shown += &["$ granary ", &args.join(" "), "\n", &stderr].concat();
        shown += &["exit code ", &code.to_string(), "\n\n"].concat();
    }
    let place = home.path("").to_string_lossy().into_owned();
    shown.replace(place.trim_end_matches('/'), "HOME")
}

#[test]
fn usage() {
    let home = Home::new();
    let command_lines: [&[&str]; 8] = [
        &["import", "--name", "a", "b", "c"],
        &["info", "/etc/passwd"],
        &["info", &format!("{ABSENT}/bin")],
        &["ls", &format!("{ABSENT}/../x")],
        &["ls", "--store", "ftp://x", ABSENT],
        &["ls", "--store", "http://x", "--data-dir", "y", ABSENT],
        &["daemon", "--compression-level", "20"],
        &["daemon", "--log", "a=b=c"],
    ];
    insta::assert_snapshot!(failures(&home, &command_lines));
}

#[test]
fn no_store_yet() {
    let home = Home::new();
    insta::assert_snapshot!(failures(&home, &[&["stats"], &["recover"], &["ls", ABSENT]]));
    assert!(!home.data_dir().exists(), "a command that only reads made a store");
}

#[test]
fn not_found() {
    let home = Home::new();
    home.file("a", "contents\n");
    let store_path = home.text(["import", "a"]);
    fs::create_dir(home.path("d")).expect("the disk takes it");
    std::os::unix::fs::symlink("nowhere", home.path("d/link")).expect("the disk takes it");
    let directory = home.text(["import", "d"]);
    let hash = &store_path["/nix/store/".len()..][..32];
    let command_lines: [&[&str]; 7] = [
        &["info", ABSENT],
        &["info", &format!("{hash}-b")],
        &["cat", &format!("{hash}/x")],
        &["cat", &format!("{directory}/x/y")],
        &["cat", &format!("{directory}/link/y")],
        &["cat", &format!("{directory}/link")],
        &["cat", &directory],
    ];
    insta::assert_snapshot!(failures(&home, &command_lines));
}

#[test]
fn what_cannot_be_imported() {
    let home = Home::new();
    home.file("a b", "");
    let command_lines: [&[&str]; 3] =
        [&["import", "nowhere"], &["import", "a b"], &["import", "/dev/null"]];
    insta::assert_snapshot!(failures(&home, &command_lines));
}

#[test]
fn what_was_imported_before_a_failure_is_told() {
    let home = Home::new();
    home.file("a", "contents\n");
    let output = home.run(["import", "a", "nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stdout).expect("text");
    assert_eq!(home.text(["import", "a"]), printed.trim_end());
    let output = home.run(["import", "--json", "a", "nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(object["imported"].as_array().map(Vec::len), Some(1));
}

#[test]
fn nobody_listens() {
    let home = Home::new();
    // Port 1 is reserved, and nobody serves it.
    let (code, stderr) = home.failure(["stats", "--store", "http://127.0.0.1:1"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("http://127.0.0.1:1"), "{stderr}");
    assert!(stderr.contains("granary daemon"), "{stderr}");
}

#[test]
fn the_configuration_names_the_line() {
    let home = Home::new();
    home.file("granary.toml", "priority = 40\nlissten = []\n");
    home.file("level.toml", "compression-level = 20\n");
    let command_lines: [&[&str]; 3] = [
        &["daemon", "--config", "granary.toml"],
        &["daemon", "--config", "nowhere.toml"],
        &["daemon", "--config", "level.toml"],
    ];
    insta::assert_snapshot!(failures(&home, &command_lines));
}

#[test]
fn a_key_that_is_none() {
    let home = Home::new();
    let key = home.file("key", "no key\n");
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let command_lines: [&[&str]; 2] =
        [&["daemon", "--signing-key", "key"], &["daemon", "--signing-key", "nowhere"]];
    insta::assert_snapshot!(failures(&home, &command_lines));
}

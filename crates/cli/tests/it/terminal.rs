//! What is different where somebody looks on.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
};

use granary_testkit::tools;

use crate::support::Home;

/// What takes long enough to import for progress to be drawn.
const LARGE_BYTES: u64 = 1 << 30;

/// Runs the binary with a terminal for everything that it writes; returns its exit code, and
/// what the terminal got.
fn on_terminal(home: &Home, arguments: &str) -> (Option<i32>, String) {
    let mut command = Command::new(tools::find("script"));
    let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_granary"));
    command
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("GRANARY_DATA_DIR", home.data_dir())
        .env("TERM", "xterm")
        .current_dir(home.path(""))
        .stdin(Stdio::null());
    let output = command.output().expect("it can be run");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn it_gets_no_nar() {
    let home = Home::new();
    home.file("a", "contents\n");
    let store_path = home.text(["import", "a"]);
    let (code, shown) = on_terminal(&home, &format!("nar {store_path}"));
    assert_eq!(code, Some(2), "{shown}");
    assert!(shown.contains("not for terminals"), "{shown}");
    let (code, shown) = on_terminal(&home, &format!("nar {store_path} > nar"));
    assert_eq!(code, Some(0), "{shown}");
}

#[test]
fn it_sees_progress() {
    let home = Home::new();
    let large = File::create(home.path("large")).expect("the disk takes it");
    large.set_len(LARGE_BYTES).expect("it is a hole");
    let (code, shown) = on_terminal(&home, "import large");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("importing") && shown.contains("/s"), "{}", shown.escape_debug());
    assert!(shown.contains("/nix/store/"), "{}", shown.escape_debug());
    let (code, shown) = on_terminal(&home, "--quiet import large");
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(shown.lines().count(), 1, "{}", shown.escape_debug());
    assert!(shown.starts_with("/nix/store/"), "{}", shown.escape_debug());
}

#[test]
fn names_cannot_command_it() {
    let home = Home::new();
    fs::create_dir(home.path("d")).expect("the disk takes it");
    home.file("d/a\u{1b}[31mb", "");
    let store_path = home.text(["import", "d"]);
    let (_, shown) = on_terminal(&home, &format!("ls {store_path}"));
    assert_eq!(shown.trim_end(), "a\\x1b[31mb");
    assert_eq!(home.text(["ls", &store_path]), "a\u{1b}[31mb", "but a pipe gets it as it is");
}

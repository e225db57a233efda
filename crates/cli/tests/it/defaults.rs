//! Which store a command talks to.

use std::{
    os::unix::{fs::chown, process::CommandExt as _},
    path::PathBuf,
    process::Command,
};

use crate::support::{Home, bare, succeeded};

/// The user that owns nothing.
const NOBODY: u32 = 65534;

#[test]
fn the_environment_names_the_directory() {
    let home = Home::new();
    home.file("a", "contents\n");
    home.output(["import", "a"]);
    assert!(home.data_dir().join("store").exists());
}

/// A command as somebody who is not root, in a home that is theirs. The binary may lie where
/// they cannot reach it, so they get one of their own.
fn as_somebody(home: &Home, args: &[&str]) -> Command {
    let is_root = rustix::process::geteuid().is_root();
    let mut command = bare(&home.path(""));
    if is_root {
        let binary = home.path("granary");
        if !binary.exists() {
            // By another process: what this one has open for writing, a program that another test
            // starts just now has open too until it runs, and so long nobody can run the copy.
            let copied =
                Command::new("cp").arg(env!("CARGO_BIN_EXE_granary")).arg(&binary).status();
            assert!(copied.expect("cp can be run").success(), "the disk takes it");
            chown(home.path(""), Some(NOBODY), Some(NOBODY)).expect("root may do that");
        }
        command = Command::new(binary);
        command.env_clear().env("HOME", home.path("")).current_dir(home.path(""));
        command.uid(NOBODY).gid(NOBODY);
    }
    command.args(args);
    command
}

#[test]
fn else_xdg_does() {
    let home = Home::new();
    home.file("a", "contents\n");
    let import = |xdg: Option<PathBuf>| {
        let mut command = as_somebody(&home, &["import", "a"]);
        if let Some(xdg) = xdg {
            command.env("XDG_DATA_HOME", xdg);
        }
        succeeded(command.output().expect("it can be run"));
    };
    import(None);
    assert!(home.path(".local/share/granary/store").exists());
    import(Some(home.path("xdg")));
    assert!(home.path("xdg/granary/store").exists());
}

#[test]
fn the_option_comes_before_the_environment() {
    let home = Home::new();
    home.file("a", "contents\n");
    home.output(["import", "--data-dir", "other", "a"]);
    assert!(home.path("other/store").exists());
    assert!(!home.data_dir().exists());
}

#[test]
fn a_daemon_is_found_by_its_data_directory() {
    let home = Home::new();
    home.file("a", "contents\n");
    let daemon = home.daemon();
    // Only the daemon can have taken it, for it holds the directory.
    let store_path = home.text(["import", "a"]);
    assert_eq!(home.output(["cat", &store_path]), b"contents\n");
    assert_eq!(home.output(["cat", "--store", &daemon.url(), &store_path]), b"contents\n");
    let (code, stderr) = home.failure(["cat", "--data-dir", "data", &store_path]);
    assert_eq!(code, 4);
    assert!(stderr.contains(&daemon.url()), "{stderr}");
    assert!(stderr.contains(&daemon.pid().to_string()), "{stderr}");
    let (code, stderr) = home.failure(["recover"]);
    assert_eq!(code, 4);
    assert!(stderr.contains(&daemon.pid().to_string()), "{stderr}");
    daemon.stop();
    assert!(!home.data_dir().join("daemon.json").exists());
    assert_eq!(home.output(["cat", &store_path]), b"contents\n");
}

#[test]
fn a_daemon_that_crashed_is_not_waited_for() {
    let home = Home::new();
    home.file("a", "contents\n");
    home.daemon().kill();
    assert!(home.data_dir().join("daemon.json").exists(), "a crash removes nothing");
    let store_path = home.text(["import", "a"]);
    assert_eq!(home.output(["cat", &store_path]), b"contents\n");
}

#[test]
fn a_unix_socket_does_as_well() {
    let home = Home::new();
    home.file("a", "contents\n");
    let socket = format!("unix:{}", home.path("socket").display());
    let listen = ["daemon", "--listen", &socket, "--listen", "127.0.0.1:0"];
    let daemon = crate::support::Daemon::start(home.granary(listen));
    assert_eq!(daemon.urls()[0], socket);
    let store_path = home.text(["import", "--store", &socket, "a"]);
    assert_eq!(home.output(["cat", &store_path]), b"contents\n");
    daemon.stop();
    assert!(!home.path("socket").exists());
}

//! `ls`, `cat`, `nar` and `info`, directly and through a daemon.

use std::{io::Read as _, os::unix::ffi::OsStrExt as _, process::Stdio};

use granary_testkit::{nix::Nix, tree::Tree};

use crate::{import::full_tree, support::Home};

/// More than a pipe holds, so that whoever writes it notices that nobody reads.
const MORE_THAN_A_PIPE: usize = 1 << 20;

fn with_full_tree() -> (Home, String) {
    let home = Home::new();
    full_tree().write_to(&home.path("tree")).expect("the disk takes it");
    let store_path = home.text(["import", "tree"]);
    (home, store_path)
}

/// Does `check` with a store that is opened directly, and again with a daemon.
fn both_ways(home: &Home, check: impl Fn()) {
    check();
    let daemon = home.daemon();
    check();
    daemon.stop();
}

#[test]
fn the_nar_is_that_of_nix() {
    let (home, store_path) = with_full_tree();
    let expected = Nix::new().dump(&home.path("tree"));
    let base_name = store_path.trim_start_matches("/nix/store/");
    both_ways(&home, || {
        for path in [&store_path, base_name, &base_name[..32]] {
            assert!(home.output(["nar", path]) == expected, "{path}");
        }
    });
    let part = format!("{store_path}/bin");
    assert_eq!(home.output(["nar", &part]), Nix::new().dump(&home.path("tree/bin")));
}

#[test]
fn files_come_as_they_are() {
    let (home, store_path) = with_full_tree();
    let Tree::Directory(entries) = full_tree() else { panic!("it is a directory") };
    both_ways(&home, || {
        for (name, tree) in &entries {
            let Tree::File { contents, .. } = tree else { continue };
            let path = [store_path.as_bytes(), b"/", name].concat();
            let args = [std::ffi::OsStr::new("cat"), std::ffi::OsStr::from_bytes(&path)];
            assert!(home.output(args) == *contents, "{}", name.escape_ascii());
        }
        let inner = format!("{store_path}/deep/a/b");
        assert_eq!(home.output(["cat", &inner]), b"c");
    });
}

#[test]
fn listings() {
    let (home, store_path) = with_full_tree();
    let shown = |args: &[&str]| {
        let output = home.output([args, &[&store_path]].concat());
        output.escape_ascii().to_string().replace("\\n", "\n")
    };
    both_ways(&home, || {
        insta::allow_duplicates! {
            insta::assert_snapshot!("listing", shown(&["ls"]));
            insta::assert_snapshot!("listing-long", shown(&["ls", "-l"]));
            insta::assert_snapshot!("listing-recursive", shown(&["ls", "-lR"]));
        }
    });
    let file = format!("{store_path}/bin/run");
    assert_eq!(home.text(["ls", &file]), "run");
    assert_eq!(home.text(["ls", "-l", &file]), "-r-xr-xr-x           10 run");
}

#[test]
fn info_and_stats_for_people() {
    let home = Home::new();
    home.file("a", "contents\n");
    let store_path = home.text(["import", "a"]);
    insta::assert_snapshot!("info", home.text(["info", &store_path]));
    let stats = home.text(["stats"]);
    let shown: Vec<_> = stats.lines().filter(|line| !line.starts_with("stored")).collect();
    insta::assert_snapshot!("stats", shown.join("\n"));
    assert!(stats.lines().any(|line| line.starts_with("stored")), "{stats}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let home = Home::new();
    home.file("large", vec![7; MORE_THAN_A_PIPE]);
    let store_path = home.text(["import", "large"]);
    both_ways(&home, || {
        for command in ["nar", "cat"] {
            let mut child = home
                .granary([command, &store_path])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the binary can be run");
            drop(child.stdout.take());
            let status = child.wait().expect("it is ours");
            let mut stderr = String::new();
            let mut pipe = child.stderr.take().expect("it is a pipe");
            pipe.read_to_string(&mut stderr).expect("text");
            assert!(status.success() && stderr.is_empty(), "{command}: {status}, {stderr}");
        }
    });
}

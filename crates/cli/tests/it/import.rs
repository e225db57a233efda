//! Importing.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
};

use granary_testkit::{nix::Nix, tree::Tree};

use crate::support::Home;

/// Imports that must not leave many packs behind.
const MANY: usize = 1_000;

/// A tree with all that a NAR can hold.
pub(crate) fn full_tree() -> Tree {
    Tree::directory([
        (&b"bin"[..], Tree::directory([("run", Tree::executable("#!/bin/sh\n"))])),
        (b"deep", Tree::directory([("a", Tree::directory([("b", Tree::file("c"))]))])),
        (b"empty", Tree::file("")),
        (b"empty-directory", Tree::directory::<Vec<u8>>([])),
        (b"large", Tree::file(granary_testkit::Random::new(1).compressible(3 << 20))),
        (b"link", Tree::symlink("bin/run")),
        (b"link-\xff", Tree::symlink(&b"\xfe/nowhere"[..])),
        (b"name \n\xff", Tree::file("x")),
    ])
}

#[test]
fn gives_the_paths_of_nix() {
    let home = Home::new();
    let nix = Nix::new();
    full_tree().write_to(&home.path("tree")).expect("the disk takes it");
    home.file("file", "contents\n");
    Tree::executable("#!/bin/sh\n").write_to(&home.path("run")).expect("the disk takes it");
    let names = ["tree", "file", "run"];
    let expected = names.map(|name| nix.add(&home.path(name))).join("\n");
    assert_eq!(home.text(["import", "tree", "file", "run"]), expected);
    let daemon = home.daemon();
    assert_eq!(home.text(["import", "tree", "file", "run"]), expected, "through a daemon");
    daemon.stop();
}

#[test]
fn under_another_name() {
    let home = Home::new();
    home.file("a", "contents\n");
    home.file("b", "contents\n");
    assert_eq!(home.text(["import", "--name", "b", "a"]), home.text(["import", "b"]));
}

#[test]
fn a_path_is_printed_before_the_next_is_read() {
    let home = Home::new();
    home.file("a", "contents\n");
    // Nobody writes to it, so what is read behind it would wait for ever; but it is refused.
    let mut child = home
        .granary(["import", "a", "/dev/zero"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be run");
    let mut stdout = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("it can be read");
    assert!(line.starts_with("/nix/store/"), "{line}");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("it can be read");
    assert_eq!(rest, "", "something else is on standard output");
    assert_eq!(child.wait().expect("it is ours").code(), Some(1));
}

#[test]
fn many_imports_leave_few_packs() {
    let home = Home::new();
    let directory = home.path("many");
    fs::create_dir(&directory).expect("the disk takes it");
    let names: Vec<_> = (0..MANY).map(|number| format!("many/file-{number}")).collect();
    for name in &names {
        fs::write(home.path(name), format!("contents of {name}\n")).expect("the disk takes it");
    }
    // Half of them in processes that follow each other, which continue the same pack.
    let (single, batched) = names.split_at(20);
    let mut imported = 0;
    for name in single {
        imported += home.text(["import", name]).lines().count();
    }
    let args = ["import"].into_iter().chain(batched.iter().map(String::as_str));
    imported += home.text(args).lines().count();
    assert_eq!(imported, MANY);
    let packs = packs(&home);
    assert!(packs < 5, "{packs} packs");
    let daemon = home.daemon();
    let last = home.text(["import", &names[MANY - 1]]);
    assert_eq!(
        home.output(["cat", &last]),
        format!("contents of {}\n", names[MANY - 1]).as_bytes()
    );
    daemon.stop();
}

fn packs(home: &Home) -> usize {
    fs::read_dir(home.data_dir().join("packs"))
        .expect("there are packs")
        .filter_map(Result::ok)
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "pack"))
        .count()
}

//! While `granary recover` builds the index anew.

use std::{fs, process::Stdio, thread, time::Duration};

use granary_testkit::{Random, tree::Tree};
use rustix::process::{Pid, Signal, kill_process};

use super::{OBJECTS, after_the_crash, contents, rounds};
use crate::{support::Home, upload::fetch};

/// Longest delay before the kill: about as long as it takes.
const MAX_DELAY_MS: usize = 150;

#[test]
fn during_a_recovery() {
    let home = Home::new();
    fs::create_dir(home.path("in")).expect("the disk takes it");
    let names: Vec<_> = (0..OBJECTS).map(|number| format!("in/file-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        fs::write(home.path(name), contents(0, number)).expect("the disk takes it");
    }
    let args = ["import"].into_iter().chain(names.iter().map(String::as_str));
    let store_paths: Vec<_> = home.text(args).lines().map(str::to_owned).collect();
    let (mut killed, rounds) = (0, rounds());
    for seed in rounds.clone() {
        let mut recover = home.granary(["recover"]);
        let mut child = recover.stdout(Stdio::null()).spawn().expect("the binary can be run");
        let delay_ms = Random::new(seed).below(MAX_DELAY_MS) as u64;
        thread::sleep(Duration::from_millis(delay_ms));
        // It is not waited for before this, so the number is still its own.
        kill_process(Pid::from_child(&child), Signal::KILL).expect("it is ours");
        let status = child.wait().expect("it is ours");
        killed += u64::from(!status.success());
        // Once with what the kill left, and once without an index.
        after_the_crash(&home, |daemon| {
            for (number, store_path) in store_paths.iter().enumerate() {
                let stored = fetch(&daemon.address(), &store_path["/nix/store/".len()..][..32]);
                let expected = Tree::file(contents(0, number)).to_nar();
                assert!(stored == expected, "round {seed}: {store_path} is lost");
            }
        });
    }
    println!("killed in {killed} of {} rounds", rounds.end);
    assert!(killed > 0, "it was always done before");
}

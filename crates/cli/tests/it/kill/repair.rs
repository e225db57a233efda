//! While what is damaged is given up and fetched again.

use std::{process::Stdio, thread, time::Duration};

use granary_testkit::{Random, tree::Tree};
use rustix::process::{Pid, Signal, kill_process};

use super::{after_the_crash, rounds};
use crate::support::{Home, damage};

/// Paths of each store, and how many of them are damaged.
const PATHS: usize = 12;
const DAMAGED: usize = 5;

/// Longest delay before the kill: about as long as a repair takes.
const MAX_REPAIR_MS: usize = 120;

struct Imported {
    store_path: String,
    tree: Tree,
    /// What does not compress in it, so that it is found in a pack.
    contents: Vec<u8>,
}

fn import(home: &Home, seed: u64) -> Vec<Imported> {
    let paths = (0..PATHS).map(|number| {
        let mut random = Random::new(seed << 16 | number as u64);
        let contents = random.incompressible(60_000 + number * 20_000);
        let tree = Tree::directory([
            ("contents", Tree::file(contents.clone())),
            ("text", Tree::file(random.compressible(5_000))),
        ]);
        let name = format!("tree-{number}");
        tree.write_to(&home.path(&name)).expect("the disk takes it");
        Imported { store_path: home.text(["import", &name]), tree, contents }
    });
    paths.collect()
}

#[test]
fn during_a_repair() {
    let mut killed = 0;
    for seed in rounds() {
        let other = Home::new();
        import(&other, seed);
        let source = other.daemon();
        let home = Home::new();
        let paths = import(&home, seed);
        for path in &paths[..DAMAGED] {
            damage(&home.data_dir(), &path.contents);
        }
        let args = ["repair".to_owned(), "--from".to_owned(), source.url()];
        let mut command = home.granary(&args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it can be run");
        let delay_ms = Random::new(seed ^ 0xbeef).below(MAX_REPAIR_MS) as u64;
        thread::sleep(Duration::from_millis(delay_ms));
        // It is not waited for before this, so the number is still its own.
        kill_process(Pid::from_child(&child), Signal::KILL).expect("it is ours");
        killed += u64::from(!child.wait().expect("it is ours").success());

        // What was sound is; what was not gives an error or is not there, and is never wrong.
        after_the_crash(&home, |_| {
            for (number, path) in paths.iter().enumerate() {
                let output = home.run(["nar", &path.store_path]);
                let is_right = output.status.success() && output.stdout == path.tree.to_nar();
                let is_refused = matches!(output.status.code(), Some(3 | 5));
                assert!(
                    is_right || number < DAMAGED && is_refused,
                    "round {seed}, path {number}: {} {}",
                    output.status,
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        });
        // Another repair brings it to its end.
        home.output(&args);
        after_the_crash(&home, |_| {
            for path in &paths {
                assert!(home.output(["nar", &path.store_path]) == path.tree.to_nar(), "{seed}");
            }
        });
        assert!(home.text(["verify", "--data", "--nar"]).contains(": 0 errors"), "{seed}");
        source.stop();
    }
    println!("killed in {killed} of {} rounds", rounds().end);
    assert!(killed > 0, "it was always done before");
}

//! While `granary import` writes to a data directory.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use granary_testkit::tree::Tree;
use rustix::process::{Pid, Signal, kill_process};

use super::{OBJECTS, after_the_crash, contents, delay, rounds};
use crate::{support::Home, upload::fetch};

#[test]
fn during_an_import() {
    for seed in rounds() {
        let home = Home::new();
        fs::create_dir(home.path("in")).expect("the disk takes it");
        let names: Vec<_> = (0..OBJECTS).map(|number| format!("in/file-{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            fs::write(home.path(name), contents(seed, number)).expect("the disk takes it");
        }
        let args: Vec<_> = ["import"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let acknowledged = import_until_killed(home.granary(&args), delay(seed));
        assert!(!acknowledged.is_empty(), "round {seed}: killed before anything");
        println!("round {seed}: {} of {OBJECTS} imported", acknowledged.len());

        after_the_crash(&home, |daemon| {
            for (number, store_path) in acknowledged.iter().enumerate() {
                let stored = fetch(&daemon.address(), &store_path["/nix/store/".len()..][..32]);
                let expected = Tree::file(contents(seed, number)).to_nar();
                assert!(stored == expected, "round {seed}: {store_path} is lost");
            }
        });
        let again: Vec<_> = home.text(&args).lines().map(str::to_owned).collect();
        assert_eq!(again.len(), OBJECTS);
        assert_eq!(again[..acknowledged.len()], acknowledged);
        let last = home.output(["cat", &again[OBJECTS - 1]]);
        assert!(last == contents(seed, OBJECTS - 1));
    }
}

/// The lines that a command printed until it was killed, `delay` after the first.
fn import_until_killed(mut command: Command, delay: Duration) -> Vec<String> {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary can be run");
    let pid = Pid::from_child(&child);
    let mut stdout = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let mut first = String::new();
    stdout.read_line(&mut first).expect("it can be read");
    let killer = thread::spawn(move || {
        thread::sleep(delay);
        // It is not waited for before this, so the number is still its own.
        kill_process(pid, Signal::KILL).expect("it is ours");
    });
    let rest = stdout.lines().map(|line| line.expect("text"));
    let lines = [first.trim_end().to_owned()].into_iter().chain(rest).collect();
    killer.join().expect("it killed");
    child.wait().expect("it is ours");
    lines
}

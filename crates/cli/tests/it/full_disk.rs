//! A daemon whose disk is full: pushing fails and says why, reading goes on, and once there is
//! space again the same process takes what is pushed.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use granary_testkit::{Random, SmallDisk};
use rustix::process::Signal;

use crate::{
    support::{Daemon, Home},
    upload::{Upload, fetch},
};

/// Room for all that is uploaded, and for the ballast.
const DISK_BYTES: usize = 64 << 20;

/// Room for some of it, beside the ballast.
const SPARE_BYTES: usize = 6 << 20;

const UPLOAD_BYTES: usize = 1_000_000;

fn upload(number: usize) -> Upload {
    let contents = Random::new(number as u64).incompressible(UPLOAD_BYTES);
    Upload::new(&format!("object-{number}"), contents)
}

/// A home whose data directory is on a disk of its own, which is full, and what was taken
/// before it was.
struct Full {
    home: Home,
    daemon: Daemon,
    ballast: PathBuf,
    acknowledged: Vec<Upload>,
    /// Behind all others: it is unmounted last.
    disk: SmallDisk,
}

impl Full {
    fn new() -> Self {
        let (home, disk) = (Home::new(), SmallDisk::new(DISK_BYTES));
        symlink(disk.path(), home.data_dir()).expect("the disk takes it");
        let daemon = home.daemon();
        let ballast = disk.fill("ballast", SPARE_BYTES);
        let mut acknowledged = Vec::new();
        let refusal = loop {
            let upload = upload(acknowledged.len());
            let answer = upload.put(&daemon.address()).expect("it answers");
            if !answer.is_success() {
                break answer;
            }
            acknowledged.push(upload);
            assert!(acknowledged.len() * UPLOAD_BYTES < DISK_BYTES, "it is not full");
        };
        assert!(acknowledged.len() > 2, "there was room for some");
        assert_eq!(refusal.status, 503);
        assert_told(&refusal.text());
        Self { home, daemon, ballast, acknowledged, disk }
    }

    /// All that was acknowledged is there, byte for byte.
    fn check(&self) {
        for Upload { store_path, nar, .. } in &self.acknowledged {
            let hash = store_path.hash().to_string();
            assert!(fetch(&self.daemon.address(), &hash) == *nar, "{hash} over HTTP");
            let args = ["nar", "--store", &self.daemon.url(), &hash];
            assert!(self.home.output(args) == *nar, "{hash} over gRPC");
        }
    }

    /// Another daemon in place of one that was stopped or killed.
    fn restart(self, end: impl FnOnce(Daemon)) -> Self {
        let Self { home, daemon, ballast, acknowledged, disk } = self;
        end(daemon);
        let daemon = home.daemon();
        Self { home, daemon, ballast, acknowledged, disk }
    }

    /// Makes space, and pushes what there was none for.
    fn free_and_push(&mut self) {
        fs::remove_file(&self.ballast).expect("it is there");
        for _ in 0..10 {
            let upload = upload(self.acknowledged.len());
            let answer = upload.put(&self.daemon.address()).expect("it answers");
            assert!(answer.is_success(), "there is space again: {}", answer.text());
            self.acknowledged.push(upload);
        }
    }
}

/// What could not be written, why, and what can be done.
fn assert_told(text: &str) {
    for part in ["cannot write ", "No space left on device", "free some space"] {
        assert!(text.contains(part), "{part:?} is missing in {text:?}");
    }
}

#[test]
fn what_is_freed_is_used_without_a_restart() {
    let mut full = Full::new();
    full.home.file("file", Random::new(1 << 32).incompressible(3 * UPLOAD_BYTES));
    for _ in 0..3 {
        let (code, stderr) = full.home.failure(["import", "file"]);
        assert_eq!(code, 1, "{stderr}");
        assert_told(&stderr);
        full.check();
    }
    let process = full.daemon.pid();
    full.free_and_push();
    full.home.output(["import", "file"]);
    full.check();
    assert_eq!(full.daemon.pid(), process);
    full = full.restart(Daemon::stop);
    full.check();
    let index = full.home.data_dir().join("index");
    full = full.restart(|daemon| {
        daemon.stop();
        fs::remove_dir_all(index).expect("there is one");
    });
    full.check();
    full.daemon.stop();
}

#[test]
fn a_daemon_starts_on_a_full_disk_and_serves() {
    let full = Full::new();
    let rest = full.disk.fill("rest", 0);
    let mut full = full.restart(Daemon::kill);
    full.check();
    // Told to stop, it says that the index could not be written, and nothing is lost by that.
    full = full.restart(|mut daemon| {
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.wait().0.code(), Some(1));
    });
    full.check();
    let refusal = upload(full.acknowledged.len()).put(&full.daemon.address());
    assert_told(&refusal.expect("it answers").text());
    fs::remove_file(rest).expect("it is there");
    full.free_and_push();
    full.check();
    full = full.restart(Daemon::kill);
    full.check();
    full.daemon.stop();
}

#[test]
fn a_command_without_a_daemon_says_so_too() {
    let (home, disk) = (Home::new(), SmallDisk::new(DISK_BYTES));
    symlink(disk.path(), home.data_dir()).expect("the disk takes it");
    let contents = Random::new(1).incompressible(3 * UPLOAD_BYTES);
    home.file("file", &contents);
    home.file("small", "contents\n");
    let small = home.text(["import", "small"]);
    let ballast = disk.fill("ballast", UPLOAD_BYTES);
    let (code, stderr) = home.failure(["import", "file"]);
    assert_eq!(code, 1, "{stderr}");
    assert_told(&stderr);
    assert_eq!(home.output(["cat", &small]), b"contents\n");
    fs::remove_file(ballast).expect("it is there");
    let store_path = home.text(["import", "file"]);
    assert!(home.output(["cat", &store_path]) == contents);
}

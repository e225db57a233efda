//! While garbage is collected, and paths are pushed and deleted meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use granary_testkit::Random;
use rustix::process::{Pid, Signal, kill_process};

use super::{after_the_crash, contents, delay, rounds};
use crate::{
    http::{get, request},
    support::{Daemon, Home},
    upload::{Upload, fetch},
};

/// Paths that are there before, every second of which is to be deleted.
const PATHS: usize = 120;

/// Paths that are deleted by one command.
const TOGETHER: usize = 3;

/// Longest delay before a collection without a daemon is killed: about as long as one takes.
const MAX_GC_MS: usize = 300;

/// All unused bytes are to go, so that packs are rewritten each time.
const GC: [&str; 3] = ["gc", "--max-unused", "0"];

/// What is known of the paths of a round.
#[derive(Default)]
struct Known {
    uploads: BTreeMap<usize, Upload>,
    pushed: BTreeSet<usize>,
    /// Those whose deletion was begun.
    doomed: BTreeSet<usize>,
    /// Those whose deletion was acknowledged.
    deleted: BTreeSet<usize>,
}

impl Known {
    fn new(seed: u64) -> Self {
        let upload = |number| Upload::new(&format!("object-{number}"), contents(seed, number));
        let uploads = (0..2 * PATHS).map(|number| (number, upload(number))).collect();
        Self { uploads, ..Self::default() }
    }

    fn push(&mut self, numbers: impl Iterator<Item = usize>, address: &str) {
        for number in numbers {
            let answer = self.uploads[&number].put(address).expect("it answers");
            assert!(answer.is_success(), "{number}: {}", answer.text());
            self.pushed.insert(number);
        }
    }

    fn hash(&self, number: usize) -> String {
        self.uploads[&number].store_path.hash().to_string()
    }

    /// What is kept is there byte for byte, and what is deleted does not come back.
    fn check(&self, daemon: &Daemon, what: &str) {
        let address = daemon.address();
        for number in &self.pushed {
            let hash = self.hash(*number);
            let narinfo = request(&address, "GET", &format!("{hash}.narinfo"), &[]);
            let status = narinfo.expect("it answers").status;
            if self.deleted.contains(number) {
                assert_eq!(status, 404, "{what}: {hash} has come back");
            } else if status == 404 {
                assert!(self.doomed.contains(number), "{what}: {hash} is lost");
            } else {
                // Also if its deletion was begun: then it is there as a whole.
                assert!(fetch(&address, &hash) == self.uploads[number].nar, "{what}: {hash}");
            }
        }
    }

    /// A collection goes well afterwards, and all that was deleted can be pushed again.
    fn goes_on(&mut self, home: &Home, what: &str) {
        let daemon = home.daemon();
        home.output(GC);
        self.check(&daemon, &format!("{what}, collected"));
        let deleted = std::mem::take(&mut self.deleted);
        self.doomed.clear();
        self.push(deleted.into_iter(), &daemon.address());
        let all: Vec<_> = self.pushed.iter().copied().collect();
        self.push(all.into_iter(), &daemon.address());
        self.check(&daemon, &format!("{what}, pushed again"));
        daemon.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a command went well; while a daemon is killed, some do not.
fn succeeds(command: &mut Command) -> bool {
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().expect("the binary can be run").success()
}

/// Deletes every second path, some at a time, until something fails or all are deleted.
fn delete(home: &Home, known: &Mutex<Known>) {
    let numbers: Vec<_> = (0..PATHS).step_by(2).collect();
    for numbers in numbers.chunks(TOGETHER) {
        let mut args = vec!["delete".to_owned()];
        {
            let mut known = lock(known);
            args.extend(numbers.iter().map(|number| known.hash(*number)));
            known.doomed.extend(numbers);
        }
        if !succeeds(&mut home.granary(&args)) {
            break;
        }
        lock(known).deleted.extend(numbers);
    }
}

#[test]
fn during_a_collection_of_the_daemon() {
    for seed in rounds() {
        let home = Home::new();
        let daemon = home.daemon();
        let address = daemon.address();
        let mut known = Known::new(seed);
        known.push(0..PATHS, &address);
        let (known, is_over) = (Mutex::new(known), AtomicBool::new(false));
        let collections = thread::scope(|scope| {
            scope.spawn(|| delete(&home, &known));
            scope.spawn(|| {
                for number in PATHS..2 * PATHS {
                    let upload = Upload::new(&format!("object-{number}"), contents(seed, number));
                    // None if the daemon is gone.
                    let Some(answer) = upload.put(&address) else { break };
                    assert!(answer.is_success(), "{number}: {}", answer.text());
                    lock(&known).pushed.insert(number);
                }
            });
            let collector = scope.spawn(|| {
                let mut collections = 0;
                while !is_over.load(Ordering::Relaxed) && succeeds(&mut home.granary(GC)) {
                    collections += 1;
                }
                collections
            });
            thread::sleep(Duration::from_millis(200) + 3 * delay(seed));
            is_over.store(true, Ordering::Relaxed);
            daemon.kill();
            collector.join().expect("it ends")
        });
        let mut known = known.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!(
            "round {seed}: {collections} collections, {} of {} paths deleted, {} pushed meanwhile",
            known.deleted.len(),
            known.doomed.len(),
            known.pushed.len() - PATHS
        );
        let what = format!("round {seed}");
        after_the_crash(&home, |daemon| known.check(daemon, &what));
        known.goes_on(&home, &what);
        after_the_crash(&home, |daemon| known.check(daemon, &what));
    }
}

#[test]
fn during_a_collection_without_a_daemon() {
    let mut killed = 0;
    for seed in rounds() {
        let home = Home::new();
        let daemon = home.daemon();
        let mut known = Known::new(seed);
        known.push(0..PATHS, &daemon.address());
        let known = Mutex::new(known);
        delete(&home, &known);
        let mut known = known.into_inner().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(known.deleted.len(), PATHS / 2, "nothing was in the way");
        daemon.stop();

        let mut random = Random::new(seed);
        let mut child = home.granary(GC).stdout(Stdio::null()).spawn().expect("it can be run");
        thread::sleep(Duration::from_millis(random.below(MAX_GC_MS) as u64));
        // It is not waited for before this, so the number is still its own.
        kill_process(Pid::from_child(&child), Signal::KILL).expect("it is ours");
        killed += u64::from(!child.wait().expect("it is ours").success());

        let what = format!("round {seed}");
        after_the_crash(&home, |daemon| {
            known.check(daemon, &what);
            let cache_info = get(&daemon.address(), "nix-cache-info");
            assert!(!cache_info.is_empty(), "{what}");
        });
        known.goes_on(&home, &what);
    }
    println!("killed in {killed} of {} rounds", rounds().end);
    assert!(killed > 0, "it was always done before");
}

//! Kill -9 in the middle of writing: what was acknowledged is there afterwards, and the rest
//! can be written again.

mod gc;
mod import;
mod push;
mod recover;
mod repair;

use std::{env, fs, time::Duration};

use granary_testkit::Random;

use crate::support::{Daemon, Home};

/// How often each test kills, each time after another delay, unless [`ROUNDS_VARIABLE`] says
/// otherwise.
const ROUNDS: u64 = 5;

/// The environment variable for that; `make soak` sets it.
const ROUNDS_VARIABLE: &str = "GRANARY_KILL_ROUNDS";

/// Things to write: more than are written before the kill.
const OBJECTS: usize = 400;

/// Longest delay before the kill, after the first acknowledgement.
const MAX_DELAY_MS: usize = 400;

/// The seeds of the rounds.
fn rounds() -> std::ops::Range<u64> {
    let rounds = env::var(ROUNDS_VARIABLE).map_or(ROUNDS, |rounds| {
        rounds.parse().unwrap_or_else(|_| panic!("{ROUNDS_VARIABLE} is {rounds:?}, no number"))
    });
    0..rounds
}

/// Contents that tell their number, of sizes from nothing to several chunks.
fn contents(seed: u64, number: usize) -> Vec<u8> {
    let mut random = Random::new(seed << 32 | number as u64);
    let len = match number % 10 {
        0 => 200_000 + random.below(400_000),
        1..4 => random.below(20_000),
        _ => random.below(500),
    };
    let mut contents = format!("object {number} of round {seed}\n").into_bytes();
    contents.extend(random.compressible(len));
    contents
}

fn delay(seed: u64) -> Duration {
    Duration::from_millis(Random::new(seed ^ 0xdead).below(MAX_DELAY_MS) as u64)
}

/// Does `check` with a daemon that begins after the crash with what that left, and with one
/// that has to do without the index.
fn after_the_crash(home: &Home, check: impl Fn(&Daemon)) {
    let daemon = home.daemon();
    check(&daemon);
    daemon.stop();
    fs::remove_dir_all(home.data_dir().join("index")).expect("there is an index");
    let daemon = home.daemon();
    check(&daemon);
    daemon.stop();
}

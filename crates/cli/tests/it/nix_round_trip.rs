//! Stock Nix pushes a closure to the daemon and pulls it again after a restart.

use granary_testkit::{closure::SyntheticClosure, nix::Nix};

use crate::support::{Daemon, Home};

/// Enough for references over several levels, few enough for five compressions.
const PATHS: usize = 20;

/// A Nix whose store has the closure, and the store paths in it.
struct Pusher {
    nix: Nix,
    root: String,
    paths: Vec<String>,
}

impl Pusher {
    fn new(seed: u64) -> Self {
        let closure = SyntheticClosure::new(seed, PATHS);
        let cache = tempfile::tempdir().expect("a temporary directory");
        closure.write_binary_cache(cache.path()).expect("the disk has room");
        let nix = Nix::new();
        let root = closure.root().store_path.absolute();
        nix.copy_from(&format!("file://{}", cache.path().display()), std::slice::from_ref(&root));
        let paths = nix.list();
        assert_eq!(paths.len(), PATHS, "the root refers to all of them");
        Self { nix, root, paths }
    }

    fn push(&self, url: &str) {
        self.nix.copy_to(url, std::slice::from_ref(&self.root));
    }

    /// Checks that another store has the same.
    fn assert_equal(&self, other: &Nix, physical: &dyn Fn(&str) -> std::path::PathBuf) {
        for path in &self.paths {
            let (ours, theirs) = (self.nix.dump_store_path(path), other.dump(&physical(path)));
            assert!(ours == theirs, "{path} came back different");
        }
    }
}

/// Stops the daemon and starts another on the same data directory and address.
fn restart(home: &Home, daemon: Daemon) -> Daemon {
    let address = daemon.address();
    daemon.stop();
    Daemon::start(home.granary(["daemon", "--listen", &address]))
}

fn round_trip(compression: &str) {
    let pusher = Pusher::new(11);
    let home = Home::new();
    let daemon = home.daemon();
    let url = daemon.url();
    pusher.push(&format!("{url}?compression={compression}"));
    let daemon = restart(&home, daemon);

    // The Nix that pushed believes the narinfos that it wrote itself, and asks for the NARs
    // as it uploaded them.
    let empty = tempfile::tempdir().expect("a temporary directory");
    let empty_store = format!("local?root={}", empty.path().display());
    let from = format!("{url}?compression={compression}");
    let args =
        ["copy", "--no-check-sigs", "--from", &from, "--to", &empty_store, pusher.root.as_str()];
    pusher.nix.run("nix", args);
    let physical = |path: &str| empty.path().join(path.trim_start_matches('/'));
    pusher.assert_equal(&pusher.nix, &physical);

    // Another knows nothing, and checks our signatures.
    let fresh = Nix::new();
    let key = daemon.announced.iter().find_map(|line| line.split_once("public-keys = "));
    let (_, key) = key.expect("the daemon prints its key");
    fresh.configure(&format!("trusted-public-keys = {key}"));
    fresh.run("nix", ["copy", "--from", &url, pusher.root.as_str()]);
    assert_eq!(fresh.list(), pusher.paths);
    for path in &pusher.paths {
        assert_eq!(fresh.references(path), pusher.nix.references(path));
    }
    pusher.assert_equal(&fresh, &|path| fresh.physical(path));
    daemon.stop();
}

#[test]
fn uncompressed() {
    round_trip("none");
}

#[test]
fn xz() {
    round_trip("xz");
}

#[test]
fn zstd() {
    round_trip("zstd");
}

#[test]
fn gzip() {
    round_trip("gzip");
}

#[test]
fn bzip2() {
    round_trip("bzip2");
}

#[test]
fn pushing_again_uploads_nothing() {
    let pusher = Pusher::new(12);
    let home = Home::new();
    let daemon = home.daemon();
    pusher.push(&daemon.url());
    let before = home.text(["stats", "--json"]);
    pusher.nix.forget_caches();
    pusher.push(&daemon.url());
    assert_eq!(home.text(["stats", "--json"]), before);
    daemon.stop();
}

#[test]
fn a_lost_index_is_no_loss_to_nix() {
    let pusher = Pusher::new(13);
    let home = Home::new();
    let daemon = home.daemon();
    let url = daemon.url();
    pusher.push(&url);
    let address = daemon.address();
    daemon.stop();
    std::fs::remove_dir_all(home.data_dir().join("index")).expect("removed");
    let daemon = Daemon::start(home.granary(["daemon", "--listen", &address]));
    let fresh = Nix::new();
    fresh.copy_from(&url, std::slice::from_ref(&pusher.root));
    pusher.assert_equal(&fresh, &|path| fresh.physical(path));
    daemon.stop();
}

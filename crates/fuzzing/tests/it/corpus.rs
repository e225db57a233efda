//! What fuzzing found worth keeping, and what it found wrong once, checked with the toolchain
//! that everything else is built with.

use std::{
    fs,
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use granary_fuzzing::{TARGETS, Target};

/// A corpus that is larger costs more time in each run than it is worth.
const MAX_FILE_BYTES: u64 = 16 << 10;

/// Fewer cannot be a corpus that somebody has taken care of.
const MIN_FILES: usize = 24;

/// The package that is fuzzed.
fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> =
        entries.map(|entry| entry.expect("the repository can be read").path()).collect();
    paths.sort();
    paths
}

fn corpus(target: &Target) -> Vec<PathBuf> {
    let files = entries(&package().join("corpus").join(target.name));
    assert!(files.len() >= MIN_FILES, "{} has {} files", target.name, files.len());
    files
}

/// Also threads that no check waits for may not panic.
#[test]
fn every_file_passes() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        print(info);
    }));
    let mut failed = Vec::new();
    for target in TARGETS {
        for path in corpus(target) {
            let data = fs::read(&path).expect("the repository can be read");
            let outcome = catch_unwind(AssertUnwindSafe(|| (target.check)(&data)));
            let panics = PANICS.swap(0, Ordering::Relaxed);
            if outcome.is_err() || panics > 0 {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "bugs show with {failed:#?}");
}

#[test]
fn every_target_has_a_small_corpus_and_nothing_else_has_one() {
    let names: Vec<_> = entries(&package().join("corpus"))
        .iter()
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    let mut expected: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    for path in TARGETS.iter().flat_map(corpus) {
        let len = fs::metadata(&path).expect("the repository can be read").len();
        assert!(len <= MAX_FILE_BYTES, "{} has {len} bytes", path.display());
    }
}

#[test]
fn every_target_can_be_fuzzed() {
    let manifest = fs::read_to_string(package().join("Cargo.toml")).expect("a manifest");
    let manifest: toml::Table = toml::from_str(&manifest).expect("a manifest");
    let binaries: Vec<_> = manifest["bin"]
        .as_array()
        .expect("binaries")
        .iter()
        .map(|binary| binary["name"].as_str().expect("a name").to_owned())
        .collect();
    let expected: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(binaries, expected);
    for name in expected {
        let source = package().join("fuzz_targets").join(format!("{name}.rs"));
        let source = fs::read_to_string(&source).expect("a source file for each binary");
        assert!(source.contains(&format!("granary_fuzzing::{name}::check(data)")), "{source}");
    }
}

//! Large things in little memory.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    process::Child,
    thread,
    time::Duration,
};

use crate::support::{self, Home};

/// What the process may hold at its peak.
const MEMORY_LIMIT_KIB: u64 = 300 << 10;

/// Entries of the large directory.
const ENTRIES: usize = 100_000;

/// Bytes of the sparse file.
const SPARSE_BYTES: u64 = 5_000_000_000;

/// What it begins with; the rest is a hole.
const BEGIN: &[u8; 5] = b"begin";

/// The peak memory of a process that ended by itself and was not yet waited for, which must
/// have succeeded.
fn peak_kib(mut child: Child) -> u64 {
    let mut peak = 0;
    // A process that has ended has no memory any more, so it is asked while it runs: the
    // kernel keeps the peak.
    while child.try_wait().expect("it is ours").is_none() {
        peak = support::peak_kib(child.id()).unwrap_or(0).max(peak);
        thread::sleep(Duration::from_millis(5));
    }
    let status = child.wait().expect("it is ours");
    assert!(status.success(), "it ended with {status}");
    assert!(peak > 0, "it was never seen");
    peak
}

fn check_import(home: &Home, name: &str) {
    let stdout = File::create(home.path("stdout")).expect("the disk takes it");
    let child = home.granary(["import", name]).stdout(stdout).spawn().expect("it can be run");
    let peak = peak_kib(child);
    println!("importing {name}: {peak} KiB");
    assert!(peak < MEMORY_LIMIT_KIB, "importing {name} took {peak} KiB");
}

fn imported(home: &Home) -> String {
    let stdout = fs::read_to_string(home.path("stdout")).expect("text");
    stdout.trim_end().to_owned()
}

fn check_output(home: &Home, args: &[&str]) {
    let stdout = File::create(home.path("stdout")).expect("the disk takes it");
    let child = home.granary(args).stdout(stdout).spawn().expect("it can be run");
    let peak = peak_kib(child);
    println!("{args:?}: {peak} KiB");
    assert!(peak < MEMORY_LIMIT_KIB, "{args:?} took {peak} KiB");
}

#[test]
fn a_directory_of_many_entries() {
    let home = Home::new();
    let directory = home.path("many");
    fs::create_dir(&directory).expect("the disk takes it");
    for number in 0..ENTRIES {
        fs::write(directory.join(format!("entry-{number:06}")), format!("contents of {number}"))
            .expect("the disk takes it");
    }
    check_import(&home, "many");
    let store_path = imported(&home);
    check_output(&home, &["ls", &store_path]);
    let listed = fs::read_to_string(home.path("stdout")).expect("text");
    assert_eq!(listed.lines().count(), ENTRIES);
    check_output(&home, &["cat", &format!("{store_path}/entry-054321")]);
    assert_eq!(imported(&home), "contents of 54321");
}

#[test]
fn a_sparse_file() {
    let home = Home::new();
    let mut file = File::create(home.path("sparse")).expect("the disk takes it");
    file.write_all(BEGIN).expect("the disk takes it");
    file.set_len(SPARSE_BYTES).expect("the disk takes it");
    drop(file);
    check_import(&home, "sparse");
    let store_path = imported(&home);
    let stored: u64 = fs::read_dir(home.data_dir().join("packs"))
        .expect("there are packs")
        .map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len())
        .sum();
    assert!(stored < 64 << 20, "{stored} bytes for nothing but zeros");

    let mut child = home
        .granary(["cat", &store_path])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it can be run");
    let stdout = child.stdout.take().expect("it is a pipe");
    let reader = thread::spawn(move || check_sparse(stdout));
    let peak = peak_kib(child);
    println!("cat: {peak} KiB");
    assert!(peak < MEMORY_LIMIT_KIB, "reading it took {peak} KiB");
    reader.join().expect("it is the file");
}

/// Checks that `contents` are those of the sparse file.
fn check_sparse(mut contents: impl io::Read) {
    let mut begin = [0; BEGIN.len()];
    contents.read_exact(&mut begin).expect("it can be read");
    assert_eq!(&begin, BEGIN);
    let mut len = begin.len() as u64;
    let mut buffer = vec![0; 1 << 20];
    let zeros = vec![0; buffer.len()];
    loop {
        let read = contents.read(&mut buffer).expect("it can be read");
        if read == 0 {
            break;
        }
        assert!(buffer[..read] == zeros[..read], "behind {len}");
        len += read as u64;
    }
    assert_eq!(len, SPARSE_BYTES);
}

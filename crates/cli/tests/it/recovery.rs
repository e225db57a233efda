//! What survives: the index is only derived, and another format is refused.

use std::{fs, io::Write as _, path::Path};

use granary_engine::FORMAT_VERSION;
use granary_testkit::Random;

use crate::support::Home;

/// A home with a store that has a few files in it, and what was imported.
fn with_files() -> (Home, Vec<(String, Vec<u8>)>) {
    let home = Home::new();
    let mut random = Random::new(5);
    let imported = [10, 1_000, 100_000, 5_000_000].map(|len| {
        let contents = random.compressible(len);
        home.file("file", &contents);
        (home.text(["import", "file"]), contents)
    });
    (home, imported.into())
}

/// Everything is there, through a daemon and directly.
fn check(home: &Home, imported: &[(String, Vec<u8>)]) {
    let daemon = home.daemon();
    for (store_path, contents) in imported {
        assert!(home.output(["cat", store_path]) == *contents, "{store_path}");
    }
    daemon.stop();
    for (store_path, contents) in imported {
        assert!(home.output(["cat", store_path]) == *contents, "{store_path}");
    }
}

#[test]
fn without_its_index() {
    let (home, imported) = with_files();
    let stats = home.text(["stats", "--json"]);
    fs::remove_dir_all(home.data_dir().join("index")).expect("there is an index");
    check(&home, &imported);
    assert_eq!(home.text(["stats", "--json"]), stats);
}

/// Every file below `directory`.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn with_a_garbled_index() {
    for seed in 0..4 {
        let (home, imported) = with_files();
        let mut random = Random::new(seed);
        for file in files(&home.data_dir().join("index")) {
            let len = fs::metadata(&file).expect("it is there").len();
            let garbage = random.incompressible(usize::try_from(len.min(4096)).expect("small"));
            let mut file =
                fs::OpenOptions::new().write(true).open(&file).expect("it can be opened");
            file.write_all(&garbage).expect("the disk takes it");
        }
        check(&home, &imported);
    }
}

#[test]
fn recover_says_what_it_did() {
    let (home, imported) = with_files();
    let printed = home.text(["recover"]);
    assert!(printed.starts_with("built the index of "), "{printed}");
    assert_eq!(printed.lines().count(), 1, "{printed}");
    check(&home, &imported);
}

#[test]
fn damage_has_an_exit_code() {
    let (home, imported) = with_files();
    let packs = files(&home.data_dir().join("packs"));
    let pack = packs.iter().max_by_key(|pack| fs::metadata(pack).map_or(0, |pack| pack.len()));
    let pack = pack.expect("there is a pack");
    let mut bytes = fs::read(pack).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(pack, bytes).expect("the disk takes it");
    let output = home.run(["recover", "--json"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("damaged") && stderr.contains("hint: "), "{stderr}");
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(!object["damage"].as_array().expect("a list").is_empty(), "{object}");
    let served = imported.iter().filter(|(store_path, contents)| {
        let output = home.run(["cat", store_path]);
        // Whatever is damaged, nothing wrong comes out.
        assert!(contents.starts_with(&output.stdout), "{store_path}");
        output.status.success()
    });
    assert!(served.count() < imported.len(), "the damage is nowhere");
}

#[test]
fn a_torn_write_is_told_and_kept() {
    let (home, imported) = with_files();
    let pack = files(&home.data_dir().join("packs")).pop().expect("there is a pack");
    let mut file = fs::OpenOptions::new().append(true).open(pack).expect("it can be opened");
    file.write_all(&[7; 100]).expect("the disk takes it");
    let object: serde_json::Value =
        serde_json::from_str(&home.text(["recover", "--json"])).expect("JSON");
    let kept = object["cutTails"][0]["keptIn"].as_str().expect("it was cut").to_owned();
    assert_eq!(fs::read(home.data_dir().join(kept)).expect("it is kept"), [7; 100]);
    check(&home, &imported);
}

#[test]
fn another_format_is_refused() {
    let (home, imported) = with_files();
    let path = home.data_dir().join("store");
    let header = fs::read(&path).expect("there is a header");
    let mut newer = header.clone();
    // The version follows on eight bytes of magic.
    newer[8] += 1;
    // And the header ends in its checksum, which a newer granary would have got right. That
    // of this one is wrong now, so the version is looked at first.
    fs::write(&path, newer).expect("the disk takes it");
    for args in [&["stats"][..], &["daemon", "--listen", "127.0.0.1:0"], &["recover"]] {
        let (code, stderr) = home.failure(args);
        assert_eq!(code, 4, "{stderr}");
        for version in [FORMAT_VERSION, FORMAT_VERSION + 1] {
            assert!(stderr.contains(&format!("version {version}")), "{stderr}");
        }
        assert!(stderr.contains("hint: "), "{stderr}");
    }
    fs::write(&path, header).expect("the disk takes it");
    check(&home, &imported);
}

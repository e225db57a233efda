//! The real Nix: copies a closure in, in each compression, and out again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, RwLock},
};

use bytes::Bytes;
use granary_castore::{MemoryStore, RecordKind, RecordStore, RecordWrite, Result};
use granary_nix_formats::{NarInfo, StorePath, nar};
use granary_server::http::HttpOptions;
use tempfile::TempDir;

use super::{
    COMPRESSIONS, Cache, nar_name, nar_of_tree, narinfo_of, run, sha256, signing_key, store_path,
};

/// The NAR of one plain file.
fn nar_of_file(contents: &[u8]) -> Vec<u8> {
    let mut writer = nar::Writer::new(Vec::new()).expect("memory takes it");
    writer.file_header(false, contents.len() as u64).expect("a valid tree");
    writer.file_data(contents).expect("a valid tree");
    writer.end_file().expect("a valid tree");
    writer.finish().expect("a valid tree")
}

/// A closure of three, the dependencies first.
pub(super) struct Closure {
    members: Vec<Member>,
}

struct Member {
    path: StorePath,
    nar: Vec<u8>,
    references: Vec<StorePath>,
}

impl Closure {
    pub(super) fn new() -> Self {
        let (library, program, script) =
            (store_path("library-1.0"), store_path("program-2.1"), store_path("script"));
        let member = |path: &StorePath, large, references: &[&StorePath]| Member {
            path: path.clone(),
            nar: nar_of_tree(
                large,
                &references.iter().map(|path| path.absolute()).collect::<Vec<_>>().join("\n"),
            ),
            references: references.iter().copied().cloned().collect(),
        };
        Self {
            members: vec![
                member(&library, 1_300_000, &[]),
                member(&program, 70_000, &[&library, &program]),
                member(&script, 0, &[&program, &library]),
            ],
        }
    }

    pub(super) fn root(&self) -> String {
        self.members.last().expect("it is not empty").path.absolute()
    }

    /// Writes it as a binary cache of plain files.
    fn write_to(&self, directory: &Path) {
        let write = |name: String, contents: &[u8]| {
            fs::write(directory.join(name), contents).expect("a temporary directory takes files");
        };
        fs::create_dir_all(directory.join("nar")).expect("a temporary directory");
        write("nix-cache-info".to_owned(), b"StoreDir: /nix/store\n");
        for member in &self.members {
            let name = nar_name(&member.nar, "");
            write(format!("nar/{name}"), &member.nar);
            let narinfo = NarInfo {
                references: member.references.clone(),
                ..narinfo_of(&member.path, &member.nar, "none", &member.nar, &name)
            };
            write(format!("{}.narinfo", member.path.hash()), narinfo.to_string().as_bytes());
        }
    }
}

/// Nix with a home of its own.
pub(super) struct Nix {
    home: TempDir,
}

impl Nix {
    fn new() -> Self {
        Self { home: tempfile::tempdir().expect("a temporary directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A store below the home, of that name.
    pub(super) fn store(&self, name: &str) -> String {
        format!("local?root={}", self.path(name).display())
    }

    fn command(&self, program: &str, cache_home: &str) -> Command {
        let mut command = Command::new(program);
        let config = format!(
            "experimental-features = nix-command\nsubstituters =\nsandbox = false\n\
             build-users-group =\ntrusted-public-keys = {}\n",
            signing_key().public_key()
        );
        command
            .env("HOME", self.home.path())
            .env("XDG_CACHE_HOME", self.path(cache_home))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("NIX_CONF_DIR", self.path("conf"))
            .env("NIX_CONFIG", config)
            .env("NIX_REMOTE", "");
        command
    }

    fn try_nix(&self, cache_home: &str, args: &[&str]) -> Output {
        run(self.command("nix", cache_home).args(args))
    }

    pub(super) fn nix(&self, cache_home: &str, args: &[&str]) -> String {
        let output = self.try_nix(cache_home, args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "nix {args:?} failed:\n{errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Checks that the store of that name has the closure, byte for byte.
    pub(super) fn assert_has(&self, store: &str, closure: &Closure) {
        for member in &closure.members {
            let path = self.path(store).join(&member.path.absolute()[1..]);
            let output = run(self.command("nix-store", "cache").arg("--dump").arg(path));
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(output.stdout == member.nar, "{} has other contents", member.path);
        }
    }
}

/// A Nix whose store `source` has the closure.
pub(super) fn nix_with(closure: &Closure) -> Nix {
    let nix = Nix::new();
    let files = nix.path("files");
    closure.write_to(&files);
    let from = format!("file://{}", files.display());
    let (source, root) = (nix.store("source"), closure.root());
    nix.nix("cache", &["copy", "--no-check-sigs", "--from", &from, "--to", &source, &root]);
    nix.assert_has("source", closure);
    nix
}

fn round_trip(compression: &str) {
    let closure = Closure::new();
    let nix = nix_with(&closure);
    let cache = Cache::start();
    let (source, root) = (nix.store("source"), closure.root());
    let to = cache.url(&format!("?compression={compression}&write-nar-listing=true"));
    nix.nix("pushed", &["copy", "--no-check-sigs", "--from", &source, "--to", &to, &root]);
    for member in &closure.members {
        let narinfo = cache.narinfo(&member.path);
        assert_eq!(narinfo.nar_hash, sha256(&member.nar));
        let mut references = member.references.clone();
        references.sort_unstable();
        let mut served = narinfo.references;
        served.sort_unstable();
        assert_eq!(served, references);
    }
    // Once with what Nix wrote down when it pushed, the URLs of the uploads, and once with
    // nothing, when it gets ours. The signature is checked in both.
    for (store, cache_home) in [("warm", "pushed"), ("cold", "fresh")] {
        let (from, to) = (cache.url(""), nix.store(store));
        let mut args = vec!["copy", "--from", &from, "--to", &to, &root];
        if cache_home == "pushed" {
            // What it wrote down has no signature of ours.
            args.push("--no-check-sigs");
        }
        nix.nix(cache_home, &args);
        nix.assert_has(store, &closure);
    }
    // A second push finds everything, also without the memory of the first.
    nix.nix("third", &["copy", "--no-check-sigs", "--from", &source, "--to", &to, &root]);
}

#[test]
fn round_trips_uncompressed() {
    round_trip("none");
}

#[test]
fn round_trips_in_xz() {
    round_trip("xz");
}

#[test]
fn round_trips_in_zstd() {
    round_trip("zstd");
}

#[test]
fn round_trips_in_gzip() {
    round_trip("gzip");
}

#[test]
fn round_trips_in_bzip2() {
    round_trip("bzip2");
    assert_eq!(COMPRESSIONS.len(), 5, "each has a test above");
}

#[test]
fn reads_single_files() {
    let closure = Closure::new();
    let nix = nix_with(&closure);
    let cache = Cache::start();
    let (source, root, url) = (nix.store("source"), closure.root(), cache.url(""));
    nix.nix("cache", &["copy", "--no-check-sigs", "--from", &source, "--to", &url, &root]);
    let list = nix.nix("other", &["store", "ls", "--store", &url, "-R", &root]);
    assert!(list.contains("./bin/run"), "{list}");
    let file = format!("{root}/bin/run");
    let text = nix.nix("other", &["store", "cat", "--store", &url, &file]);
    assert!(text.contains(&closure.members[0].path.absolute()), "{text}");
}

#[test]
fn pushes_an_index_of_debug_information() {
    let build_id = "ab0123456789abcdef0123456789abcdef012345";
    let (first, rest) = build_id.split_at(2);
    let mut writer = nar::Writer::new(Vec::new()).expect("memory takes it");
    let mut write = || -> std::result::Result<(), nar::Error> {
        let names = ["lib", "debug", ".build-id", first, &format!("{rest}.debug")];
        for name in names {
            writer.directory()?;
            writer.entry(name.as_bytes())?;
        }
        writer.file_header(false, 5)?;
        writer.file_data(b"DWARF")?;
        writer.end_file()?;
        for _ in names {
            writer.end_entry()?;
            writer.end_directory()?;
        }
        Ok(())
    };
    write().expect("a valid tree");
    let nar = writer.finish().expect("a valid tree");
    let path = store_path("program-debug");
    let closure = Closure { members: vec![Member { path, nar, references: Vec::new() }] };
    let nix = nix_with(&closure);
    let cache = Cache::start();
    let (source, root) = (nix.store("source"), closure.root());
    let to = cache.url("?index-debug-info=true");
    nix.nix("cache", &["copy", "--no-check-sigs", "--from", &source, "--to", &to, &root]);
    let answer = cache.get(&format!("debuginfo/{build_id}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let archive = json["archive"].as_str().expect("the URL of the NAR");
    assert_eq!(cache.get(archive.trim_start_matches("../")).status, 200, "{json}");
}

#[test]
fn copies_and_reads_logs() {
    let nix = Nix::new();
    let (first, second) = (Cache::start(), Cache::start());
    let derivation = store_path("built.drv");
    let name = derivation.base_name();
    let output = store_path("built").absolute();
    let aterm = format!(
        "Derive([(\"out\",\"{output}\",\"\",\"\")],[],[],\"x86_64-linux\",\"/bin/sh\",[],\
         [(\"name\",\"built\"),(\"out\",\"{output}\")])"
    );
    for cache in [&first, &second] {
        cache.add_path("built.drv", &nar_of_file(aterm.as_bytes()), &[]);
    }
    let log = "it was built\n".repeat(100);
    assert_eq!(first.put(&format!("log/{name}"), log.as_bytes()).status, 201);
    let (from, to, derivation) = (first.url(""), second.url(""), derivation.absolute());
    nix.nix("cache", &["store", "copy-log", "--from", &from, "--to", &to, &derivation]);
    assert_eq!(second.get(&format!("log/{name}")).text(), log);
    assert_eq!(nix.nix("cache", &["log", "--store", &to, &derivation]), log);
}

/// Records that can all be lost at once.
#[derive(Default)]
struct Forgetful {
    memory: RwLock<Arc<MemoryStore>>,
}

impl Forgetful {
    fn forget(&self) {
        *self.memory.write().expect("not poisoned") = Arc::default();
    }

    fn memory(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.memory.read().expect("not poisoned"))
    }
}

impl RecordStore for Forgetful {
    fn record(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Bytes>> {
        self.memory().record(kind, key)
    }

    fn write_records(&self, writes: Vec<RecordWrite>) -> Result<()> {
        self.memory().write_records(writes)
    }

    fn scan_records(
        &self,
        kind: RecordKind,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        self.memory().scan_records(kind, after, limit)
    }
}

#[test]
fn a_client_that_remembers_too_much_is_told_to_refresh() {
    let closure = Closure::new();
    let nix = nix_with(&closure);
    let records = Arc::new(Forgetful::default());
    let castore = Arc::new(MemoryStore::default());
    let cache = Cache::start_over(castore, records.clone(), HttpOptions::default());
    let (source, url) = (nix.store("source"), cache.url(""));
    let copy = ["copy", "--no-check-sigs", "--from", &source, "--to", &url];
    let (library, root) = (closure.members[0].path.absolute(), closure.root());
    nix.nix("cache", &[&copy[..], &[&library]].concat());
    records.forget();
    let output = nix.try_nix("cache", &[&copy[..], &[&root]].concat());
    assert!(!output.status.success(), "the library is missing");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains(&closure.members[0].path.base_name()), "{errors}");
    assert!(errors.contains("--refresh"), "{errors}");
    nix.nix("cache", &[&copy[..], &["--refresh", &root]].concat());
    for member in &closure.members {
        assert_eq!(cache.narinfo(&member.path).nar_hash, sha256(&member.nar));
    }
}

//! What is damaged is fetched from another store, or given up.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    thread,
};

use granary_testkit::{Random, closure::SyntheticClosure, nix::Nix, tree::Tree};
use serde_json::{Value, json};

use crate::support::{Home, damage};

/// Trees with files that do not compress, so that they are found in packs.
fn trees() -> Vec<(Tree, Vec<u8>)> {
    let mut random = Random::new(41);
    let mut trees = Vec::new();
    for number in 0..3_usize {
        let contents = random.incompressible(300_000 * (number + 1));
        let below = Tree::directory([("file", Tree::file(contents.clone()))]);
        let others = (0..20).map(|at| (format!("{at}"), Tree::file(random.incompressible(900))));
        let entries = others.chain([("below".to_owned(), below)]);
        trees.push((Tree::directory(entries), contents));
    }
    trees
}

/// Imports the trees, and returns their store paths.
fn import(home: &Home, trees: &[(Tree, Vec<u8>)]) -> Vec<String> {
    let paths = trees.iter().enumerate().map(|(number, (tree, _))| {
        let name = format!("tree-{number}");
        if !home.path(&name).exists() {
            tree.write_to(&home.path(&name)).expect("the disk takes it");
        }
        home.text(["import", &name])
    });
    paths.collect()
}

/// What `repair` says, and its exit code.
fn repair(home: &Home, from: &str) -> (Value, i32) {
    let output = home.run(["repair", "--json", "--from", from]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let object = serde_json::from_slice(&output.stdout);
    let code = output.status.code().expect("it ended by itself");
    (object.unwrap_or_else(|error| panic!("{error}: {stderr}")), code)
}

fn assert_clean(home: &Home) {
    let text = home.text(["verify", "--data", "--nar"]);
    assert!(text.contains(": 0 errors"), "{text}");
}

/// Everything comes back as it was.
fn assert_whole(home: &Home, paths: &[String], trees: &[(Tree, Vec<u8>)]) {
    for (path, (tree, _)) in paths.iter().zip(trees) {
        assert!(home.output(["nar", path]) == tree.to_nar(), "{path}");
    }
}

#[test]
fn from_another_daemon() {
    let trees = trees();
    let other = Home::new();
    import(&other, &trees);
    let source = other.daemon();
    for through_daemon in [false, true] {
        let home = Home::new();
        let paths = import(&home, &trees);
        damage(&home.data_dir(), &trees[0].1);
        damage(&home.data_dir(), &trees[1].1);
        let daemon = through_daemon.then(|| home.daemon());
        let (object, code) = repair(&home, &source.url());
        assert_eq!((code, &object["complete"]), (0, &json!(true)), "{object}");
        let mut repaired: Vec<_> = paths[..2].iter().map(String::as_str).collect();
        repaired.sort_unstable();
        assert_eq!(object["repairedPaths"], json!(repaired));
        assert!(object["givenUp"].as_u64() > Some(1), "{object}");
        assert_clean(&home);
        assert_whole(&home, &paths, &trees);
        let stats: Value = serde_json::from_str(&home.text(["stats", "--json"])).expect("JSON");
        assert_eq!(stats["damagedObjects"], 0);
        // Nothing is left to do.
        let (object, code) = repair(&home, &source.url());
        assert_eq!((code, &object["givenUp"]), (0, &json!(0)), "{object}");
        if let Some(daemon) = daemon {
            daemon.stop();
        }
        // And nothing comes back from the dead.
        fs::remove_dir_all(home.data_dir().join("index")).expect("there is an index");
        assert_clean(&home);
        assert_whole(&home, &paths, &trees);
    }
    source.stop();
}

#[test]
fn what_is_missing_is_fetched_too() {
    let trees = trees();
    let other = Home::new();
    import(&other, &trees);
    let source = other.daemon();
    let home = Home::new();
    let paths = import(&home, &trees);
    damage(&home.data_dir(), &trees[0].1);
    // Given up, and not to be had from an empty store.
    let empty = Home::new();
    let nothing = empty.daemon();
    let (object, code) = repair(&home, &nothing.url());
    assert_eq!((code, &object["complete"]), (5, &json!(false)), "{object}");
    assert_eq!(object["failedPaths"][0]["storePath"], json!(paths[0]), "{object}");
    nothing.stop();
    let output = home.run(["verify"]);
    assert_eq!(output.status.code(), Some(1), "what is missing is found without reading");
    let (object, code) = repair(&home, &source.url());
    assert_eq!((code, &object["repairedPaths"]), (0, &json!([paths[0]])), "{object}");
    assert_clean(&home);
    assert_whole(&home, &paths, &trees);
    source.stop();
}

/// A Nix whose store has a closure, the root of it, and a file in it that does not compress.
fn nix_with_closure() -> (Nix, String, Vec<u8>) {
    let closure = SyntheticClosure::new(15, 10);
    let cache = tempfile::tempdir().expect("a temporary directory");
    closure.write_binary_cache(cache.path()).expect("the disk has room");
    let nix = Nix::new();
    let root = closure.root().store_path.absolute();
    nix.copy_from(&format!("file://{}", cache.path().display()), std::slice::from_ref(&root));
    // One more, whose contents are found in a pack.
    let contents = Random::new(51).incompressible(400_000);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), &contents).expect("the disk takes it");
    let path = file.path().to_str().expect("UTF-8");
    let added = nix.run("nix-store", ["--add", path]);
    let added = String::from_utf8(added).expect("text").trim().to_owned();
    (nix, added, contents)
}

/// A binary cache as stock Nix makes it.
fn nix_cache(nix: &Nix, path: &str, compression: &str) -> tempfile::TempDir {
    let cache = tempfile::tempdir().expect("a temporary directory");
    let url = format!("file://{}?compression={compression}", cache.path().display());
    nix.copy_to(&url, &[path.to_owned()]);
    cache
}

/// A store that Nix has pushed the path to, and where the path is damaged.
fn damaged_by(nix: &Nix, path: &str, contents: &[u8]) -> Home {
    let home = Home::new();
    let daemon = home.daemon();
    nix.copy_to(&daemon.url(), &[path.to_owned()]);
    daemon.stop();
    damage(&home.data_dir(), contents);
    home
}

#[test]
fn from_a_cache_of_nix() {
    let (nix, path, contents) = nix_with_closure();
    for compression in ["none", "xz", "zstd", "gzip", "bzip2"] {
        let home = damaged_by(&nix, &path, &contents);
        let cache = nix_cache(&nix, &path, compression);
        let server = FileServer::start(cache.path());
        let from = if compression == "xz" {
            server.url.clone()
        } else {
            format!("file://{}", cache.path().display())
        };
        let (object, code) = repair(&home, &from);
        assert_eq!((code, &object["repairedPaths"]), (0, &json!([path])), "{object}");
        assert_clean(&home);
        assert!(home.output(["cat", &path]) == contents, "{compression}");
    }
}

#[test]
fn a_cache_that_has_something_else_is_not_believed() {
    let (nix, path, contents) = nix_with_closure();
    let home = damaged_by(&nix, &path, &contents);
    let cache = nix_cache(&nix, &path, "none");
    // The NAR is another than the narinfo says.
    let nar = fs::read_dir(cache.path().join("nar")).expect("NARs").next().expect("one");
    let nar = nar.expect("an entry").path();
    let mut bytes = fs::read(&nar).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&nar, &bytes).expect("written");
    let (object, code) = repair(&home, &format!("file://{}", cache.path().display()));
    assert_eq!((code, &object["complete"]), (5, &json!(false)), "{object}");
    let problem = object["failedPaths"][0]["problem"].as_str().expect("text").to_owned();
    assert!(problem.contains("another NAR than it said"), "{problem}");
    // And what is neither a store nor a cache is told apart.
    let nowhere = tempfile::tempdir().expect("a temporary directory");
    let from = format!("file://{}", nowhere.path().display());
    assert_eq!(home.failure(["repair", "--from", &from]).0, 2);
    let (code, stderr) = home.failure(["repair", "--from", "https://cache.nixos.org"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("TLS is not supported"), "{stderr}");
}

#[test]
fn what_cannot_be_repaired_can_be_uploaded_again() {
    let (nix, path, contents) = nix_with_closure();
    let home = damaged_by(&nix, &path, &contents);
    let empty = tempfile::tempdir().expect("a temporary directory");
    fs::write(empty.path().join("nix-cache-info"), "StoreDir: /nix/store\n").expect("written");
    let daemon = home.daemon();
    let (object, code) = repair(&home, &format!("file://{}", empty.path().display()));
    assert_eq!((code, &object["failedPaths"][0]["storePath"]), (5, &json!(path)), "{object}");
    // Nix is told that it is not there, and uploads it.
    let fresh = Nix::new();
    let args = ["copy", "--no-check-sigs", "--from", &daemon.url(), &path];
    fresh.run_to_fail("nix", args);
    nix.forget_caches();
    nix.copy_to(&daemon.url(), std::slice::from_ref(&path));
    fresh.forget_caches();
    fresh.run("nix", args);
    daemon.stop();
    assert_clean(&home);
    assert!(home.output(["cat", &path]) == contents);
}

/// Serves the files of a directory over HTTP, one connection at a time, until the test ends.
struct FileServer {
    url: String,
}

impl FileServer {
    fn start(directory: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        let directory = directory.to_owned();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = Vec::new();
                let mut piece = [0; 1024];
                // What is no HTTP/1 is not answered.
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut piece) {
                        Ok(read @ 1..) => request.extend_from_slice(&piece[..read]),
                        _ => break,
                    }
                    if request.starts_with(b"PRI ") {
                        break;
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let name = request.strip_prefix("GET /").and_then(|rest| rest.split(' ').next());
                let path: Option<PathBuf> = name.map(|name| directory.join(name));
                let answer = match path.and_then(|path| fs::read(path).ok()) {
                    Some(body) => {
                        let length = body.len();
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n");
                        [head.as_bytes(), b"Connection: close\r\n\r\n", &body].concat()
                    }
                    None => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
                };
                // Whoever asked may be gone.
                drop(stream.write_all(&answer));
            }
        });
        Self { url }
    }
}

/// Records, headers and whole packs.
#[test]
fn more_than_contents() {
    let trees = trees();
    let other = Home::new();
    import(&other, &trees);
    let source = other.daemon();
    let tampers: [fn(&mut Vec<u8>); 3] = [
        |bytes| bytes[20] ^= 1,
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes[64 + 30] ^= 1,
    ];
    for tamper in tampers {
        let home = Home::new();
        let paths = import(&home, &trees);
        let pack = fs::read_dir(home.data_dir().join("packs")).expect("packs").next();
        let pack = pack.expect("one").expect("an entry").path();
        let mut bytes = fs::read(&pack).expect("it can be read");
        tamper(&mut bytes);
        fs::write(&pack, &bytes).expect("written");
        let output = home.run(["verify", "--data"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let (object, code) = repair(&home, &source.url());
        assert_eq!((code, &object["complete"]), (0, &json!(true)), "{object}");
        assert_eq!(object["removedPacks"].as_array().map(Vec::len), Some(1), "{object}");
        assert_clean(&home);
        assert_whole(&home, &paths, &trees);
        fs::remove_dir_all(home.data_dir().join("index")).expect("there is an index");
        assert_clean(&home);
        assert_whole(&home, &paths, &trees);
    }
    source.stop();
}

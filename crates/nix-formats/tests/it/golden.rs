//! Files that real Nix wrote; `tests/golden/README.md` says how.

use std::{collections::BTreeMap, path::Path};

use granary_nix_formats::{
    ContentAddress, HashAlgorithm, Listing, ListingBuilder, ListingError, NarHash, NarInfo,
    PublicKey, SigningKey, StorePath,
    nar::{Event, Reader},
};

use crate::tree::Tree;

/// All golden NARs.
pub(crate) const NARS: [&str; 5] =
    ["tree.nar", "tree-bytes.nar", "file.nar", "executable.nar", "symlink.nar"];

/// A golden file.
pub(crate) fn read(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_text(name: &str) -> String {
    String::from_utf8(read(name)).expect("a text")
}

fn file(contents: &[u8]) -> Tree {
    Tree::File { executable: false, contents: contents.to_vec() }
}

fn script() -> Tree {
    Tree::File { executable: true, contents: b"#!/bin/sh\necho hi\n".to_vec() }
}

fn directory<const N: usize>(entries: [(&[u8], Tree); N]) -> BTreeMap<Vec<u8>, Tree> {
    entries.into_iter().map(|(name, node)| (name.to_vec(), node)).collect()
}

/// The tree that the golden files are made from.
fn tree() -> BTreeMap<Vec<u8>, Tree> {
    let sub = directory([(b"dangling", Tree::Symlink(b"/nix/store/nowhere".to_vec()))]);
    let dir = directory([
        (b"hello", file(b"hello\n")),
        (b"run", script()),
        (b"sub", Tree::Directory(sub)),
    ]);
    directory([
        (b".hidden", file(b"dot")),
        (b"Z", file(b"upper")),
        (b"dir", Tree::Directory(dir)),
        (b"eight", file(b"12345678")),
        (b"empty", file(b"")),
        (b"empty-dir", Tree::Directory(BTreeMap::new())),
        (b"link", Tree::Symlink(b"dir/hello".to_vec())),
    ])
}

#[test]
fn nars_are_those_of_the_trees() {
    let mut bytes = tree();
    bytes.insert(b"caf\xe9-\xff".to_vec(), file(b"bytes"));
    bytes.insert(b"target".to_vec(), Tree::Symlink(b"\xff\xfe".to_vec()));
    let trees = [
        Tree::Directory(tree()),
        Tree::Directory(bytes),
        file(b"12345678"),
        script(),
        Tree::Symlink(b"dir/hello".to_vec()),
    ];
    for (name, tree) in NARS.into_iter().zip(trees) {
        let nar = read(name);
        assert_eq!(tree.to_nar(5).expect("a valid tree"), nar, "{name}");
        assert_eq!(Tree::from_nar(&nar[..], 5).expect("a valid NAR"), tree, "{name}");
    }
}

/// The digests of `run` (flat) and `tree` (as a NAR), by name and algorithm.
fn digest(what: &str, algorithm: HashAlgorithm) -> Vec<u8> {
    let prefix = format!("{what} {algorithm} ");
    let digests = read_text("digests");
    let digest = digests.lines().find_map(|line| line.strip_prefix(&prefix));
    algorithm.parse_digest(digest.expect("its line")).expect("a digest")
}

fn path(how: &str) -> StorePath {
    let paths = read_text("paths");
    let prefix = format!("{how} ");
    let path = paths.lines().find_map(|line| line.strip_prefix(&prefix));
    StorePath::from_absolute(path.expect("its line")).expect("a store path")
}

#[test]
fn store_paths_are_those_of_nix() {
    use HashAlgorithm::{Md5, Sha1, Sha256, Sha512};
    let nar_hash = NarHash::try_from(&digest("tree", Sha256)[..]).expect("32 bytes");
    assert_eq!(StorePath::for_source("tree", &nar_hash), Ok(path("add")));
    for algorithm in [Md5, Sha1, Sha256, Sha512] {
        let flat = StorePath::fixed_output("run", false, algorithm, &digest("run", algorithm));
        assert_eq!(flat, Ok(path(&format!("fixed-{algorithm}"))));
        let recursive =
            StorePath::fixed_output("tree", true, algorithm, &digest("tree", algorithm));
        assert_eq!(recursive, Ok(path(&format!("fixed-r-{algorithm}"))));
    }
    // SHA-256 of "hello\n".
    let hello = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    let hello = Sha256.parse_digest(hello).expect("hex").try_into().expect("32 bytes");
    assert_eq!(StorePath::text("note", &hello, &[]), Ok(path("text")));
}

fn narinfo(name: &str) -> NarInfo {
    NarInfo::parse(&read_text(&format!("{name}.narinfo"))).expect("a narinfo")
}

#[test]
fn narinfos_are_read_and_written_alike() {
    for name in ["add", "text-references", "built"] {
        assert_eq!(narinfo(name).to_string(), read_text(&format!("{name}.narinfo")));
    }
    let add = narinfo("add");
    assert_eq!(add.store_path, path("add"));
    assert_eq!(add.nar_size, read("tree.nar").len() as u64);
    assert_eq!(add.nar_hash.as_bytes()[..], digest("tree", HashAlgorithm::Sha256));
    assert_eq!((add.file_hash, add.file_size), (Some(add.nar_hash), Some(add.nar_size)));
    assert!(add.references.is_empty());

    let text = narinfo("text-references");
    assert_eq!(text.references.len(), 2);
    assert_eq!(text.references[0], path("text"));

    let built = narinfo("built");
    assert_eq!(built.ca, None);
    assert!(built.deriver.is_some_and(|deriver| deriver.name() == "built.drv"));
}

#[test]
fn signatures_of_nix_are_ours() {
    let public = PublicKey::parse(&read_text("public-key")).expect("a public key");
    let secret = SigningKey::parse(&read_text("secret-key")).expect("a secret key");
    assert_eq!(secret.public_key(), public);
    assert_eq!(public.to_string(), read_text("public-key"));
    assert_eq!(secret.to_secret_string(), read_text("secret-key"));
    for name in ["add", "text-references", "built"] {
        let info = narinfo(name);
        let fingerprint = info.fingerprint();
        assert_eq!(info.signatures, [secret.sign(fingerprint.as_bytes())], "{name}");
        assert!(public.verify(fingerprint.as_bytes(), &info.signatures[0]), "{name}");
        let larger = fingerprint.replace(&format!(";{};", info.nar_size), ";1;");
        assert!(!public.verify(larger.as_bytes(), &info.signatures[0]), "{name}");
    }
}

#[test]
fn content_addresses_lead_to_the_paths() {
    for name in ["add", "text-references"] {
        let info = narinfo(name);
        let ca = info.ca.expect("a content address");
        let path = ca.store_path(info.store_path.name(), &info.references, false);
        assert_eq!(path, Ok(info.store_path));
    }
    assert!(matches!(narinfo("text-references").ca, Some(ContentAddress::Text { .. })));
}

/// The listing of a NAR.
fn listing(nar: &[u8]) -> Result<Listing, ListingError> {
    let mut reader = Reader::new(nar);
    let mut builder = ListingBuilder::new();
    while let Some(event) = reader.next().expect("a valid NAR") {
        match event {
            Event::Directory => builder.directory()?,
            Event::Entry { name } => builder.entry(&name)?,
            Event::EndDirectory => builder.end_directory()?,
            Event::Symlink { target } => builder.symlink(&target)?,
            Event::File { executable, size } => {
                builder.file(executable, size, reader.position())?;
            }
        }
    }
    builder.finish()
}

#[test]
fn listings_are_those_of_nix() {
    let ours = listing(&read("tree.nar")).expect("all names are UTF-8");
    assert_eq!(ours.to_json().expect("not deep"), read_text("add.ls"));
    for name in ["add.ls", "text-references.ls"] {
        let listing = Listing::from_json(&read(name)).expect("a listing");
        assert_eq!(listing.to_json().expect("not deep"), read_text(name));
    }
    let error = listing(&read("tree-bytes.nar")).expect_err("a name is not UTF-8");
    assert!(matches!(error, ListingError::Name { .. }), "{error}");
}

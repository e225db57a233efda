//! Synthetic closures of store paths.

use std::{collections::BTreeMap, fs, io, path::Path};

use granary_nix_formats::{NarHash, NarInfo, StorePath, StorePathHash};
use sha2::{Digest as _, Sha256};

use crate::{Random, tree::Tree};

/// Most references that one path has to others.
const MAX_REFERENCES: usize = 4;

/// A closure that looks like Nix's: store paths that refer to each other from scripts,
/// from the search paths of binaries and from symlinks.
#[derive(Debug, Clone)]
pub struct SyntheticClosure {
    paths: Vec<SyntheticPath>,
}

/// One path of a [`SyntheticClosure`].
#[derive(Debug, Clone)]
pub struct SyntheticPath {
    /// The store path.
    pub store_path: StorePath,
    /// Its contents.
    pub tree: Tree,
    /// The paths that its contents refer to, itself among them or not, sorted.
    pub references: Vec<StorePath>,
}

impl SyntheticClosure {
    /// A closure of `paths` store paths, the references of each before it.
    pub fn new(seed: u64, paths: usize) -> Self {
        Self::generate(seed, paths, false)
    }

    /// The same with names in it that are not UTF-8.
    pub fn with_odd_names(seed: u64, paths: usize) -> Self {
        Self::generate(seed, paths, true)
    }

    fn generate(seed: u64, count: usize, odd_names: bool) -> Self {
        let mut random = Random::new(seed);
        let mut paths: Vec<SyntheticPath> = Vec::with_capacity(count);
        for number in 0..count {
            let store_path = store_path(&mut random, number);
            let mut references = BTreeMap::new();
            if number > 0 {
                // The one before, so that the last path has all others in its closure.
                let mut targets = vec![number - 1];
                targets.extend((0..random.below(MAX_REFERENCES)).map(|_| random.below(number)));
                for target in targets {
                    let path = paths[target].store_path.clone();
                    references.insert(path.base_name(), path);
                }
            }
            let others: Vec<_> = references.values().cloned().collect();
            if random.one_in(3) {
                references.insert(store_path.base_name(), store_path.clone());
            }
            let refers_to_itself = references.contains_key(&store_path.base_name());
            let own = refers_to_itself.then_some(&store_path);
            let tree =
                Contents { random: &mut random, others: &others, own }.tree(number, odd_names);
            paths.push(SyntheticPath {
                store_path,
                tree,
                references: references.into_values().collect(),
            });
        }
        Self { paths }
    }

    /// The paths, each behind those it refers to.
    pub fn paths(&self) -> &[SyntheticPath] {
        &self.paths
    }

    /// The path whose closure is everything.
    ///
    /// # Panics
    ///
    /// If the closure has no paths.
    pub fn root(&self) -> &SyntheticPath {
        self.paths.last().expect("a closure with paths")
    }

    /// Writes each path to `directory`, under its base name.
    ///
    /// # Errors
    ///
    /// If the disk refuses it.
    pub fn write_trees(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        for path in &self.paths {
            path.tree.write_to(&directory.join(path.store_path.base_name()))?;
        }
        Ok(())
    }

    /// Writes a binary cache that Nix can copy from by its `file://` URL. Nothing in it is
    /// compressed or signed.
    ///
    /// # Errors
    ///
    /// If the disk refuses it.
    pub fn write_binary_cache(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory.join("nar"))?;
        fs::write(directory.join("nix-cache-info"), "StoreDir: /nix/store\nPriority: 40\n")?;
        for path in &self.paths {
            let nar = path.tree.to_nar();
            let narinfo = path.narinfo(&nar);
            fs::write(directory.join(&narinfo.url), &nar)?;
            let name = format!("{}.narinfo", path.store_path.hash());
            fs::write(directory.join(name), narinfo.to_string())?;
        }
        Ok(())
    }
}

impl SyntheticPath {
    /// The narinfo of an uncompressed `nar`, which must be that of [`Self::tree`].
    pub fn narinfo(&self, nar: &[u8]) -> NarInfo {
        let nar_hash = NarHash::from_bytes(Sha256::digest(nar).into());
        let nar_size = nar.len() as u64;
        NarInfo {
            store_path: self.store_path.clone(),
            url: format!("nar/{}.nar", self.store_path.hash()),
            compression: "none".to_owned(),
            file_hash: Some(nar_hash),
            file_size: Some(nar_size),
            nar_hash,
            nar_size,
            references: self.references.clone(),
            deriver: None,
            system: None,
            signatures: Vec::new(),
            ca: None,
        }
    }
}

fn store_path(random: &mut Random, number: usize) -> StorePath {
    const NAMES: [&str; 6] = ["glibc", "bash", "coreutils", "openssl", "python3", "hello"];
    let hash: [u8; 20] = random.incompressible(20).try_into().expect("20 bytes");
    let name = format!("{}-{}.{number}", NAMES[random.below(NAMES.len())], random.below(10));
    StorePath::new(StorePathHash::from_bytes(hash), name).expect("a valid name")
}

/// Makes the contents of one path.
struct Contents<'a> {
    random: &'a mut Random,
    others: &'a [StorePath],
    /// The path itself, if its contents refer to it.
    own: Option<&'a StorePath>,
}

impl Contents<'_> {
    fn tree(&mut self, number: usize, odd_names: bool) -> Tree {
        if number % 11 == 5 {
            // Some paths are a single file.
            return Tree::executable(self.script());
        }
        let len = 200 + self.random.below(60_000);
        let mut entries = vec![
            (
                "bin".into(),
                Tree::directory([
                    ("run", Tree::executable(self.script())),
                    ("program", Tree::executable(self.binary(20_000))),
                    ("link", Tree::symlink("run")),
                ]),
            ),
            (
                "lib".into(),
                Tree::directory([
                    ("library.so.1", Tree::executable(self.binary(150_000))),
                    ("library.so", Tree::symlink("library.so.1")),
                ]),
            ),
            (
                "share".into(),
                Tree::directory([
                    ("text", Tree::file(self.random.compressible(len))),
                    ("empty", Tree::file("")),
                    ("empty-directory", Tree::directory::<Vec<u8>>([])),
                    ("doc", self.many_small_files()),
                ]),
            ),
        ];
        for (index, other) in self.others.iter().enumerate() {
            let target = format!("{}/share", other.absolute());
            entries.push((format!("dependency-{index}").into_bytes(), Tree::symlink(target)));
        }
        if number % 8 == 3 {
            let large = self.random.incompressible(3 << 20);
            entries.push((b"large".to_vec(), Tree::file(large)));
        }
        if odd_names {
            entries.push((b"\xff\xfe".to_vec(), Tree::file("not UTF-8")));
            entries.push((b"also \xc3".to_vec(), Tree::symlink(&b"\xff"[..])));
        }
        Tree::directory::<Vec<u8>>(entries)
    }

    fn many_small_files(&mut self) -> Tree {
        let count = 5 + self.random.below(40);
        Tree::directory((0..count).map(|number| {
            let len = self.random.below(2000);
            (format!("page-{number}"), Tree::file(self.random.compressible(len)))
        }))
    }

    fn references(&self) -> impl Iterator<Item = String> {
        self.others.iter().chain(self.own).map(StorePath::absolute)
    }

    fn script(&mut self) -> Vec<u8> {
        let mut lines = vec!["#!/bin/sh".to_owned()];
        for path in self.references() {
            lines.push(format!("export PATH={path}/bin:$PATH"));
        }
        let len = self.random.below(500);
        lines.push(format!(
            "# {}",
            String::from_utf8_lossy(&self.random.compressible(len)).replace('\n', " ")
        ));
        lines.push("exec \"$@\"\n".to_owned());
        lines.join("\n").into_bytes()
    }

    /// Like an ELF file: a header, something like code, and a search path for libraries.
    fn binary(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(64, 0);
        let code = len / 4 + self.random.below(len / 2);
        // Code compresses a little: half of it comes from a few instructions.
        while bytes.len() < code {
            bytes.extend(self.random.incompressible(8));
            bytes.extend([0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x20, 0x00]);
        }
        bytes.push(0);
        let search: Vec<_> = self.references().map(|path| format!("{path}/lib")).collect();
        bytes.extend(search.join(":").into_bytes());
        bytes.push(0);
        let padded = bytes.len().next_multiple_of(4096);
        bytes.resize(padded, 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(haystack: &[u8], needle: &str) -> bool {
        haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
    }

    #[test]
    fn depends_on_its_seed_alone() {
        let nars = |seed| -> Vec<_> {
            let closure = SyntheticClosure::new(seed, 4);
            closure.paths().iter().map(|path| Sha256::digest(path.tree.to_nar())).collect()
        };
        assert_eq!(nars(1), nars(1));
        assert_ne!(nars(1), nars(2));
    }

    #[test]
    fn refers_to_what_it_says() {
        let closure = SyntheticClosure::with_odd_names(3, 12);
        let mut to_itself = 0;
        for (number, path) in closure.paths().iter().enumerate() {
            let nar = path.tree.to_nar();
            for (other_number, other) in closure.paths().iter().enumerate() {
                let refers = path.references.contains(&other.store_path);
                assert_eq!(contains(&nar, &other.store_path.hash().to_string()), refers);
                assert!(!refers || other_number <= number, "a reference forward");
                to_itself += usize::from(refers && other_number == number);
            }
        }
        assert!(to_itself > 0, "no path refers to itself");
    }
}

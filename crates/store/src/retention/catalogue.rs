//! All paths of a store and how they refer to each other.

use std::collections::HashMap;

use granary_castore::{Result, Root};
use granary_nix_formats::{StorePath, StorePathHash};

use crate::{PathInfo, PathInfoService as _, Store, kinds, uses};

/// Last uses that are read at a time.
const PAGE: usize = 5_000;

/// Number of a path in a [`Catalogue`].
pub(super) type PathNumber = usize;

/// What is known of each path. Takes some hundred bytes for each.
pub(super) struct Catalogue {
    pub(super) paths: Vec<CataloguedPath>,
    numbers: HashMap<StorePathHash, PathNumber>,
}

pub(super) struct CataloguedPath {
    pub(super) store_path: StorePath,
    /// `None` if it is a symlink.
    pub(super) root: Option<Root>,
    /// Of those that are stored; itself not among them.
    pub(super) references: Vec<PathNumber>,
    pub(super) deriver: Option<StorePath>,
    /// In seconds since 1970; never over the time of the catalogue.
    pub(super) used_unix_s: u64,
}

impl Catalogue {
    /// Reads all path infos. A path without a record of its last use counts as used now.
    pub(super) fn read(store: &Store, now_unix_s: u64) -> Result<Self> {
        let mut uses = Self::last_uses(store)?;
        let (mut paths, mut references, mut numbers) = (Vec::new(), Vec::new(), HashMap::new());
        for path_info in store.path_infos() {
            let PathInfo { store_path, node, references: hashes, nar } = path_info?;
            let used = uses.remove(store_path.hash()).unwrap_or(now_unix_s);
            numbers.insert(*store_path.hash(), paths.len());
            references.push(hashes);
            paths.push(CataloguedPath {
                store_path,
                root: Root::of(&node),
                references: Vec::new(),
                deriver: nar.and_then(|nar| nar.deriver),
                used_unix_s: used.min(now_unix_s),
            });
        }
        for (number, hashes) in references.into_iter().enumerate() {
            let found = hashes.iter().filter_map(|hash| numbers.get(hash).copied());
            paths[number].references = found.filter(|found| *found != number).collect();
        }
        Ok(Self { paths, numbers })
    }

    fn last_uses(store: &Store) -> Result<HashMap<StorePathHash, u64>> {
        let mut uses = HashMap::new();
        let mut after: Option<bytes::Bytes> = None;
        loop {
            let page = store.records().scan_records(kinds::LAST_USE, after.as_deref(), PAGE)?;
            for (key, value) in &page {
                if let Ok(hash) = <[u8; 20]>::try_from(&key[..]) {
                    uses.insert(StorePathHash::from_bytes(hash), uses::decode(value)?);
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(uses),
            }
        }
    }

    pub(super) fn number(&self, hash: &StorePathHash) -> Option<PathNumber> {
        self.numbers.get(hash).copied()
    }

    /// Adds to `closure` the path and all that it refers to, as far as they are not in it.
    /// Returns those that were added, itself first.
    pub(super) fn add_closure(&self, path: PathNumber, closure: &mut [bool]) -> Vec<PathNumber> {
        let mut added = Vec::new();
        if !std::mem::replace(&mut closure[path], true) {
            added.push(path);
        }
        let mut next = 0;
        while let Some(path) = added.get(next).copied() {
            next += 1;
            for reference in &self.paths[path].references {
                if !std::mem::replace(&mut closure[*reference], true) {
                    added.push(*reference);
                }
            }
        }
        added
    }

    /// An empty closure.
    pub(super) fn nothing(&self) -> Vec<bool> {
        vec![false; self.paths.len()]
    }

    /// `paths` in an order in which each comes before what it refers to.
    pub(super) fn referrers_first(&self, paths: &[PathNumber]) -> Vec<PathNumber> {
        let mut is_left = self.nothing();
        for path in paths {
            is_left[*path] = true;
        }
        let mut order = Vec::with_capacity(paths.len());
        // Depth first; what is behind its references goes to the end, which then comes first.
        let mut stack = Vec::new();
        for start in paths {
            if std::mem::replace(&mut is_left[*start], false) {
                stack.push((*start, 0));
            }
            while let Some((path, next)) = stack.last_mut() {
                if let Some(reference) = self.paths[*path].references.get(*next).copied() {
                    *next += 1;
                    if std::mem::replace(&mut is_left[reference], false) {
                        stack.push((reference, 0));
                    }
                } else {
                    order.push(*path);
                    stack.pop();
                }
            }
        }
        order.reverse();
        order
    }

    /// Who refers to a path, itself excepted.
    pub(super) fn referrers(&self, path: PathNumber) -> impl Iterator<Item = PathNumber> + '_ {
        let all = self.paths.iter().enumerate();
        all.filter(move |(_, other)| other.references.contains(&path)).map(|(number, _)| number)
    }
}

//! Why a path is kept.

use granary_castore::{Collection, CollectionKind, Collector, Error, Result, Root};
use granary_nix_formats::{StorePath, StorePathHash};

use super::{
    catalogue::{Catalogue, PathNumber},
    pin::{self, PinTarget},
};
use crate::{Store, uses::unix_now_s};

/// What keeps a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// A pin of this name, by way of these paths: from the one that is pinned to this one.
    Pin {
        /// Its name.
        name: String,
        /// The paths, first that which is pinned, last this one.
        path: Vec<StorePath>,
    },
    /// A path that refers to it.
    Referrer(StorePath),
}

/// What is known of why a path is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The path.
    pub store_path: StorePath,
    /// Pins, then those that refer to it.
    pub keepers: Vec<Keeper>,
    /// When it was used or uploaded last, in seconds since 1970.
    pub used_unix_s: u64,
    /// When anything that refers to it, at some distance, was used last: as long as one of them is
    /// kept, so is it.
    pub referrers_used_unix_s: Option<u64>,
    /// Bytes on disk that it alone needs, about.
    pub own_bytes: u64,
    /// Bytes on disk that it needs together with what only it keeps: what `delete --closure` frees.
    pub closure_bytes: u64,
}

pub(super) fn why(
    store: &Store,
    collector: &dyn Collector,
    path: &StorePathHash,
) -> Result<Option<Why>> {
    store.flush_uses()?;
    let catalogue = Catalogue::read(store, unix_now_s())?;
    let Some(number) = catalogue.number(path) else { return Ok(None) };
    let mut keepers = Vec::new();
    for pin in pin::valid(store)? {
        if let PinTarget::Path(pinned) = &pin.target
            && let Some(pinned) = catalogue.number(pinned.hash())
            && let Some(way) = way(&catalogue, pinned, number)
        {
            keepers.push(Keeper::Pin { name: pin.name, path: names(&catalogue, &way) });
        }
    }
    let referrers: Vec<_> = catalogue.referrers(number).collect();
    let name = |path: &PathNumber| catalogue.paths[*path].store_path.clone();
    keepers.extend(referrers.iter().map(|referrer| Keeper::Referrer(name(referrer))));
    let referrers_used_unix_s = all_referrers(&catalogue, number)
        .into_iter()
        .map(|path| catalogue.paths[path].used_unix_s)
        .max();
    let (own_bytes, closure_bytes) = weigh(store, collector, &catalogue, number)?;
    let this = &catalogue.paths[number];
    Ok(Some(Why {
        store_path: this.store_path.clone(),
        keepers,
        used_unix_s: this.used_unix_s,
        referrers_used_unix_s,
        own_bytes,
        closure_bytes,
    }))
}

fn names(catalogue: &Catalogue, paths: &[PathNumber]) -> Vec<StorePath> {
    paths.iter().map(|path| catalogue.paths[*path].store_path.clone()).collect()
}

/// The shortest way along references from one path to another.
fn way(catalogue: &Catalogue, from: PathNumber, to: PathNumber) -> Option<Vec<PathNumber>> {
    let mut came_from = vec![None; catalogue.paths.len()];
    let mut seen = catalogue.nothing();
    seen[from] = true;
    let mut queue = std::collections::VecDeque::from([from]);
    while let Some(path) = queue.pop_front() {
        if path == to {
            let mut way = vec![to];
            while let Some(before) = way.last().and_then(|last: &PathNumber| came_from[*last]) {
                way.push(before);
            }
            way.reverse();
            return Some(way);
        }
        for reference in &catalogue.paths[path].references {
            if !std::mem::replace(&mut seen[*reference], true) {
                came_from[*reference] = Some(path);
                queue.push_back(*reference);
            }
        }
    }
    None
}

/// Whatever refers to a path, at some distance.
fn all_referrers(catalogue: &Catalogue, path: PathNumber) -> Vec<PathNumber> {
    let mut referrers: Vec<Vec<PathNumber>> = vec![Vec::new(); catalogue.paths.len()];
    for (number, other) in catalogue.paths.iter().enumerate() {
        for reference in &other.references {
            referrers[*reference].push(number);
        }
    }
    let mut seen = catalogue.nothing();
    seen[path] = true;
    let (mut found, mut next) = (vec![path], 0);
    while let Some(path) = found.get(next).copied() {
        next += 1;
        for referrer in &referrers[path] {
            if !std::mem::replace(&mut seen[*referrer], true) {
                found.push(*referrer);
            }
        }
    }
    found.remove(0);
    found
}

/// What a path alone needs, and what it needs with what only it keeps.
fn weigh(
    store: &Store,
    collector: &dyn Collector,
    catalogue: &Catalogue,
    path: PathNumber,
) -> Result<(u64, u64)> {
    let mut closure = catalogue.nothing();
    let members = catalogue.add_closure(path, &mut closure);
    let mut needed = catalogue.nothing();
    for (number, _) in closure.iter().enumerate().filter(|(_, is_below)| !**is_below) {
        catalogue.add_closure(number, &mut needed);
    }
    needed[path] = false;
    let mut collection = collector.begin_collection(CollectionKind::Survey)?;
    for (number, other) in catalogue.paths.iter().enumerate() {
        if (needed[number] || !closure[number])
            && let Some(root) = &other.root
        {
            keep_what_can_be_read(&mut *collection, root)?;
        }
    }
    for pin in pin::valid(store)? {
        if let PinTarget::Root(root) = &pin.target {
            keep_what_can_be_read(&mut *collection, root)?;
        }
    }
    let mut weigh = |path: PathNumber| match &catalogue.paths[path].root {
        Some(root) => collection.weigh(root),
        None => Ok(0),
    };
    // Itself last: what it shares with what only it keeps is theirs.
    let mut closure_bytes = 0;
    for member in members.into_iter().filter(|member| *member != path && !needed[*member]) {
        closure_bytes += weigh(member)?;
    }
    let own_bytes = weigh(path)?;
    Ok((own_bytes, closure_bytes + own_bytes))
}

/// Damage elsewhere makes the figures a little too large, and is no reason to say nothing.
fn keep_what_can_be_read(collection: &mut dyn Collection, root: &Root) -> Result<()> {
    match collection.keep(root) {
        Ok(_) | Err(Error::Corrupt(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

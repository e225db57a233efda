//! Deleting paths that somebody names.

use std::collections::HashSet;

use granary_castore::{Error, Result, Root};
use granary_nix_formats::{StorePath, StorePathHash};

use super::{
    catalogue::{Catalogue, PathNumber},
    collect::{record_removal, removal},
    pin::{self, PinTarget},
};
use crate::{Store, kinds, upload, uses::unix_now_s};

/// Records that are read, or paths deleted, at a time.
const PAGE: usize = 1_000;

/// Referrers that are named when a path cannot be deleted.
const NAMED_REFERRERS: usize = 3;

/// How paths are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeleteOptions {
    /// What they refer to goes too, as far as nothing else keeps it.
    pub closure: bool,
    /// Although something refers to them, or they are pinned.
    pub force: bool,
}

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deleted {
    /// The paths that went, each before what it refers to.
    pub paths: Vec<StorePath>,
    /// What was in the closure and stays, since something else keeps it.
    pub kept: Vec<StorePath>,
}

pub(super) fn delete(
    store: &Store,
    paths: &[StorePathHash],
    options: DeleteOptions,
) -> Result<Deleted> {
    let catalogue = Catalogue::read(store, unix_now_s())?;
    let asked: Vec<_> = paths
        .iter()
        .map(|hash| {
            catalogue
                .number(hash)
                .ok_or_else(|| Error::invalid(format!("no path {hash} is in the store")))
        })
        .collect::<Result<_>>()?;
    let mut goes = catalogue.nothing();
    for path in &asked {
        goes[*path] = true;
    }
    let mut kept = Vec::new();
    if options.closure {
        kept = add_unneeded(store, &catalogue, &asked, &mut goes)?;
    }
    if !options.force {
        check_unneeded(store, &catalogue, &asked, &goes)?;
    }
    let going: Vec<_> = (0..goes.len()).filter(|path| goes[*path]).collect();
    let order = catalogue.referrers_first(&going);
    remove(store, &catalogue, &order, &goes)?;
    let name = |path: PathNumber| catalogue.paths[path].store_path.clone();
    Ok(Deleted {
        paths: order.into_iter().map(name).collect(),
        kept: kept.into_iter().map(name).collect(),
    })
}

/// Adds what the paths refer to and nothing else needs. Returns what of it is needed.
fn add_unneeded(
    store: &Store,
    catalogue: &Catalogue,
    asked: &[PathNumber],
    goes: &mut [bool],
) -> Result<Vec<PathNumber>> {
    let mut closure = catalogue.nothing();
    let mut members = Vec::new();
    for path in asked {
        members.extend(catalogue.add_closure(*path, &mut closure));
    }
    // Whatever is kept by a path outside of the closure, or by a pin, stays with all below it.
    let mut needed = catalogue.nothing();
    for (number, path) in catalogue.paths.iter().enumerate() {
        if !closure[number] {
            for reference in &path.references {
                catalogue.add_closure(*reference, &mut needed);
            }
        }
    }
    for pin in pin::valid(store)? {
        if let PinTarget::Path(path) = &pin.target
            && let Some(path) = catalogue.number(path.hash())
        {
            catalogue.add_closure(path, &mut needed);
        }
    }
    for member in &members {
        goes[*member] |= !needed[*member];
    }
    members.retain(|member| !goes[*member]);
    Ok(members)
}

/// Fails if something that stays needs what goes.
fn check_unneeded(
    store: &Store,
    catalogue: &Catalogue,
    asked: &[PathNumber],
    goes: &[bool],
) -> Result<()> {
    for path in asked {
        let name = &catalogue.paths[*path].store_path;
        let referrers: Vec<_> = catalogue
            .referrers(*path)
            .filter(|referrer| !goes[*referrer])
            .map(|referrer| catalogue.paths[referrer].store_path.to_string())
            .collect();
        if !referrers.is_empty() {
            let more = referrers.len().saturating_sub(NAMED_REFERRERS);
            let named = referrers[..referrers.len() - more].join(", ");
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(Error::invalid(format!(
                "{name} cannot be deleted: {named}{more} refer to it; delete them too, or \
                 use --force"
            )));
        }
    }
    for pin in pin::valid(store)? {
        let PinTarget::Path(pinned) = &pin.target else { continue };
        let Some(number) = catalogue.number(pinned.hash()) else { continue };
        let mut closure = catalogue.nothing();
        let closure = catalogue.add_closure(number, &mut closure);
        if let Some(path) = closure.into_iter().find(|path| goes[*path]) {
            let name = &catalogue.paths[path].store_path;
            return Err(Error::invalid(format!(
                "{name} cannot be deleted: the pin {:?} keeps it; remove that, or use --force",
                pin.name
            )));
        }
    }
    Ok(())
}

fn remove(store: &Store, catalogue: &Catalogue, order: &[PathNumber], goes: &[bool]) -> Result<()> {
    for paths in order.chunks(PAGE) {
        let hashes: Vec<_> =
            paths.iter().map(|path| *catalogue.paths[*path].store_path.hash()).collect();
        let _removing = store.removing();
        // Whoever asks for them from now on does not find them.
        store.uses().begin_removal(&hashes);
        let writes = paths.iter().flat_map(|path| removal(&catalogue.paths[*path])).collect();
        let removed = store.records().write_records(writes);
        store.uses().end_removal();
        removed?;
    }
    // What was uploaded for them must not keep their contents for a day.
    let stays = catalogue.paths.iter().zip(goes).filter(|(_, goes)| !**goes);
    let stays: HashSet<_> = stays.filter_map(|(path, _)| path.root).collect();
    let gone: HashSet<_> = order.iter().filter_map(|path| catalogue.paths[*path].root).collect();
    remove_uploads(store, |root| gone.contains(root) && !stays.contains(root))
}

fn remove_uploads(store: &Store, is_gone: impl Fn(&Root) -> bool) -> Result<()> {
    let mut after: Option<bytes::Bytes> = None;
    loop {
        let _removing = store.removing();
        let page = store.records().scan_records(kinds::UPLOADED_NAR, after.as_deref(), PAGE)?;
        let mut removals = Vec::new();
        for (key, value) in &page {
            let uploaded = upload::decode_record(key, value)?;
            if Root::of(&uploaded.node).is_some_and(|root| is_gone(&root)) {
                removals.push(record_removal(kinds::UPLOADED_NAR, key));
            }
        }
        if !removals.is_empty() {
            store.records().write_records(removals)?;
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => after = Some(key.clone()),
            _ => return Ok(()),
        }
    }
}

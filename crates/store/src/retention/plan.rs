//! Which paths are kept.

use std::time::Duration;

use granary_castore::{Collection, Result, Root};

use super::{
    catalogue::{Catalogue, PathNumber},
    pin::{Pin, PinTarget},
};

/// What is kept and what goes.
pub(super) struct Plan {
    /// By path.
    pub(super) is_kept: Vec<bool>,
    /// Paths that go, each before what it refers to.
    pub(super) evicted: Vec<PathNumber>,
    /// Roots without a path that are pinned.
    pub(super) pinned_roots: Vec<Root>,
}

/// What is wanted.
pub(super) struct Wanted<'a> {
    pub(super) pins: &'a [Pin],
    pub(super) now_unix_s: u64,
    pub(super) keep_for: Duration,
    /// Bytes on disk that all that is kept may take, if there is a limit.
    pub(super) max_bytes: Option<u64>,
}

impl Plan {
    /// Decides, and names the roots of what is kept in `collection`.
    pub(super) fn make(
        catalogue: &Catalogue,
        wanted: &Wanted<'_>,
        collection: &mut dyn Collection,
        marked: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let mut plan =
            Self { is_kept: catalogue.nothing(), evicted: Vec::new(), pinned_roots: Vec::new() };
        let mut kept_bytes = 0;
        let total = catalogue.paths.len() as u64;
        let mut done = 0;
        let mut keep = |path: PathNumber,
                        is_kept: &mut [bool],
                        collection: &mut dyn Collection|
         -> Result<u64> {
            let mut bytes = 0;
            for path in catalogue.add_closure(path, is_kept) {
                if let Some(root) = &catalogue.paths[path].root {
                    bytes += collection.keep(root).map_err(|error| {
                        error.while_doing(format!(
                            "{} is kept, and not all of it can be read; `granary verify` says \
                             what is damaged",
                            catalogue.paths[path].store_path
                        ))
                    })?;
                }
                done += 1;
                marked(done, total);
            }
            Ok(bytes)
        };
        for pin in wanted.pins {
            match &pin.target {
                PinTarget::Path(path) => {
                    if let Some(path) = catalogue.number(path.hash()) {
                        kept_bytes += keep(path, &mut plan.is_kept, collection)?;
                    }
                }
                PinTarget::Root(root) => {
                    kept_bytes += collection.keep(root)?;
                    plan.pinned_roots.push(*root);
                }
            }
        }
        // The last used first; then it is plain what has to go if not all of it fits.
        let oldest = wanted.now_unix_s.saturating_sub(wanted.keep_for.as_secs());
        let mut used: Vec<_> = (0..catalogue.paths.len())
            .filter(|path| catalogue.paths[*path].used_unix_s > oldest)
            .collect();
        used.sort_by_key(|path| std::cmp::Reverse(catalogue.paths[*path].used_unix_s));
        for path in used {
            if plan.is_kept[path] {
                continue;
            }
            if let Some(max_bytes) = wanted.max_bytes {
                let more_bytes = weigh(catalogue, path, &mut plan.is_kept, collection)?;
                if kept_bytes + more_bytes > max_bytes {
                    // A smaller one that was used earlier would not be the least recently used.
                    break;
                }
            }
            kept_bytes += keep(path, &mut plan.is_kept, collection)?;
        }
        let evicted: Vec<_> =
            (0..catalogue.paths.len()).filter(|path| !plan.is_kept[*path]).collect();
        plan.evicted = catalogue.referrers_first(&evicted);
        Ok(plan)
    }
}

/// What keeping a path, with all that it refers to, would take; `is_kept` is as before then.
fn weigh(
    catalogue: &Catalogue,
    path: PathNumber,
    is_kept: &mut [bool],
    collection: &mut dyn Collection,
) -> Result<u64> {
    let added = catalogue.add_closure(path, is_kept);
    for path in &added {
        is_kept[*path] = false;
    }
    let mut bytes = 0;
    for path in added {
        if let Some(root) = &catalogue.paths[path].root {
            bytes += collection.weigh(root)?;
        }
    }
    Ok(bytes)
}

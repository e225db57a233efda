//! Which documents belong to paths that are kept.

use std::collections::HashSet;

use granary_nix_formats::StorePath;

use super::{catalogue::Catalogue, plan::Plan};
use crate::document;

/// The paths that are kept, as far as documents belong to them.
pub(super) struct KeptPaths {
    /// Base names of derivers.
    derivers: HashSet<String>,
    /// Hash parts, as text.
    hashes: HashSet<String>,
}

impl KeptPaths {
    pub(super) fn new(catalogue: &Catalogue, plan: &Plan) -> Self {
        let kept = catalogue.paths.iter().zip(&plan.is_kept);
        let kept = || kept.clone().filter(|(_, is_kept)| **is_kept).map(|(path, _)| path);
        Self {
            derivers: kept()
                .filter_map(|path| path.deriver.as_ref().map(StorePath::base_name))
                .collect(),
            hashes: kept().map(|path| path.store_path.hash().to_string()).collect(),
        }
    }

    /// Logs and listings stay with their paths. The others are small, and nobody knows which
    /// paths they belong to: they stay.
    pub(super) fn wants_document(&self, key: &[u8], is_new: bool) -> bool {
        match document::split_key(key) {
            Some((document::DocumentKind::Listing, name)) => {
                std::str::from_utf8(name).is_ok_and(|hash| self.hashes.contains(hash))
            }
            Some((document::DocumentKind::Log, name)) => {
                is_new || std::str::from_utf8(name).is_ok_and(|name| self.derivers.contains(name))
            }
            _ => true,
        }
    }
}

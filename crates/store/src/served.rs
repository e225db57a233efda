//! What is served to Nix: path infos whose contents are there and match.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use granary_castore::{Chain, Error, Node, Result};
use granary_nix_formats::{
    ContentAddress, NarInfo, Signature, StorePath, StorePathHash, fingerprint,
};

use crate::{
    NarDigest, NarFacts, PathInfo, Provenance, Store, narinfo_upload::check_content_address,
};

/// How many paths are remembered as warned of; then it begins anew, and some are warned of
/// again.
const MAX_WARNED_PATHS: usize = 1_024;

/// A store path whose contents are all here, and have the size and hash that it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedPath {
    /// The store path.
    pub store_path: StorePath,
    /// Root of its contents.
    pub node: Node,
    /// What it refers to, itself possibly included.
    pub references: Vec<StorePath>,
    /// Size and hash of its NAR, verified.
    pub nar: NarDigest,
    /// Those that came with it, and that of this store.
    pub signatures: Vec<Signature>,
    /// The derivation that built it.
    pub deriver: Option<StorePath>,
    /// How its store path follows from its contents, if it does.
    pub ca: Option<ContentAddress>,
}

impl ServedPath {
    /// The narinfo, for a NAR that can be had uncompressed at `url`.
    pub fn narinfo(&self, url: String) -> NarInfo {
        NarInfo {
            store_path: self.store_path.clone(),
            url,
            compression: "none".to_owned(),
            file_hash: Some(self.nar.nar_hash),
            file_size: Some(self.nar.nar_size),
            nar_hash: self.nar.nar_hash,
            nar_size: self.nar.nar_size,
            references: self.references.clone(),
            deriver: self.deriver.clone(),
            system: None,
            signatures: self.signatures.clone(),
            ca: self.ca.clone(),
        }
    }
}

impl Store {
    /// The path of that hash part, if it can be served to Nix: its contents resolve, its
    /// NAR has the size and hash that its path info says, and its references have names.
    /// Where the path info does not say them, they are those of the contents.
    ///
    /// The contents are read once; after that the answer costs two lookups. What cannot be
    /// served because it is wrong, not just incomplete, is warned of in the log.
    ///
    /// # Errors
    ///
    /// If what is stored is damaged, or the store cannot tell.
    pub fn served(&self, hash: &StorePathHash) -> Result<Option<ServedPath>> {
        self.noted_served(hash, &mut Provenance::new())
    }

    /// As [`served`](Self::served), with what the answer was made of: it is the same for as
    /// long as that [is current](Self::is_current).
    ///
    /// Nothing is known of how long a path is *not* served: what its contents lack may come
    /// without any record being written.
    ///
    /// # Errors
    ///
    /// As [`served`](Self::served).
    pub fn served_with_provenance(
        &self,
        hash: &StorePathHash,
    ) -> Result<Option<(ServedPath, Provenance)>> {
        let mut provenance = Provenance::new();
        let served = self.noted_served(hash, &mut provenance)?;
        Ok(served.map(|served| (served, provenance)))
    }

    fn noted_served(
        &self,
        hash: &StorePathHash,
        provenance: &mut Provenance,
    ) -> Result<Option<ServedPath>> {
        // IMPORTANT: before it is looked up. Who is told of a path may rely on it.
        if !self.note_use(hash) {
            return Ok(None);
        }
        let Some(path_info) = self.noted_path_info(hash, provenance)? else {
            self.uses().forget(hash);
            return Ok(None);
        };
        let nar = match self.noted_nar(&path_info.node, provenance) {
            Ok(Some(nar)) => nar,
            Ok(None) => return Ok(None),
            Err(error @ (Error::Invalid(_) | Error::TooLarge(_))) => {
                self.warned.warn(&path_info.store_path, &Chain(&error).to_string());
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if let Some(facts) = &path_info.nar
            && let Err(mismatch) = check_facts(facts, &nar)
        {
            self.warned.warn(&path_info.store_path, &mismatch);
            return Ok(None);
        }
        let Some(references) = self.reference_names(&path_info, provenance)? else {
            return Ok(None);
        };
        let (mut signatures, deriver, ca) = match path_info.nar {
            Some(facts) => (facts.signatures, facts.deriver, facts.ca),
            None => (Vec::new(), None, None),
        };
        if let Some(ca) = &ca
            && let Err(problem) =
                check_content_address(ca, &path_info.store_path, &references, &nar.nar_hash)
        {
            self.warned.warn(&path_info.store_path, &Chain(&problem).to_string());
            return Ok(None);
        }
        if let Some(key) = self.signing_key() {
            // Anybody can put a signature under our name; one that is not ours is noise.
            signatures.retain(|signature| signature.name != key.name());
            let message =
                fingerprint(&path_info.store_path, &nar.nar_hash, nar.nar_size, &references);
            signatures.push(key.sign(message.as_bytes()));
        }
        Ok(Some(ServedPath {
            store_path: path_info.store_path,
            node: path_info.node,
            references,
            nar,
            signatures,
            deriver,
            ca,
        }))
    }

    /// The references of `path_info` by name: those that came with it, else those of the
    /// path infos that are stored. `None` if one is not to be had.
    fn reference_names(
        &self,
        path_info: &PathInfo,
        provenance: &mut Provenance,
    ) -> Result<Option<Vec<StorePath>>> {
        if let Some(facts) = &path_info.nar
            && facts.reference_names.iter().map(StorePath::hash).eq(&path_info.references)
        {
            return Ok(Some(facts.reference_names.clone()));
        }
        let mut names = Vec::with_capacity(path_info.references.len());
        for hash in &path_info.references {
            let name = if hash == path_info.store_path.hash() {
                path_info.store_path.clone()
            } else {
                match self.noted_path_info(hash, provenance)? {
                    Some(reference) => reference.store_path,
                    None => return Ok(None),
                }
            };
            names.push(name);
        }
        Ok(Some(names))
    }
}

/// Whether what a path info says agrees with the contents; else what does not.
pub(crate) fn check_facts(facts: &NarFacts, nar: &NarDigest) -> Result<(), String> {
    let size_is_known = facts.nar_size != 0;
    if size_is_known && facts.nar_size != nar.nar_size {
        return Err(format!(
            "its path info says a NAR of {} bytes, and its contents have one of {}",
            facts.nar_size, nar.nar_size
        ));
    }
    // Who does not know the size may not know the hash either, and then sends zeros.
    let hash_is_known = size_is_known || *facts.nar_hash.as_bytes() != [0; 32];
    if hash_is_known && facts.nar_hash != nar.nar_hash {
        return Err(format!(
            "its path info says a NAR with hash {}, and its contents have one with {}",
            facts.nar_hash, nar.nar_hash
        ));
    }
    Ok(())
}

/// The paths that were warned of, so that each request does not warn again.
#[derive(Debug, Default)]
pub(crate) struct WarnedPaths(Mutex<HashSet<StorePathHash>>);

impl WarnedPaths {
    fn warn(&self, path: &StorePath, why: &str) {
        if self.is_new(path.hash()) {
            tracing::warn!(%path, "not served to Nix: {why}; upload the path again to replace it");
        }
    }

    fn is_new(&self, hash: &StorePathHash) -> bool {
        let mut warned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() == MAX_WARNED_PATHS && !warned.contains(hash) {
            warned.clear();
        }
        warned.insert(*hash)
    }
}

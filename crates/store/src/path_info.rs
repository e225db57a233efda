//! Path infos: what is known of a store path, and the service that keeps them.

use granary_castore::{Node, Result};
use granary_nix_formats::{ContentAddress, NarHash, Signature, StorePath, StorePathHash};

/// What is known of one store path. This is the wire's `PathInfo`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The store path.
    pub store_path: StorePath,
    /// Root of its contents.
    pub node: Node,
    /// Hash parts of the store paths that its contents refer to, itself possibly among them.
    pub references: Vec<StorePathHash>,
    /// What Nix knows of it. Some clients leave it out.
    pub nar: Option<NarFacts>,
}

/// The part of a path info that goes into a narinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarFacts {
    /// Length of the NAR in bytes, 0 if whoever put it did not know.
    pub nar_size: u64,
    /// SHA-256 of the NAR. Claimed by whoever put it; verified before it is served to Nix.
    pub nar_hash: NarHash,
    /// Signatures over the fingerprint.
    pub signatures: Vec<Signature>,
    /// The references by name, in the order of [`PathInfo::references`].
    pub reference_names: Vec<StorePath>,
    /// The derivation that built it, its name ending in `.drv`.
    pub deriver: Option<StorePath>,
    /// How its store path follows from its contents, if it does.
    pub ca: Option<ContentAddress>,
}

/// Size and hash of a NAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NarDigest {
    /// Length in bytes.
    pub nar_size: u64,
    /// SHA-256.
    pub nar_hash: NarHash,
}

/// Keeps path infos, by the hash part of their store path.
pub trait PathInfoService: Send + Sync {
    /// The path info of `hash`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If the store cannot tell.
    fn path_info(&self, hash: &StorePathHash) -> Result<Option<PathInfo>>;

    /// Keeps `path_info` in the place of an older one, and returns it as it is kept, once
    /// it is durable. Its contents and references need not be there.
    ///
    /// # Errors
    ///
    /// If it could not be made durable.
    fn put_path_info(&self, path_info: PathInfo) -> Result<PathInfo>;

    /// All path infos, by hash part.
    fn path_infos(&self) -> Box<dyn Iterator<Item = Result<PathInfo>> + Send + '_>;

    /// Up to `limit` path infos by hash part, beginning behind `after`, or with the first.
    /// Fewer than `limit` means that there are no more.
    ///
    /// For who cannot hold an iterator open; a store should do better than to begin anew.
    ///
    /// # Errors
    ///
    /// If the store cannot tell.
    fn path_infos_after(
        &self,
        after: Option<&StorePathHash>,
        limit: usize,
    ) -> Result<Vec<PathInfo>> {
        let behind =
            |path_info: &PathInfo| after.is_none_or(|hash| path_info.store_path.hash() > hash);
        self.path_infos()
            .filter(|path_info| path_info.as_ref().map_or(true, behind))
            .take(limit)
            .collect()
    }

    /// Size and hash of the NAR of `node`, remembered by the node's digest; `None` if not
    /// all of its contents are stored.
    ///
    /// # Errors
    ///
    /// If what is stored is damaged, or the store cannot tell.
    fn calculate_nar(&self, node: &Node) -> Result<Option<NarDigest>>;
}

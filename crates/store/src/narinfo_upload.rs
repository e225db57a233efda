//! Narinfos that are uploaded: what they must be to become a path info.

use granary_castore::{Error, Node, Result};
use granary_nix_formats::{
    ContentAddress, HashAlgorithm, NarHash, NarInfo, StorePath, StorePathError, StorePathHash,
};

use crate::{NarDigest, NarFacts, PathInfo, PathInfoService, Store};

/// Why a narinfo is refused. Each says what the client can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NarInfoRejection {
    /// Its URL is that of no NAR here.
    #[error("URL {url:?} of {path} names no NAR that was uploaded here: upload the NAR first")]
    UnknownNar {
        /// The store path.
        path: StorePath,
        /// The URL.
        url: String,
    },
    /// The NAR has another hash or size than the narinfo says.
    #[error(
        "the narinfo of {path} says NarHash {claimed_hash} and NarSize {claimed_size}, but the NAR at its URL has {actual_hash} and {actual_size}"
    )]
    NarMismatch {
        /// The store path.
        path: StorePath,
        /// The hash in the narinfo.
        claimed_hash: String,
        /// The size in the narinfo.
        claimed_size: u64,
        /// The hash of the NAR.
        actual_hash: String,
        /// The size of the NAR.
        actual_size: u64,
    },
    /// A reference is not stored here.
    #[error(
        "{path} refers to {missing}, which is not stored here: upload it first; if the client believes that it is here, its cache is out of date: repeat with --refresh"
    )]
    MissingReference {
        /// The store path.
        path: StorePath,
        /// The first of its references that has no path info.
        missing: StorePath,
    },
    /// The content address is that of another path.
    #[error("CA {ca} of the narinfo gives the store path {expected}, and not {path}")]
    WrongContentAddress {
        /// The store path.
        path: StorePath,
        /// The content address.
        ca: String,
        /// The path that follows from it.
        expected: StorePath,
    },
    /// The content address is not that of the contents.
    #[error(
        "CA {ca} of the narinfo of {path} is not the hash of the contents, which is {actual_hash}"
    )]
    WrongContents {
        /// The store path.
        path: StorePath,
        /// The content address.
        ca: String,
        /// The hash of the NAR.
        actual_hash: String,
    },
    /// No path can have such a content address.
    #[error("CA {ca} of the narinfo of {path} cannot be")]
    BadContentAddress {
        /// The store path.
        path: StorePath,
        /// The content address.
        ca: String,
        /// Why not.
        #[source]
        cause: Box<StorePathError>,
    },
    /// The store failed; the narinfo may be right.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Store {
    /// Checks an uploaded narinfo and keeps it as a path info, which is returned once it is
    /// durable.
    ///
    /// Its URL must be `nar/<name>` of an uploaded NAR; or, if it is one that names a castore
    /// node, `castore_node` is that node. That NAR must have the size and hash of the
    /// narinfo, all references but the path itself must have path infos here, and a content
    /// address must be that of the path. Signatures are kept as they are.
    ///
    /// # Errors
    ///
    /// If one of this is not so, or the store fails; nothing is kept then.
    pub fn put_narinfo(
        &self,
        narinfo: &NarInfo,
        castore_node: Option<&Node>,
    ) -> Result<PathInfo, NarInfoRejection> {
        // IMPORTANT: before anything is looked at, so that it cannot go in between.
        let _hold = self.castore().hold();
        let path = &narinfo.store_path;
        let contents = match castore_node {
            Some(node) if !self.touch_node(node)? => None,
            Some(node) => self.calculate_nar(node)?.map(|nar| (node.clone(), nar)),
            None => self.uploaded_contents(&narinfo.url)?,
        };
        let (node, nar) = contents.ok_or_else(|| NarInfoRejection::UnknownNar {
            path: path.clone(),
            url: narinfo.url.clone(),
        })?;
        if narinfo.nar_hash != nar.nar_hash || narinfo.nar_size != nar.nar_size {
            return Err(NarInfoRejection::NarMismatch {
                path: path.clone(),
                claimed_hash: narinfo.nar_hash.to_string(),
                claimed_size: narinfo.nar_size,
                actual_hash: nar.nar_hash.to_string(),
                actual_size: nar.nar_size,
            });
        }
        if let Some(ca) = &narinfo.ca {
            let NarInfo { store_path, references, nar_hash, .. } = narinfo;
            check_content_address(ca, store_path, references, nar_hash)?;
        }
        let _writing = self.writing();
        for reference in narinfo.references.iter().filter(|reference| *reference != path) {
            if !self.has_path(reference)? {
                return Err(NarInfoRejection::MissingReference {
                    path: path.clone(),
                    missing: reference.clone(),
                });
            }
        }
        let path_info = path_info_of(narinfo, node, nar);
        self.write_path_info(&path_info, None)?;
        Ok(path_info)
    }

    /// The contents of the uploaded NAR at `url`, if they live.
    fn uploaded_contents(&self, url: &str) -> Result<Option<(Node, NarDigest)>> {
        let Some(name) = url.strip_prefix("nar/") else { return Ok(None) };
        let Some(uploaded) = self.uploaded_nar(name)? else { return Ok(None) };
        let lives = self.touch_node(&uploaded.node)?;
        Ok(lives.then_some((uploaded.node, uploaded.nar)))
    }

    /// Whether that very path, not just one with its hash part, has a path info.
    /// It stays, then: this counts as a use.
    fn has_path(&self, path: &StorePath) -> Result<bool> {
        Ok(self.note_use(path.hash())
            && self.path_info(path.hash())?.is_some_and(|found| found.store_path == *path))
    }
}

fn path_info_of(narinfo: &NarInfo, node: Node, nar: NarDigest) -> PathInfo {
    let references: Vec<StorePathHash> =
        narinfo.references.iter().map(|reference| *reference.hash()).collect();
    PathInfo {
        store_path: narinfo.store_path.clone(),
        node,
        references,
        nar: Some(NarFacts {
            nar_size: nar.nar_size,
            nar_hash: nar.nar_hash,
            signatures: narinfo.signatures.clone(),
            reference_names: narinfo.references.clone(),
            deriver: narinfo.deriver.clone(),
            ca: narinfo.ca.clone(),
        }),
    }
}

/// Checks that the path follows from its content address; and where that is the hash of
/// the NAR itself, which costs nothing here, that the contents have it.
pub(crate) fn check_content_address(
    ca: &ContentAddress,
    path: &StorePath,
    references: &[StorePath],
    nar_hash: &NarHash,
) -> Result<(), NarInfoRejection> {
    let (to_itself, others): (Vec<_>, Vec<_>) =
        references.iter().cloned().partition(|reference| reference == path);
    let refers_to_itself = !to_itself.is_empty();
    let expected = ca.store_path(path.name(), &others, refers_to_itself).map_err(|cause| {
        NarInfoRejection::BadContentAddress {
            path: path.clone(),
            ca: ca.to_string(),
            cause: Box::new(cause),
        }
    })?;
    if expected != *path {
        let (path, ca) = (path.clone(), ca.to_string());
        return Err(NarInfoRejection::WrongContentAddress { path, ca, expected });
    }
    if let ContentAddress::Fixed { recursive: true, algorithm: HashAlgorithm::Sha256, digest } = ca
        && !refers_to_itself
        && digest != nar_hash.as_bytes()
    {
        return Err(NarInfoRejection::WrongContents {
            path: path.clone(),
            ca: ca.to_string(),
            actual_hash: nar_hash.to_string(),
        });
    }
    Ok(())
}

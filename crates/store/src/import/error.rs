//! Why an import failed.

use std::{
    io,
    path::{Path, PathBuf},
};

use granary_castore::Error;
use granary_nix_formats::{StorePathError, nar};

/// Why a tree of the file system could not be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file system refused.
    #[error("cannot {action} {path:?}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something that a store cannot hold.
    #[error("{path:?} is {kind}: only files, directories and symlinks can be imported")]
    Unsupported {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Something else wrote to it meanwhile.
    #[error("{path:?} changed while it was read: try again when nothing writes to it")]
    Changed {
        /// Where it is.
        path: PathBuf,
    },
    /// A directory with more entries than [`MAX_OPEN_ENTRIES`](crate::MAX_OPEN_ENTRIES).
    #[error("directory {path:?} has more than {} entries, the limit", crate::MAX_OPEN_ENTRIES)]
    TooManyEntries {
        /// Where it is.
        path: PathBuf,
    },
    /// The tree has no NAR: it is nested too deep, or a file is too large.
    #[error("the tree has no NAR")]
    Nar(#[from] nar::Error),
    /// The path has no last name that is UTF-8, as a store path must.
    #[error("{path:?} has no name that a store path can have: choose one")]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// Nix does not allow the name.
    #[error("the name cannot be that of a store path")]
    Name(#[source] StorePathError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl ImportError {
    pub(super) fn file(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::File { action, path: path.to_owned(), source: source.into() }
    }
}

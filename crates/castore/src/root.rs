//! What something keeps: the root of a tree, or a single blob.

use crate::{
    digest::{BlobDigest, DirectoryDigest},
    node::Node,
};

/// A blob or a directory that is wanted, and with it everything that it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Root {
    /// A blob, or a chunk of one.
    Blob(BlobDigest),
    /// A directory and all that is below it.
    Directory(DirectoryDigest),
}

impl Root {
    /// What `node` needs in a store; `None` for a symlink, which holds all that it is.
    pub const fn of(node: &Node) -> Option<Self> {
        match node {
            Node::Directory { digest, .. } => Some(Self::Directory(*digest)),
            Node::File { digest, .. } => Some(Self::Blob(*digest)),
            Node::Symlink { .. } => None,
        }
    }
}

impl std::fmt::Display for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blob(digest) => write!(f, "blob {digest}"),
            Self::Directory(digest) => write!(f, "directory {digest}"),
        }
    }
}

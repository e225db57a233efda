//! Nodes inside record values, and the key that identifies one.

use granary_castore::{BlobDigest, DIGEST_BYTES, DirectoryDigest, Node, Root, SymlinkTarget};
use serde::{Deserialize, Serialize};

use crate::record_value::base64;

/// A node as records hold it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NodeRecord {
    Directory {
        #[serde(with = "base64")]
        digest: [u8; DIGEST_BYTES],
        size: u64,
    },
    File {
        #[serde(with = "base64")]
        digest: [u8; DIGEST_BYTES],
        size: u64,
        executable: bool,
    },
    Symlink {
        #[serde(with = "base64")]
        target: Vec<u8>,
    },
}

impl From<&Node> for NodeRecord {
    fn from(node: &Node) -> Self {
        match node {
            Node::Directory { digest, size } => {
                Self::Directory { digest: *digest.as_bytes(), size: *size }
            }
            Node::File { digest, size_bytes, executable } => Self::File {
                digest: *digest.as_bytes(),
                size: *size_bytes,
                executable: *executable,
            },
            Node::Symlink { target } => Self::Symlink { target: target.as_bytes().to_vec() },
        }
    }
}

impl NodeRecord {
    /// The node, if its target keeps the rules.
    pub(crate) fn check(self) -> Option<Node> {
        Some(match self {
            Self::Directory { digest, size } => {
                Node::Directory { digest: DirectoryDigest::from_bytes(digest), size }
            }
            Self::File { digest, size, executable } => {
                Node::File { digest: BlobDigest::from_bytes(digest), size_bytes: size, executable }
            }
            Self::Symlink { target } => Node::Symlink { target: SymlinkTarget::new(target).ok()? },
        })
    }
}

/// Length of a [`NodeKey`] in bytes.
const NODE_KEY_BYTES: usize = 1 + DIGEST_BYTES + 8;

/// What identifies a directory or a file: everything that decides about its NAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeKey([u8; NODE_KEY_BYTES]);

impl NodeKey {
    /// What the node with this key needs; `None` if it is no key.
    pub(crate) fn root_of(key: &[u8]) -> Option<Root> {
        let key: &[u8; NODE_KEY_BYTES] = key.try_into().ok()?;
        let digest: [u8; DIGEST_BYTES] = key[1..=DIGEST_BYTES].try_into().ok()?;
        match key[0] {
            b'd' => Some(Root::Directory(DirectoryDigest::from_bytes(digest))),
            b'f' | b'x' => Some(Root::Blob(BlobDigest::from_bytes(digest))),
            _ => None,
        }
    }

    /// The key of `node`; `None` for a symlink, whose NAR costs nothing to make.
    pub(crate) fn of(node: &Node) -> Option<Self> {
        let (tag, digest, size) = match node {
            Node::Directory { digest, size } => (b'd', digest.as_bytes(), *size),
            Node::File { digest, size_bytes, executable } => {
                (if *executable { b'x' } else { b'f' }, digest.as_bytes(), *size_bytes)
            }
            Node::Symlink { .. } => return None,
        };
        let mut key = [tag; NODE_KEY_BYTES];
        key[1..=DIGEST_BYTES].copy_from_slice(digest);
        key[1 + DIGEST_BYTES..].copy_from_slice(&size.to_le_bytes());
        Some(Self(key))
    }

    pub(crate) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_makes_another_key() {
        let digest = [7; DIGEST_BYTES];
        let file = |byte, size_bytes, executable| Node::File {
            digest: BlobDigest::from_bytes([byte; DIGEST_BYTES]),
            size_bytes,
            executable,
        };
        let directory =
            |size| Node::Directory { digest: DirectoryDigest::from_bytes(digest), size };
        let nodes = [
            file(7, 1, false),
            file(7, 1, true),
            file(7, 2, false),
            file(8, 1, false),
            directory(1),
            directory(2),
        ];
        let keys: std::collections::BTreeSet<_> = nodes.iter().map(NodeKey::of).collect();
        assert_eq!(keys.len(), nodes.len());
        let target = SymlinkTarget::new(&b"t"[..]).expect("valid");
        assert_eq!(NodeKey::of(&Node::Symlink { target }), None);
    }
}

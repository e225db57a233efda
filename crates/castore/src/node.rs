//! Nodes and their names.

use std::fmt;

use bytes::Bytes;

use crate::digest::{BlobDigest, DirectoryDigest};

/// Longest name of a directory entry, in bytes (Linux's `NAME_MAX`).
pub const MAX_NAME_BYTES: usize = 255;

/// Longest target of a symlink, in bytes (Linux's `PATH_MAX` without the NUL).
pub const MAX_TARGET_BYTES: usize = 4095;

/// One thing in a tree: what a directory entry or a path info points to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    /// A directory.
    Directory {
        /// Digest of its canonical encoding.
        digest: DirectoryDigest,
        /// [`Directory::size`](crate::Directory::size) of it: entries below it, itself not
        /// counted.
        size: u64,
    },
    /// A regular file.
    File {
        /// Digest of its contents.
        digest: BlobDigest,
        /// Length of its contents in bytes.
        size_bytes: u64,
        /// Whether the owner may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, unresolved.
        target: SymlinkTarget,
    },
}

/// The name of a directory entry: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Bytes);

/// Why bytes are no [`NodeName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeNameError {
    /// It has no bytes.
    #[error("a name may not be empty")]
    Empty,
    /// It passes [`MAX_NAME_BYTES`].
    #[error("a name has at most {MAX_NAME_BYTES} bytes, this one {0}")]
    TooLong(usize),
    /// It has a `/` or a NUL, or is `.` or `..`.
    #[error("{0:?} may not be a name: it is \".\" or \"..\" or has a '/' or a NUL in it")]
    Forbidden(String),
}

impl NodeName {
    /// Checks `name`.
    ///
    /// # Errors
    ///
    /// If it breaks one of the rules above.
    pub fn new(name: impl Into<Bytes>) -> Result<Self, NodeNameError> {
        let name = name.into();
        if name.is_empty() {
            return Err(NodeNameError::Empty);
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(NodeNameError::TooLong(name.len()));
        }
        if &*name == b"." || &*name == b".." || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(NodeNameError::Forbidden(String::from_utf8_lossy(&name).into_owned()));
        }
        Ok(Self(name))
    }

    /// The bytes of the name; they need not be UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// The target of a symlink: 1 to 4095 bytes, no NUL.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SymlinkTarget(Bytes);

/// Why bytes are no [`SymlinkTarget`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SymlinkTargetError {
    /// It has no bytes.
    #[error("a symlink target may not be empty")]
    Empty,
    /// It passes [`MAX_TARGET_BYTES`].
    #[error("a symlink target has at most {MAX_TARGET_BYTES} bytes, this one {0}")]
    TooLong(usize),
    /// It has a NUL.
    #[error("a symlink target may not have a NUL in it")]
    Nul,
}

impl SymlinkTarget {
    /// Checks `target`.
    ///
    /// # Errors
    ///
    /// If it breaks one of the rules above.
    pub fn new(target: impl Into<Bytes>) -> Result<Self, SymlinkTargetError> {
        let target = target.into();
        if target.is_empty() {
            return Err(SymlinkTargetError::Empty);
        }
        if target.len() > MAX_TARGET_BYTES {
            return Err(SymlinkTargetError::TooLong(target.len()));
        }
        if target.contains(&0) {
            return Err(SymlinkTargetError::Nul);
        }
        Ok(Self(target))
    }

    /// The bytes of the target; they need not be UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for SymlinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for SymlinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in [&b"a"[..], b"...", b"..a", b"\xff\xfe", b"a b\n", &[b'x'; 255]] {
            assert!(NodeName::new(good.to_vec()).is_ok(), "{good:?}");
        }
        assert_eq!(NodeName::new(Bytes::new()), Err(NodeNameError::Empty));
        assert_eq!(NodeName::new(vec![b'x'; 256]), Err(NodeNameError::TooLong(256)));
        for bad in [&b"."[..], b"..", b"a/b", b"/", b"a\0"] {
            assert!(
                matches!(NodeName::new(bad.to_vec()), Err(NodeNameError::Forbidden(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn targets() {
        for good in [&b"a"[..], b"/", b"../x", b"\xff", &[b'x'; 4095]] {
            assert!(SymlinkTarget::new(good.to_vec()).is_ok(), "{good:?}");
        }
        assert_eq!(SymlinkTarget::new(Bytes::new()), Err(SymlinkTargetError::Empty));
        assert_eq!(SymlinkTarget::new(vec![b'x'; 4096]), Err(SymlinkTargetError::TooLong(4096)));
        assert_eq!(SymlinkTarget::new(&b"a\0b"[..]), Err(SymlinkTargetError::Nul));
    }
}

//! What is said of the integrity of a store, whoever checks it.

use std::fmt;

use crate::digest::{BlobDigest, DIGEST_BYTES};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; nothing is wrong with what is stored.
    Info,
    /// Not as it should be; everything that was acknowledged is served all the same.
    Warning,
    /// Damage: something that was acknowledged is not there, or not what it was.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// What sort of thing a store keeps under a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectType {
    /// The list of the pieces of a blob of several chunks.
    Blob,
    /// A piece of a blob, or a whole small one.
    Chunk,
    /// A part of a long list of chunks.
    ChunkList,
    /// What chunks are made of by putting hashes back.
    Base,
    /// A directory.
    Directory,
}

impl ObjectType {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Blob, Self::Chunk, Self::ChunkList, Self::Base, Self::Directory];

    /// Its name: one word, for people and for JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Chunk => "chunk",
            Self::ChunkList => "chunk-list",
            Self::Base => "base",
            Self::Directory => "directory",
        }
    }
}

/// Something that a store keeps under a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// What it is.
    pub kind: ObjectType,
    /// Its digest.
    pub digest: [u8; DIGEST_BYTES],
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), BlobDigest::from_bytes(self.digest))
    }
}

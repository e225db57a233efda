//! The content-addressed model of Granary and the traits of whatever stores it.
//!
//! A [`Node`] is a directory, a file or a symlink. A file's contents are a *blob*, named by
//! the BLAKE3 of its bytes; a [`Directory`] is a sorted list of named nodes, named by the
//! BLAKE3 of its canonical encoding. How a store divides, packs or compresses either never
//! shows here.
//!
//! This crate knows nothing of Nix, of files or of networks. It has the checked types, the
//! service traits ([`BlobService`], [`DirectoryService`], [`RecordStore`], [`WriteBatch`]),
//! the rules of a closure of directories ([`closure`]), and the store in memory that tests
//! and small tools use.
//!
//! # Invariants
//!
//! - A value of a type of this crate is valid: names, targets, sizes and order are checked
//!   when it is made, so nothing downstream checks them again.
//! - What a service returns for a digest has that digest. A service that finds otherwise
//!   answers [`Error::Corrupt`] and never the bytes.
//! - The traits are synchronous; whoever is asynchronous calls them from a thread that may
//!   block.

mod digest;
mod error;
mod node;

mod canonical;
mod directory;

pub mod closure;

mod root;

mod batch;
mod blob;
mod collect;
mod record;

mod integrity;

mod memory;

pub use batch::{BatchHelper, Castore, Touch, WriteBatch};
pub use blob::{BlobExtent, BlobReader, BlobService, BlobStat, ChunkMeta, ExtentAt, NextBlob};
pub use canonical::DecodeError;
pub use collect::{
    Collection, CollectionKind, CollectionObserver, Collector, Hold, Survey, SweepOptions, Swept,
};
pub use digest::{BlobDigest, ChunkDigest, DIGEST_BYTES, DigestLengthError, DirectoryDigest};
pub use directory::{Directory, DirectoryError, DirectoryService, MAX_DIRECTORY_ENTRIES};
pub use error::{Chain, Detail, Error, Result};
pub use integrity::{ObjectName, ObjectType, Severity};
pub use memory::MemoryStore;
pub use node::{
    MAX_NAME_BYTES, MAX_TARGET_BYTES, Node, NodeName, NodeNameError, SymlinkTarget,
    SymlinkTargetError,
};
pub use record::{RecordKind, RecordStore, RecordWrite};
pub use root::Root;

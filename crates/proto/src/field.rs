//! What is wrong with a message, and in which of its fields.

use std::fmt::Display;

use granary_castore::{
    BlobDigest, DIGEST_BYTES, DirectoryDigest, DirectoryError, NodeName, NodeNameError,
    SymlinkTargetError,
};
use granary_nix_formats::{KeyError, StorePathError, StorePathHash};

/// A message breaks a rule of the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {breach}")]
pub struct FieldError {
    /// Path of the field in the message, such as `files[3].name`.
    pub field: String,
    /// What is wrong with it. Its text is part of the error's, so it is no `source`.
    pub breach: Breach,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// It is not there.
    #[error("it must be set")]
    Missing,
    /// It has another number of bytes than it must have.
    #[error("it has {actual_bytes} bytes instead of {expected_bytes}")]
    Length {
        /// How many it must have.
        expected_bytes: usize,
        /// How many it has.
        actual_bytes: usize,
    },
    /// It is no name of a directory entry.
    #[error("{0}")]
    Name(NodeNameError),
    /// A name is given where there must be none.
    #[error("it must be empty here")]
    NameNotEmpty,
    /// It comes before the one that it follows.
    #[error("\"{name}\" comes after \"{previous}\", but the list must be sorted by name")]
    NotSorted {
        /// The name.
        name: NodeName,
        /// The name before it in the list.
        previous: NodeName,
    },
    /// Its name stands elsewhere in the directory too.
    #[error("\"{name}\" is also the name of {other}")]
    Duplicate {
        /// The name.
        name: NodeName,
        /// The other field with it.
        other: String,
    },
    /// It is no target of a symlink.
    #[error("{0}")]
    Target(SymlinkTargetError),
    /// The entries of a directory do not go together.
    #[error("{0}")]
    Entries(DirectoryError),
    /// It is no part of a store path, or none at all.
    #[error("{0}")]
    StorePath(StorePathError),
    /// A base name that is not even text.
    #[error("the base name of a store path is ASCII")]
    NotAscii,
    /// There are more or fewer names than references.
    #[error("there are {names} names for {references} references")]
    ReferenceCount {
        /// How many names there are.
        names: usize,
        /// How many references there are.
        references: usize,
    },
    /// The reference of that place has another digest.
    #[error("its hash part is {name}, but references[{index}] is {reference}")]
    ReferenceMismatch {
        /// The place in both lists.
        index: usize,
        /// The hash part of the name.
        name: StorePathHash,
        /// The reference.
        reference: StorePathHash,
    },
    /// It is no name of a key.
    #[error("{0}")]
    Key(KeyError),
    /// It is no kind of content address.
    #[error("{0} is no kind of content address")]
    CaType(i32),
}

impl FieldError {
    pub(crate) fn new(field: impl Display, breach: Breach) -> Self {
        Self { field: field.to_string(), breach }
    }
}

impl From<FieldError> for granary_castore::Error {
    fn from(error: FieldError) -> Self {
        Self::invalid(error.to_string())
    }
}

/// Checks that the value of `field` has as many bytes as it must have. The path of the field
/// is written out only if it does not: a directory has many.
pub(crate) fn fixed<const N: usize>(
    field: impl Display,
    bytes: &[u8],
) -> Result<[u8; N], FieldError> {
    bytes.try_into().map_err(|_| {
        FieldError::new(field, Breach::Length { expected_bytes: N, actual_bytes: bytes.len() })
    })
}

/// The digest of a blob in a field of that name.
///
/// # Errors
///
/// If it is not 32 bytes long.
pub fn blob_digest(field: impl Display, bytes: &[u8]) -> Result<BlobDigest, FieldError> {
    fixed::<DIGEST_BYTES>(field, bytes).map(BlobDigest::from_bytes)
}

/// The digest of a directory in a field of that name.
///
/// # Errors
///
/// If it is not 32 bytes long.
pub fn directory_digest(field: impl Display, bytes: &[u8]) -> Result<DirectoryDigest, FieldError> {
    fixed::<DIGEST_BYTES>(field, bytes).map(DirectoryDigest::from_bytes)
}

/// The digest of a store path in a field of that name.
///
/// # Errors
///
/// If it is not 20 bytes long.
pub fn store_path_hash(field: impl Display, bytes: &[u8]) -> Result<StorePathHash, FieldError> {
    fixed::<20>(field, bytes).map(StorePathHash::from_bytes)
}

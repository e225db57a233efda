//! Names of objects.

use granary_castore::Root;

use crate::format::{Object, ObjectKind};

/// Names an object, wherever it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ObjectKey {
    /// One that lies in a frame. Never a patch or a duplicate: a patch is the chunk that it makes.
    Object(ObjectKind, [u8; 32]),
    /// A blob of several chunks.
    Blob([u8; 32]),
}

impl ObjectKey {
    /// The key of an object in a frame. That of a patch is the chunk that it makes.
    pub(crate) fn of(object: &Object) -> Self {
        let kind = match object.kind {
            ObjectKind::Patch => ObjectKind::Chunk,
            kind => kind,
        };
        Self::Object(kind, object.digest)
    }

    /// The key of a root. That of a blob stands for its only chunk, too.
    pub(crate) fn of_root(root: &Root) -> Self {
        match root {
            Root::Blob(digest) => Self::Blob(*digest.as_bytes()),
            Root::Directory(digest) => Self::Object(ObjectKind::Directory, *digest.as_bytes()),
        }
    }

    /// The digest that it goes by.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        match self {
            Self::Object(_, digest) | Self::Blob(digest) => digest,
        }
    }
}

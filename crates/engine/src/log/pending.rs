//! What was taken into the log but is not in the index yet.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

use crate::format::{Object, ObjectKind};

/// Names an object of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PendingKey {
    Object(ObjectKind, [u8; 32]),
    Blob([u8; 32]),
}

impl PendingKey {
    /// The key of an object in a frame. That of a patch is the chunk that it makes.
    pub(crate) fn of(object: &Object) -> Self {
        let kind = match object.kind {
            ObjectKind::Patch => ObjectKind::Chunk,
            kind => kind,
        };
        Self::Object(kind, object.digest)
    }
}

/// A set of objects on their way. Bounded by the log, which syncs when it grows large.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    keys: RwLock<HashSet<PendingKey>>,
}

impl Pending {
    pub(crate) fn contains(&self, key: &PendingKey) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    /// Adds a key; false if it was there.
    pub(super) fn insert(&self, key: PendingKey) -> bool {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).insert(key)
    }

    pub(super) fn remove(&self, keys: impl IntoIterator<Item = PendingKey>) {
        let mut set = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            set.remove(&key);
        }
    }
}

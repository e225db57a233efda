//! What was taken into the log but is not in the index yet.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

use crate::object_key::ObjectKey;

/// A set of objects on their way. Bounded by the log, which syncs when it grows large.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    keys: RwLock<HashSet<ObjectKey>>,
}

impl Pending {
    pub(crate) fn contains(&self, key: &ObjectKey) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    /// Adds a key; false if it was there.
    pub(super) fn insert(&self, key: ObjectKey) -> bool {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).insert(key)
    }

    pub(super) fn remove(&self, keys: impl IntoIterator<Item = ObjectKey>) {
        let mut set = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            set.remove(&key);
        }
    }
}

//! Objects that are known to be damaged: what reads and verifications came upon.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use granary_castore::ObjectName;

/// Most damaged objects that are remembered, 40 bytes each.
const MAX_KNOWN_DAMAGE: usize = 1 << 20;

/// Remembers damaged objects for as long as the store is open, each once.
#[derive(Debug, Default)]
pub(crate) struct KnownDamage(Mutex<HashSet<ObjectName>>);

impl KnownDamage {
    fn lock(&self) -> MutexGuard<'_, HashSet<ObjectName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, objects: impl IntoIterator<Item = ObjectName>) {
        let mut known = self.lock();
        for object in objects {
            if known.len() < MAX_KNOWN_DAMAGE {
                known.insert(object);
            }
        }
    }

    pub(crate) fn remove<'a>(&self, objects: impl IntoIterator<Item = &'a ObjectName>) {
        let mut known = self.lock();
        for object in objects {
            known.remove(object);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.lock().len() as u64
    }
}

//! What is known to be damaged: what reads and verifications came upon.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use granary_castore::ObjectName;

use crate::packs::PackId;

/// Most damaged objects, and as many places, that are remembered.
const MAX_KNOWN_DAMAGE: usize = 1 << 20;

/// Remembers damage for as long as the store is open, each thing once.
#[derive(Debug, Default)]
pub(crate) struct KnownDamage(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    objects: HashSet<ObjectName>,
    /// Damaged places in packs, of which it is not known that any object is harmed.
    places: HashSet<(PackId, u64)>,
}

impl KnownDamage {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, objects: impl IntoIterator<Item = ObjectName>) {
        let mut known = self.lock();
        for object in objects {
            if known.objects.len() < MAX_KNOWN_DAMAGE {
                known.objects.insert(object);
            }
        }
    }

    /// Notes the damaged places that were found now, of one pack or of all.
    pub(crate) fn set_places(
        &self,
        of_pack: Option<PackId>,
        places: impl IntoIterator<Item = (PackId, u64)>,
    ) {
        let mut known = self.lock();
        known.places.retain(|(pack, _)| of_pack.is_some_and(|of_pack| of_pack != *pack));
        known.places.extend(places.into_iter().take(MAX_KNOWN_DAMAGE));
    }

    pub(crate) fn remove<'a>(&self, objects: impl IntoIterator<Item = &'a ObjectName>) {
        let mut known = self.lock();
        for object in objects {
            known.objects.remove(object);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        let known = self.lock();
        (known.objects.len() + known.places.len()) as u64
    }
}

//! What is kept and what goes: pins, last uses, deletion, garbage collection.
//!
//! A path is kept if it is pinned, was used or uploaded within the retention, or is referred to by
//! one that is kept. `docs/garbage-collection.md` has the rules.

mod pin;

mod catalogue;

mod kept_paths;
mod plan;

mod report;

mod collect;
mod delete;
mod why;

pub use collect::{GcObserver, GcOptions, GcStage};
pub use delete::{DeleteOptions, Deleted};
pub use pin::{MAX_PIN_NAME_BYTES, Pin, PinTarget};
pub use report::{GcReport, Package};
pub use why::{Keeper, Why};

use std::sync::Arc;

use granary_castore::{Collector, Result};
use granary_nix_formats::StorePathHash;

use crate::Store;

/// Whoever decides what is kept.
pub trait Retention: Send + Sync {
    /// Removes what nothing keeps.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`](granary_castore::Error::Unavailable) if that is under way already;
    /// [`Error::Corrupt`](granary_castore::Error::Corrupt) if something that is kept is damaged,
    /// so that nobody knows what belongs to it.
    fn collect_garbage(&self, options: &GcOptions, observer: &dyn GcObserver) -> Result<GcReport>;

    /// Deletes paths. What they take on disk is free after the next collection.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](granary_castore::Error::Invalid) if one is not stored, or something
    /// keeps it and that is not [overruled](DeleteOptions::force); nothing is deleted then.
    fn delete_paths(&self, paths: &[StorePathHash], options: DeleteOptions) -> Result<Deleted>;

    /// What keeps a path, and what deleting it would free; `None` if it is not stored.
    ///
    /// # Errors
    ///
    /// If the store cannot tell.
    fn why(&self, path: &StorePathHash) -> Result<Option<Why>>;

    /// Pins something, in the place of an older pin of the same name.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](granary_castore::Error::Invalid) if what is to be pinned is not stored,
    /// or the name cannot be one.
    fn add_pin(&self, pin: Pin) -> Result<()>;

    /// Removes a pin; false if there was none of that name.
    ///
    /// # Errors
    ///
    /// If it could not be made durable.
    fn remove_pin(&self, name: &str) -> Result<bool>;

    /// All pins, by name; those that have expired too, until a collection removes them.
    ///
    /// # Errors
    ///
    /// If the store cannot tell.
    fn pins(&self) -> Result<Vec<Pin>>;
}

/// Retention over a store whose contents can be collected.
#[derive(Clone)]
pub struct LocalRetention {
    store: Arc<Store>,
    collector: Arc<dyn Collector>,
    defaults: GcOptions,
}

impl LocalRetention {
    /// Of `store`, with the `collector` of its contents, and what holds where nothing is said.
    pub fn new(store: Arc<Store>, collector: Arc<dyn Collector>, defaults: GcOptions) -> Self {
        Self { store, collector, defaults }
    }
}

impl Retention for LocalRetention {
    fn collect_garbage(&self, options: &GcOptions, observer: &dyn GcObserver) -> Result<GcReport> {
        collect::collect(&self.store, &*self.collector, &options.or(&self.defaults), observer)
    }

    fn delete_paths(&self, paths: &[StorePathHash], options: DeleteOptions) -> Result<Deleted> {
        delete::delete(&self.store, paths, options)
    }

    fn why(&self, path: &StorePathHash) -> Result<Option<Why>> {
        why::why(&self.store, &*self.collector, path)
    }

    fn add_pin(&self, pin: Pin) -> Result<()> {
        pin::add(&self.store, &pin)
    }

    fn remove_pin(&self, name: &str) -> Result<bool> {
        pin::remove(&self.store, name)
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        pin::list(&self.store)
    }
}

//! The [`Protocol`] as threads share it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use granary_castore::{Error, Result};

use super::protocol::{Operation, Protocol, Reliance};
use crate::object_key::ObjectKey;

/// The lock around the protocol, and the clock that its leases go by.
#[derive(Debug)]
pub(crate) struct Guard {
    protocol: Mutex<Protocol>,
    /// How many collections have ended.
    ended: AtomicU64,
    opened: Instant,
}

/// An operation that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    guard: Arc<Guard>,
    operation: Operation,
}

/// What a writer may make of an object that it looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is there, and stays.
    Stored,
    /// It counts as not stored.
    Condemned,
    /// A collection has ended since before the look-up: it must be repeated.
    LookAgain,
}

impl Guard {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|cause| Error::unavailable("cannot get random bits").because(cause))?;
        Ok(Arc::new(Self {
            protocol: Mutex::new(Protocol::new(u64::from_le_bytes(seed))),
            ended: AtomicU64::new(0),
            opened: Instant::now(),
        }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Protocol> {
        self.protocol.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Running {
        let operation = self.lock().begin();
        Running { guard: Arc::clone(self), operation }
    }

    /// To be noted before an object is looked up, and given when it is touched.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Touches an object that was found in `pack`, or on its way to one if there is none.
    ///
    /// IMPORTANT: what was looked up before a collection ended says nothing behind that: what was
    /// condemned is gone then, and nobody knows any more that it was.
    pub(crate) fn touch(
        &self,
        key: &ObjectKey,
        pack: Option<u32>,
        ended: u64,
        reliance: Reliance,
    ) -> Found {
        let mut protocol = self.lock();
        if self.ended.load(Ordering::Acquire) != ended {
            return Found::LookAgain;
        }
        if protocol.touch(key, pack, reliance) { Found::Stored } else { Found::Condemned }
    }

    /// Touches an object that an operation writes, or that what it writes refers to.
    pub(crate) fn touch_written(&self, key: &ObjectKey) {
        self.lock().touch(key, None, Reliance::Operation);
    }

    /// The hour that it is, for [`Reliance::Told`].
    pub(crate) fn hour(&self) -> u64 {
        self.opened.elapsed().as_secs() / 3600
    }

    /// The collection has ended.
    pub(crate) fn finish(&self) {
        let mut protocol = self.lock();
        protocol.finish();
        self.ended.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.guard.lock().end(self.operation);
    }
}

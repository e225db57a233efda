//! What the requests of one connection have in common.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use tokio::sync::OwnedSemaphorePermit;

/// Put into the extensions of every request by whoever accepted its connection. A request
/// without one counts as a connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What its uploads hold together, while there are any. Locked by the one that waits for it.
    slot: tokio::sync::Mutex<Weak<OwnedSemaphorePermit>>,
    /// When something of an upload came last.
    heard: Mutex<Instant>,
}

impl Default for Connection {
    fn default() -> Self {
        let shared =
            Shared { slot: tokio::sync::Mutex::default(), heard: Mutex::new(Instant::now()) };
        Self { shared: Arc::new(shared) }
    }
}

impl Connection {
    /// The slot that an upload of this connection holds already, or else a new one from `take`.
    pub(crate) async fn slot<E>(
        &self,
        take: impl Future<Output = Result<OwnedSemaphorePermit, E>>,
    ) -> Result<Arc<OwnedSemaphorePermit>, E> {
        let mut slot = self.shared.slot.lock().await;
        if let Some(slot) = slot.upgrade() {
            return Ok(slot);
        }
        let taken = Arc::new(take.await?);
        *slot = Arc::downgrade(&taken);
        Ok(taken)
    }

    /// Notes that something of an upload came.
    pub(crate) fn hear(&self) {
        *self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When something of an upload came last.
    pub(crate) fn heard(&self) -> Instant {
        *self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Calls into the service traits, which block.

use granary_castore::{Error, Result};
use tonic::Status;

use super::status;
use crate::event_loops;

/// Runs `call` on a thread that may block.
pub(super) async fn run<T: Send + 'static>(
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T, Status> {
    let done = event_loops::spawn_blocking(call).await;
    done.unwrap_or_else(|error| {
        // Either it panicked, which the panic hook has told, or the runtime shuts down.
        Err(Error::unavailable("the call into the store did not come to its end").because(error))
    })
    .map_err(|error| status::of_error(&error))
}

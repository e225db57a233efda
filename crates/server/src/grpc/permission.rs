//! Who may write.

use tonic::{Request, Status};

use crate::Access;

/// Refuses a request that may only read. One that nobody gave an [`Access`] is such a one.
pub(super) fn to_write<T>(request: &Request<T>) -> Result<(), Status> {
    if request.extensions().get::<Access>().is_some_and(|access| access.writes) {
        Ok(())
    } else {
        Err(Status::permission_denied(
            "this connection may only read; a daemon started with --allow-anonymous-writes \
             would let it write",
        ))
    }
}

//! How many files, and so connections, the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::debug;

/// Open files that the daemon asks for: its connections, and what the store below needs.
const WANTED_OPEN_FILES: u64 = 8192;

/// Raises the soft limit of the process towards the hard one, which needs no rights. Most
/// systems set the soft one to 1024 for programs that still call `select`.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current else { return };
    let wanted = limit.maximum.map_or(WANTED_OPEN_FILES, |maximum| maximum.min(WANTED_OPEN_FILES));
    if current >= wanted {
        return;
    }
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => debug!(from = current, to = wanted, "raised the limit of open files"),
        Err(error) => debug!(%error, "cannot raise the limit of open files"),
    }
}

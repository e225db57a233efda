//! Why the daemon cannot listen.

use std::{io, path::PathBuf};

use super::ListenAddress;

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has the address.
    #[error(
        "cannot listen on {address}: another process does already; stop it, or give another address with --listen"
    )]
    InUse {
        /// The address.
        address: ListenAddress,
    },
    /// The system refuses the address.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: ListenAddress,
        /// What the system said.
        source: io::Error,
    },
    /// A host name has no address.
    #[error("cannot find the address of {address}")]
    Resolve {
        /// The address.
        address: ListenAddress,
        /// What the system said.
        source: io::Error,
    },
    /// Something that is no socket is where the socket should be.
    #[error(
        "cannot listen on unix:{}: a file that is no socket is there; move it away, or give another path", path.display()
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// `systemd` was asked for, but no sockets were passed.
    #[error(
        "cannot listen on systemd: no sockets were passed (LISTEN_FDS is not set for this process); start it by its socket unit, or give another address"
    )]
    NothingPassed,
    /// A passed socket is neither a listening TCP socket nor a listening Unix one.
    #[error(
        "cannot listen on systemd: passed socket {index} is no listening stream socket; use ListenStream= in the socket unit"
    )]
    Passed {
        /// Its place among the passed ones, from 0.
        index: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The system has no threads for the connections.
    #[error("cannot start the threads that serve connections")]
    Threads {
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing to serve on.
    #[error("cannot serve: there is no address to listen on")]
    NoListeners,
}

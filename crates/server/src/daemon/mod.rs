//! The daemon's edge to the outside: it listens, accepts, and shuts down.
//!
//! It takes any [`axum::Router`] and knows nothing of what that serves. HTTP/1.1 and HTTP/2
//! with prior knowledge (what gRPC speaks without TLS) share every port. What an
//! unfriendly peer can make it hold is bounded by the limits in [`ServeOptions`].
//!
//! Every request carries an [`Access`](crate::Access) that says whether it may write.
//!
//! There is no TLS here: off the machine it belongs behind a proxy that has it.

mod address;
mod error;
mod options;

mod activation;
mod listener;

mod connection;
mod peer;
mod preface;
mod request;
mod tasks;
mod write_timeout;

mod open_files;
mod serve;

pub use address::{ListenAddress, ListenAddressError};
pub use error::ListenError;
pub use listener::{Listener, bind};
pub use options::{
    DEFAULT_BLOCKING_GRACE, DEFAULT_BLOCKING_THREADS, DEFAULT_GRACE, DEFAULT_HEADER_READ_TIMEOUT,
    DEFAULT_MAX_CONNECTIONS, DEFAULT_WRITE_TIMEOUT, MAX_HEADER_BYTES, MAX_HEADERS, ServeOptions,
};
pub use serve::{Server, serve};

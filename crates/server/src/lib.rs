//! The daemon: gRPC and the HTTP binary cache over the service traits, on one port.
//!
//! Handlers are thin: they check form, call a trait on a thread that may block, and map its
//! answer. What a store is, and what a NAR is, is the business of other crates.

mod access;
mod connection;
pub mod daemon;
mod event_loops;
pub mod grpc;
pub mod http;

pub use access::Access;
use connection::Connection;

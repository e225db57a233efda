//! The gRPC services, under both sets of names.
//!
//! snix renamed the services of tvix and changed nothing else, so there is one
//! implementation: a request for a newer name is answered as one for the older.
//!
//! A handler calls the service traits on threads that may block, for a bounded piece of
//! work at a time, and holds none while it waits for its client.

mod bao;
mod blob;
mod blocking;
mod directory;
mod held;
mod integrity;
mod names;
mod options;
mod path_info;
mod permission;
mod read;
mod retention;
mod routes;
mod status;
mod store;
mod upload;
mod uploads;
mod windows;

pub use options::GrpcOptions;
pub use routes::{GrpcServices, fallback, router, router_with};

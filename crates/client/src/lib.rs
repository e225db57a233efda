//! A store elsewhere: the service traits over a gRPC channel; and plain binary caches, to be
//! read ([`BinaryCache`]).
//!
//! [`Client`] speaks tvix's names of the services, so that the other end may be Granary,
//! tvix-store or snix-store. What only Granary has (asking for many blobs at once, the
//! numbers of a store) is used where it is there.
//!
//! The traits are synchronous and the channel is not, so a client brings the handle of a
//! runtime and waits on it. IMPORTANT: do not call it on a thread of a runtime, where
//! waiting panics; use [`tokio::task::spawn_blocking`]. The runtime must have threads of
//! its own that drive it, as a multi-threaded one has.
//!
//! # Invariants
//!
//! - What comes back for a digest has that digest, or it is
//!   [`Error::Corrupt`](granary_castore::Error::Corrupt). A blob with known chunks is
//!   checked chunk by chunk before a byte of it is handed out. One that is large and has no
//!   known chunks is checked when its end is reached, before its last piece is.
//! - What a batch has [committed](granary_castore::WriteBatch::commit) was acknowledged by
//!   the server, object by object.
//! - Memory is bounded by the constants in [`limits`], whatever the size of a blob, with
//!   directories on their way as the one thing that grows up to the limit of the wire.

mod address;
pub mod limits;
mod status;

mod blob_reader;
mod blob_stream;
mod client;
mod directories;
mod integrity;
mod path_infos;
mod retention;

mod binary_cache;

mod batch;
mod outgoing_directories;
mod upload;

pub use binary_cache::BinaryCache;
pub use client::Client;

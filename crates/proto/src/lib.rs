//! The gRPC messages and services, and what checks them.
//!
//! The `.proto` files in `protos/` are written from the wire contract, and build without
//! protoc. The messages and services of `tvix.castore.v1` are in [`castore`], those of
//! `tvix.store.v1` in [`store`], and what our own client asks beside them in [`granary`].
//! snix renamed packages, services and some messages, but not a byte on the wire: [`snix`]
//! has clients that call the newer names, with the same Rust types. The descriptors in
//! [`FILE_DESCRIPTOR_SET`] carry all names as they are.
//!
//! This crate opens no connection. Generated types are for the client and the server alone;
//! everything else speaks the checked types of `granary-castore` and `granary-store`, which
//! the conversions here go to and come from.
//!
//! # Invariants
//!
//! - A message that is received is held against a limit of fields before it is decoded.
//! - What breaks a rule of the wire is refused with a [`FieldError`] that names the field.
//! - A message that is encoded in an unusual way, or has fields that nobody knows, is
//!   accepted; what is unknown is dropped.
//! - A checked value survives the way to a message and back unchanged, and a
//!   [`castore::Directory`] made from a checked one encodes to its canonical bytes.

mod generated;

mod codec;
mod field;
mod fields;

mod directory;
mod integrity;
mod node;
mod path_info;
mod retention;
mod stats;

#[cfg(test)]
mod wire;

pub use codec::{MAX_MESSAGE_FIELDS, MAX_PATH_INFO_FIELDS, Received, WireCodec, decode};
pub use field::{Breach, FieldError, blob_digest, directory_digest, store_path_hash};
pub use generated::{
    granary::v1 as granary,
    tvix::{castore::v1 as castore, store::v1 as store},
};
pub use integrity::store_path;
pub use node::{anonymous_node, named_node};
pub use path_info::nar_digest;

/// Clients that call the newer names of the services.
pub mod snix {
    pub use crate::generated::snix::{castore::v1 as castore, store::v1 as store};
}

/// Encoded descriptors of all services and messages, under both sets of names: for gRPC
/// reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Most bytes of one encoded [`castore::Directory`]. It has to hold 100,000 entries with
/// the longest names; most clients set a lower limit for what they receive.
pub const MAX_DIRECTORY_BYTES: usize = 64 << 20;

/// Most bytes of one encoded [`castore::BlobChunk`] that is received. What is sent has at
/// most [`MAX_CHUNK_DATA_BYTES`] of data, but tools that know no streaming send a blob in
/// one message.
pub const MAX_BLOB_CHUNK_BYTES: usize = 16 << 20;

/// Most data in a [`castore::BlobChunk`] that is sent.
pub const MAX_CHUNK_DATA_BYTES: usize = 1 << 20;

/// Most bytes of one encoded [`store::PathInfo`]: what a client that raises no limit can
/// still receive, about 15,000 references.
pub const MAX_PATH_INFO_BYTES: usize = 4 << 20;

/// Most bytes of one encoded [`castore::StatBlobResponse`]: what a client that raises no
/// limit can receive.
pub const MAX_STAT_BYTES: usize = 4 << 20;

/// Most objects, store paths and packs in one [`granary::QuarantineRequest`].
pub const MAX_QUARANTINED: usize = 16_384;

/// Most digests in one [`granary::MissingBlobsRequest`].
pub const MAX_MISSING_BLOBS: usize = 16_384;

/// Most paths in one [`granary::DeletePathsRequest`].
pub const MAX_DELETED_PATHS: usize = 4_096;

/// How many bytes a message takes.
pub fn encoded_len(message: &impl prost::Message) -> usize {
    message.encoded_len()
}

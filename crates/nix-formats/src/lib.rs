//! The formats that Nix's binary caches are made of: store paths and how they are
//! computed, nixbase32, NAR, narinfo, ed25519 signatures, and `.ls` listings.
//!
//! This crate turns bytes into checked types and back. It opens no file and no socket,
//! knows nothing of castore, packs or gRPC, and depends on no other crate of Granary.
//!
//! Invariants:
//!
//! - Bytes from outside never panic: whatever is wrong with them is an error that says
//!   what is wrong and where.
//! - What a parser allocates is bounded by a named limit, not by a length that the input
//!   claims ([`nar::MAX_DEPTH`], [`nar::MAX_NAME_BYTES`], [`nar::MAX_TARGET_BYTES`],
//!   [`MAX_NARINFO_BYTES`], [`listing::MAX_DEPTH`]).
//! - A [`StorePath`] holds a name that Nix accepts; a NAR that [`nar::Reader`] read to its
//!   end is canonical: writing its events with [`nar::Writer`] gives the same bytes.
//! - Only `/nix/store` ([`STORE_DIR`]) is supported as the store directory.

mod content_address;
mod hash;
mod keys;
pub mod listing;
pub mod nar;
mod narinfo;
pub mod nixbase32;
mod signature;
mod store_path;

pub use content_address::{ContentAddress, ContentAddressError};
pub use hash::{DigestTextError, HashAlgorithm, HashParseError, NarHash};
pub use keys::{PublicKey, SigningKey};
pub use listing::{Listing, ListingBuilder, ListingError, ListingNode};
pub use narinfo::{MAX_NARINFO_BYTES, NarInfo, NarInfoError, fingerprint};
pub use signature::{KeyError, Signature};
pub use store_path::{
    MAX_STORE_PATH_NAME_BYTES, STORE_DIR, StorePath, StorePathError, StorePathHash,
};

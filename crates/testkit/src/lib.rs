//! What the tests of Granary share: the conformance suites of the service traits, seeded
//! fixtures, and the programs of others that end-to-end tests run.
//!
//! A development dependency only: everything here panics when something is not as it
//! should be, with a message that says what.
//!
//! # Invariants
//!
//! - A suite checks what the documentation of a trait promises and nothing more, so that
//!   every store, wrapper and client can be held against it.
//! - Fixtures depend on their seed alone: the same seed gives the same bytes everywhere.
//! - A program that is missing is a failure that names it, never a test that is skipped.

mod checks;
mod crash_disk;
mod framed_store;
mod random;
mod small_disk;

pub mod blob_service;
pub mod directory_service;
pub mod path_info_service;
pub mod record_store;

pub mod closure;
pub mod tree;

pub mod nix;
pub mod tools;

pub use crash_disk::{CrashDisk, Fault};
pub use framed_store::{Counts, FramedStore};
pub use random::Random;
pub use small_disk::SmallDisk;

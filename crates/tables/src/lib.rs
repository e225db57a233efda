//! Sorted tables: an ordered map of byte strings in one directory, made for keys that are mostly
//! digests.
//!
//! Entries come sorted and many at a time ([`Tables::add`]), and become a *table*, a file that is
//! never changed. A newer table wins over an older one; an entry in it may also say that a key
//! was removed. Tables are merged ([`Tables::merge_some`]) when there are many for their sizes.
//!
//! It is not a database: there is no journal and no memtable, and no thread. Who uses it decides
//! when something is written, and finds again elsewhere what was not.
//!
//! # Invariants
//!
//! - What [`Tables::add`] was given is there as a whole or not at all, and durable once it returns.
//! - Readers see the tables of one moment.
//! - What is read was checked: whole tables when they are opened, each block again when it is read.
//!   Damage is an [`Error`], never an absence, and bytes from the disk never panic.
//! - One process at a time: who opens a directory is sure that nobody else does.
//!
//! The layout stands in `docs/index-format.md`.

mod block;
mod directory;
mod error;
mod file;
mod filter;
mod integer;

mod cursor;
mod table;
mod writer;

mod list;
mod merge;
mod tables;

pub use error::Error;
pub use list::LIST_FILE;
pub use tables::{KeyValue, Range, Tables, Turn};

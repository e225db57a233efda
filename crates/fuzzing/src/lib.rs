//! What fuzzing checks: for each target one function, which takes any bytes and panics if
//! something is not as it must be.
//!
//! The package `fuzz/`, which is not of the workspace, calls them with what libFuzzer comes up
//! with; the tests of this crate call them with the committed corpus. A development tool only:
//! nothing that is shipped depends on it.
//!
//! # Invariants
//!
//! - A check does the same for the same bytes, however often and in whatever order it is
//!   called; it leaves nothing behind.
//! - It checks what must hold of the answer, not only that there is one.

mod edit;
mod engine_store;
mod http_cache;
mod pack_bytes;

pub mod directory;
pub mod index;
pub mod nar;
pub mod narinfo;
pub mod narinfo_put;
pub mod pack;
pub mod range;
pub mod records;

/// Something to fuzz.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of its binary in `fuzz/` and of its directory in the corpus.
    pub name: &'static str,
    /// Panics if a bug shows with these bytes.
    pub check: fn(&[u8]),
}

/// All there is.
pub const TARGETS: &[Target] = &[
    Target { name: "nar", check: nar::check },
    Target { name: "narinfo", check: narinfo::check },
    Target { name: "narinfo_put", check: narinfo_put::check },
    Target { name: "directory", check: directory::check },
    Target { name: "pack", check: pack::check },
    Target { name: "records", check: records::check },
    Target { name: "index", check: index::check },
    Target { name: "range", check: range::check },
];

//! NAR, the archive format whose bytes Nix hashes: a pull parser and a writer, neither of
//! which recurses or holds more than one path's worth of names.
//!
//! A NAR is a sequence of strings, each a little-endian u64 length, the bytes, and zeros
//! up to a multiple of eight. Spelled with those strings, it is
//!
//! ```text
//! nar       = "nix-archive-1" node
//! node      = "(" "type" kind ")"
//! kind      = "regular" [ "executable" "" ] "contents" DATA
//!           | "symlink" "target" TARGET
//!           | "directory" { "entry" "(" "name" NAME "node" node ")" }
//! ```
//!
//! with the names of a directory in ascending order of their bytes. A tree has exactly one
//! NAR; [`Reader`] rejects everything else, so what it reads hashes to what [`Writer`]
//! writes.

mod error;
mod name_stack;
mod reader;
mod token;
mod writer;

pub use error::{Error, Reason};
pub use reader::{Event, Reader};
pub use writer::Writer;

/// The longest name of a directory entry, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// The longest target of a symlink, in bytes.
pub const MAX_TARGET_BYTES: usize = 4095;

/// How many directories may lie inside each other, the root included. Linux cannot even
/// name a deeper path.
pub const MAX_DEPTH: usize = 4096;

/// The largest size of a file that is believed: the largest that a Unix file can have. It
/// keeps sums of sizes from overflowing.
pub const MAX_FILE_BYTES: u64 = i64::MAX as u64;

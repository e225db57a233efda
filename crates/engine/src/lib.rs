//! The engine: the castore traits on a data directory.
//!
//! References are taken out of contents, what is left is cut into chunks, chunks are put into
//! frames, and frames compressed and
//! appended to *packs* in *segments*. The packs are the log and the only truth;
//! the *index* says where each object lies, and is derived from them. The byte layout stands
//! in `docs/pack-format.md`.
//!
//! It is not a database of path infos: those, and everything else that has a key and a
//! value, are opaque records to it. It knows nothing of Nix.
//!
//! # Invariants
//!
//! - What was acknowledged is on disk: an answer is sent when the segment is synced.
//! - Bytes that are served were checked against the digest that they were asked for by; a frame
//!   that is given as it is stored, against its checksum and for what lies in it.
//! - The index is never ahead of the packs; from the packs alone it can be built anew.
//! - Nothing is visible before it is whole: a blob's list of chunks lies behind its chunks.
//! - Memory is bounded by the constants named in each module, whatever is stored, but for two
//!   bytes or so for each object.

mod buffers;
mod disk;
mod format;
mod frame_cache;
mod object_key;

mod index;

mod chunker;
mod compression;
mod normalise;
mod packs;

mod dead;
mod gc;

mod log;
mod read;
mod write;

mod open;

mod damage;
mod verify;

mod engine;
mod stats;

pub use chunker::DEFAULT_AVERAGE_CHUNK_BYTES;
pub use compression::Compression;
pub use disk::{Disk, DiskError, DiskFile, DiskResult, OsDisk};
pub use engine::{
    Engine, MAX_KEY_BYTES, MAX_RECORD_WRITES, MAX_RECORD_WRITES_BYTES, MAX_VALUE_BYTES,
};
pub use format::FORMAT_VERSION;
pub use open::{
    CutTail, DEFAULT_LEASE, DEFAULT_PACK_BYTES, Damage, FrameSizes, OpenError, OpenOptions,
    OpenReport, Progress,
};
pub use packs::PackId;
pub use stats::EngineStats;
pub use verify::{Effect, VerifyFinding, VerifyObserver, VerifyOptions, VerifyReport};

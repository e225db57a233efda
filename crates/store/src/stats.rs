//! What a store says of itself.

use granary_castore::Result;

/// How much a store holds, and in how much space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// What can be read as a blob: those of several chunks, and all chunks, most of which were
    /// put as a blob of one.
    pub blobs: u64,
    /// Distinct chunks.
    pub chunks: u64,
    /// Distinct chunks that are kept as others with the hashes of some references replaced;
    /// not among `chunks`.
    pub patched_chunks: u64,
    /// Distinct directories.
    pub directories: u64,
    /// Path infos.
    pub path_infos: u64,
    /// Bytes of the NARs of all path infos: what is stored, seen from outside.
    pub logical_bytes: u64,
    /// Bytes of all distinct chunks and directories, uncompressed.
    pub unique_bytes: u64,
    /// Bytes on disk.
    pub stored_bytes: u64,
    /// Objects that are known to be damaged.
    pub damaged_objects: u64,
    /// Packs.
    pub packs: u64,
    /// Version of the format on disk.
    pub format_version: u32,
}

/// Whoever knows the numbers of a store.
pub trait StatsSource: Send + Sync {
    /// The numbers as they are now.
    ///
    /// # Errors
    ///
    /// If the store cannot tell.
    fn stats(&self) -> Result<StoreStats>;
}

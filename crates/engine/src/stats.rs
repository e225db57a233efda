//! Counts and sums.

/// What a store holds, physically.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Distinct chunks.
    pub chunk_count: u64,
    /// Their bytes before compression: what remains of all contents once nothing is held
    /// twice.
    pub chunk_bytes: u64,
    /// Distinct chunks that are kept as others with the hashes of some references replaced.
    /// They are not among `chunk_count`.
    pub patched_chunk_count: u64,
    /// Distinct blobs of more than one chunk.
    pub divided_blob_count: u64,
    /// Distinct directories.
    pub directory_count: u64,
    /// Their bytes before compression.
    pub directory_bytes: u64,
    /// Packs.
    pub pack_count: u64,
    /// Bytes of all packs.
    pub stored_bytes: u64,
    /// Damage that opening found, and objects that reads and verifications found damaged since.
    pub damaged_count: u64,
}

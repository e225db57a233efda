//! How frames are compressed.

use granary_castore::{Error, Result};
use zstd::zstd_safe::{CParameter, compress_bound};

/// Settings of zstd for new frames. What is stored can be read whatever they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    level: i32,
    /// Binary logarithm of the entries of the hash table; the level's own if none.
    hash_log: Option<u32>,
    /// Shortest match that is looked for, in bytes; the level's own if none.
    min_match: Option<u32>,
}

impl Compression {
    /// Nothing but a level of zstd's, from 1 to 22.
    pub const fn level(level: i32) -> Self {
        Self { level, hash_log: None, min_match: None }
    }
}

/// Level 1 with a larger table and a longer shortest match: nearly as small as level 3 on
/// what store paths are made of, in two thirds of its time (docs/performance.md).
impl Default for Compression {
    fn default() -> Self {
        Self { level: 1, hash_log: Some(16), min_match: Some(6) }
    }
}

/// Compresses, one frame after the other.
pub(crate) struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    /// Room for what comes out, kept between frames.
    out: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new(compression: Compression) -> Result<Self> {
        let set_up = || {
            let mut zstd = zstd::bulk::Compressor::new(compression.level)?;
            if let Some(hash_log) = compression.hash_log {
                zstd.set_parameter(CParameter::HashLog(hash_log))?;
            }
            if let Some(min_match) = compression.min_match {
                zstd.set_parameter(CParameter::MinMatch(min_match))?;
            }
            Ok(zstd)
        };
        let zstd = set_up().map_err(|cause: std::io::Error| {
            Error::unavailable("cannot set up compression").because(cause)
        })?;
        Ok(Self { zstd, out: Vec::new() })
    }

    /// One zstd frame with its content size. `None` if it would not be smaller by a
    /// sixteenth: saving less is not worth decompressing for.
    pub(crate) fn compress(&mut self, raw: &[u8]) -> Option<&[u8]> {
        self.out.clear();
        self.out.reserve(compress_bound(raw.len()));
        // The buffer has zstd's own bound, so an error means that memory is short; storing
        // the bytes as they are is right then too.
        self.zstd.compress_to_buffer(raw, &mut self.out).ok()?;
        (self.out.len() + raw.len() / 16 < raw.len()).then_some(&self.out)
    }
}

//! How frames are compressed.

use granary_castore::{Error, Result};
use zstd::zstd_safe::{CParameter, compress_bound};

/// Settings of zstd for new frames. What is stored can be read whatever they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    level: i32,
    /// Binary logarithms of the entries of the table of long matches and of that of short
    /// ones; the level's own if none.
    table_logs: Option<(u32, u32)>,
}

impl Compression {
    /// Nothing but a level of zstd's, from 1 to 22.
    pub const fn level(level: i32) -> Self {
        Self { level, table_logs: None }
    }
}

/// Level 3 with tables that stay in the cache of a core: about as fast as level 1 in frames of
/// this size, and nearly as small as level 3 (docs/decisions/0004).
impl Default for Compression {
    fn default() -> Self {
        Self { level: 3, table_logs: Some((15, 14)) }
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
            if let Some((long, short)) = compression.table_logs {
                zstd.set_parameter(CParameter::HashLog(long))?;
                zstd.set_parameter(CParameter::ChainLog(short))?;
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

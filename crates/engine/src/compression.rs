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

    /// The same with tables of 2^`long` and 2^`short` entries, for long matches and for short
    /// ones. The store does not open where zstd knows none of such a size.
    #[must_use]
    pub const fn with_tables(self, long: u32, short: u32) -> Self {
        Self { table_logs: Some((long, short)), ..self }
    }
}

/// Level 3 with tables that stay in the cache of a core: about as fast as level 1 in frames of
/// this size, and nearly as small as level 3 (docs/decisions/0004).
impl Default for Compression {
    fn default() -> Self {
        Self::level(3).with_tables(15, 14)
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

#[cfg(test)]
mod tests {
    use granary_testkit::Random;

    use super::*;

    fn compressed_len(compression: Compression, raw: &[u8]) -> usize {
        let mut compressor = Compressor::new(compression).expect("zstd takes these settings");
        let frame = compressor.compress(raw).expect("text gets smaller");
        assert_eq!(zstd::bulk::decompress(frame, raw.len()).expect("it is a frame"), raw);
        frame.len()
    }

    #[test]
    fn small_tables_cost_bytes() {
        let text = Random::new(1).compressible(1 << 20);
        let level = Compression::level(3);
        assert!(compressed_len(level.with_tables(8, 8), &text) > compressed_len(level, &text));
    }

    #[test]
    fn settings_that_zstd_does_not_know_are_refused() {
        assert!(Compressor::new(Compression::level(3).with_tables(99, 14)).is_err());
        assert!(Compressor::new(Compression::level(3).with_tables(15, 99)).is_err());
    }
}

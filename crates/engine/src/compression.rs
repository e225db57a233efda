//! How frames are compressed.

use granary_castore::{Error, Result};
use zstd::zstd_safe::{CParameter, Strategy, compress_bound};

/// Settings of zstd for new frames. What is stored can be read whatever they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    level: i32,
    /// Binary logarithms of the entries of the table of long matches and of that of short
    /// ones; the level's own if none.
    table_logs: Option<(u32, u32)>,
    /// For text, if it has a way of its own.
    text: Option<TextTable>,
}

/// How text is compressed by zstd's strategy `fast`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TextTable {
    /// Binary logarithm of the entries of the only table.
    log: u32,
    /// What a match has at least, in bytes.
    shortest_match: u32,
}

impl Compression {
    /// Nothing but a level of zstd's, from 1 to 22.
    pub const fn level(level: i32) -> Self {
        Self { level, table_logs: None, text: None }
    }

    /// The same with tables of 2^`long` and 2^`short` entries, for long matches and for short
    /// ones. The store does not open where zstd knows none of such a size.
    #[must_use]
    pub const fn with_tables(self, long: u32, short: u32) -> Self {
        Self { table_logs: Some((long, short)), ..self }
    }

    /// The same, but that text is compressed by zstd's strategy `fast`, with a table of 2^`log`
    /// entries and matches of at least `shortest_match` bytes. The store does not open where zstd
    /// knows none such.
    #[must_use]
    pub const fn with_fast_text(self, log: u32, shortest_match: u32) -> Self {
        Self { text: Some(TextTable { log, shortest_match }), ..self }
    }
}

/// Level 3 with tables that stay in the cache of a core: about as fast as level 1 in frames of
/// this size, and nearly as small as level 3. Text has many and long matches, and loses least by a
/// faster way (docs/decisions/0004).
impl Default for Compression {
    fn default() -> Self {
        Self::level(3).with_tables(15, 14).with_fast_text(15, 6)
    }
}

/// How much is looked at to tell text from other contents, in so many samples of so many bytes.
const SAMPLES: usize = 16;
const SAMPLE_BYTES: usize = 512;

/// What part of text may be zeroes. There are none in a text, but between two files in a NAR, and so
/// in a frame, there are; of a program, a tenth or more are.
const ZEROES_IN_TEXT: usize = 32;

/// Whether it seems to be text: of what is looked at, one byte of [`ZEROES_IN_TEXT`] at most is 0.
fn is_text(raw: &[u8]) -> bool {
    let step = raw.len() / SAMPLES;
    let samples = (0..SAMPLES).map(|sample| {
        let rest = &raw[sample * step..];
        &rest[..rest.len().min(SAMPLE_BYTES)]
    });
    let (mut zeroes, mut bytes) = (0, 0);
    for sample in samples {
        zeroes += memchr::memchr_iter(0, sample).count();
        bytes += sample.len();
    }
    zeroes * ZEROES_IN_TEXT <= bytes
}

/// Compresses, one frame after the other.
pub(crate) struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    /// For text, if it has a way of its own.
    for_text: Option<zstd::bulk::Compressor<'static>>,
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
            let for_text = match compression.text {
                None => None,
                Some(TextTable { log, shortest_match }) => {
                    let mut zstd = zstd::bulk::Compressor::new(1)?;
                    zstd.set_parameter(CParameter::Strategy(Strategy::ZSTD_fast))?;
                    zstd.set_parameter(CParameter::HashLog(log))?;
                    zstd.set_parameter(CParameter::MinMatch(shortest_match))?;
                    Some(zstd)
                }
            };
            Ok((zstd, for_text))
        };
        let (zstd, for_text) = set_up().map_err(|cause: std::io::Error| {
            Error::unavailable("cannot set up compression").because(cause)
        })?;
        Ok(Self { zstd, for_text, out: Vec::new() })
    }

    /// One zstd frame with its content size. `None` if it would not be smaller by a
    /// sixteenth: saving less is not worth decompressing for.
    pub(crate) fn compress(&mut self, raw: &[u8]) -> Option<&[u8]> {
        self.out.clear();
        self.out.reserve(compress_bound(raw.len()));
        // The buffer has zstd's own bound, so an error means that memory is short; storing
        // the bytes as they are is right then too.
        let zstd = match &mut self.for_text {
            Some(for_text) if is_text(raw) => for_text,
            _ => &mut self.zstd,
        };
        zstd.compress_to_buffer(raw, &mut self.out).ok()?;
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
    fn only_text_is_compressed_as_text() {
        let mut contents = Random::new(1).compressible(1 << 20);
        for byte in &mut contents {
            *byte |= 1;
        }
        let level = Compression::level(3);
        let fast = level.with_fast_text(10, 7);
        assert!(compressed_len(fast, &contents) > compressed_len(level, &contents));
        for byte in contents.iter_mut().step_by(16) {
            *byte = 0;
        }
        assert_eq!(compressed_len(fast, &contents), compressed_len(level, &contents));
    }

    #[test]
    fn text_has_few_zeroes() {
        for len in [1_000, SAMPLE_BYTES * SAMPLES, 1 << 20] {
            for (distance, expected) in [(40, true), (20, false)] {
                let mut contents = vec![b'x'; len];
                assert!(is_text(&contents), "{len}");
                for byte in contents.iter_mut().step_by(distance) {
                    *byte = 0;
                }
                assert_eq!(is_text(&contents), expected, "{len} {distance}");
            }
        }
        assert!(is_text(b""));
    }

    #[test]
    fn settings_that_zstd_does_not_know_are_refused() {
        assert!(Compressor::new(Compression::level(3).with_tables(99, 14)).is_err());
        assert!(Compressor::new(Compression::level(3).with_tables(15, 99)).is_err());
        assert!(Compressor::new(Compression::level(3).with_fast_text(99, 6)).is_err());
        assert!(Compressor::new(Compression::level(3).with_fast_text(15, 99)).is_err());
    }
}

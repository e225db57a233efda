//! How frames are compressed.

use std::io;

use granary_castore::{Error, Result};
use zstd::zstd_safe::{CParameter, Strategy, compress_bound};

/// Settings of zstd for new frames. What is stored can be read whatever they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    way: Way,
    /// For text, if it has a way of its own.
    for_text: Option<Way>,
}

/// How zstd looks for matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As a level does.
    Level(i32),
    /// By the strategy `dfast`, with two tables: 2^`long_log` entries for long matches, 2^`short_log`
    /// for those of at least `shortest_match` bytes.
    TwoTables { long_log: u32, short_log: u32, shortest_match: u32 },
    /// By the strategy `fast`, with one table of 2^`log` entries, and matches of at least
    /// `shortest_match` bytes.
    Fast { log: u32, shortest_match: u32 },
}

impl Compression {
    /// Nothing but a level of zstd's, from 1 to 22.
    pub const fn level(level: i32) -> Self {
        Self::by(Way::Level(level))
    }

    /// The strategy `dfast`, that of level 3, with tables of 2^`long_log` and 2^`short_log` entries,
    /// for long matches and for those of at least `shortest_match` bytes. The store does not open
    /// where zstd knows none such.
    pub const fn two_tables(long_log: u32, short_log: u32, shortest_match: u32) -> Self {
        Self::by(Way::TwoTables { long_log, short_log, shortest_match })
    }

    /// The strategy `fast`, with a table of 2^`log` entries and matches of at least
    /// `shortest_match` bytes. The store does not open where zstd knows none such.
    pub const fn fast(log: u32, shortest_match: u32) -> Self {
        Self::by(Way::Fast { log, shortest_match })
    }

    const fn by(way: Way) -> Self {
        Self { way, for_text: None }
    }

    /// The same, but that text is compressed as by [`fast`](Self::fast).
    #[must_use]
    pub const fn with_fast_text(self, log: u32, shortest_match: u32) -> Self {
        Self { for_text: Some(Way::Fast { log, shortest_match }), ..self }
    }
}

/// Programs by two tables that stay in the cache of a core, with long matches, which are read back
/// fast. Of text zstd's fastest strategy, with one table, makes nearly as little, and there it is an
/// import that waits (docs/decisions/0004).
impl Default for Compression {
    fn default() -> Self {
        Self::two_tables(16, 15, 6).with_fast_text(14, 7)
    }
}

/// How much is looked at to tell what contents are, in so many samples of so many bytes.
const SAMPLES: usize = 16;
const SAMPLE_BYTES: usize = 512;

/// What part of text may be zeroes. There are none in a text, but between two files in a NAR, and so
/// in a frame, there are; of a program, a tenth or more are.
const ZEROES_IN_TEXT: usize = 32;

/// What part of text may be other bytes that no text has, if there are more zeroes: there are between
/// small files. Of nearly every program, more than one in 32 are.
const STRANGE_IN_TEXT: usize = 64;

/// Whether contents seem to be text, or compressed already: nearly no byte is 0, or nearly none but
/// those is no character of ASCII, in samples of them.
fn is_text(raw: &[u8]) -> bool {
    let step = raw.len() / SAMPLES;
    let (mut zeroes, mut strange, mut bytes) = (0, 0, 0);
    for sample in 0..SAMPLES {
        let rest = &raw[sample * step..];
        let sample = &rest[..rest.len().min(SAMPLE_BYTES)];
        zeroes += memchr::memchr_iter(0, sample).count();
        strange += sample.iter().filter(|&&byte| is_strange(byte)).count();
        bytes += sample.len();
    }
    zeroes * ZEROES_IN_TEXT <= bytes || strange * STRANGE_IN_TEXT <= bytes
}

/// Whether a byte is neither 0 nor a character of a text in ASCII.
fn is_strange(byte: u8) -> bool {
    !(byte == 0 || matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~'))
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
        let Compression { way, for_text } = compression;
        let set_up = || {
            let for_text = for_text.map(zstd).transpose()?;
            Ok(Self { zstd: zstd(way)?, for_text, out: Vec::new() })
        };
        set_up().map_err(|cause: io::Error| {
            Error::unavailable("cannot set up compression").because(cause)
        })
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

fn zstd(way: Way) -> io::Result<zstd::bulk::Compressor<'static>> {
    let of = |strategy, shortest_match| {
        vec![CParameter::Strategy(strategy), CParameter::MinMatch(shortest_match)]
    };
    let (level, parameters) = match way {
        Way::Level(level) => (level, Vec::new()),
        Way::TwoTables { long_log, short_log, shortest_match } => {
            let tables = [CParameter::HashLog(long_log), CParameter::ChainLog(short_log)];
            (3, [of(Strategy::ZSTD_dfast, shortest_match), tables.to_vec()].concat())
        }
        Way::Fast { log, shortest_match } => {
            (1, [of(Strategy::ZSTD_fast, shortest_match), vec![CParameter::HashLog(log)]].concat())
        }
    };
    let mut zstd = zstd::bulk::Compressor::new(level)?;
    for parameter in parameters {
        zstd.set_parameter(parameter)?;
    }
    Ok(zstd)
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
        let level = compressed_len(Compression::level(3), &text);
        assert!(compressed_len(Compression::two_tables(8, 8, 5), &text) > level);
        let fast = compressed_len(Compression::fast(16, 5), &text);
        assert!(compressed_len(Compression::fast(8, 5), &text) > fast);
    }

    #[test]
    fn text_is_compressed_in_its_way() {
        let mut contents = Random::new(1).compressible(1 << 20);
        for byte in &mut contents {
            *byte |= 0x81;
        }
        let level = Compression::level(3);
        let text = level.with_fast_text(10, 7);
        for (zeroes, is_text) in [(0, true), (32, true), (16, false), (3, false)] {
            let mut contents = contents.clone();
            if zeroes > 0 {
                contents.iter_mut().step_by(zeroes).for_each(|byte| *byte = 0);
            }
            let is_longer = compressed_len(text, &contents) > compressed_len(level, &contents);
            assert_eq!(is_longer, is_text, "{zeroes}");
        }
    }

    #[test]
    fn text_is_told_by_its_zeroes_and_by_what_else_it_lacks() {
        for len in [1_000, SAMPLE_BYTES * SAMPLES, 1 << 20] {
            // The distances between bytes that are 0, and between others that no text has.
            for (zeroes, strange, expected) in
                [(40, 2, true), (20, 99, true), (3, 101, true), (20, 41, false), (3, 2, false)]
            {
                let mut contents = vec![b'x'; len];
                contents.iter_mut().step_by(strange).for_each(|byte| *byte = 0x8b);
                contents.iter_mut().step_by(zeroes).for_each(|byte| *byte = 0);
                assert_eq!(is_text(&contents), expected, "{len} {zeroes} {strange}");
            }
        }
        assert!(is_text(b""));
        assert!(is_text(b"\0Tabs\tand\r\nlines, {all} ~of~ it.\0"));
        assert!(!is_text(b"\0\x7fELF\x02\x01\x01\0"));
    }

    #[test]
    fn settings_that_zstd_does_not_know_are_refused() {
        let level = Compression::level(3);
        let unknown = [
            Compression::two_tables(99, 14, 5),
            Compression::two_tables(15, 99, 5),
            Compression::two_tables(15, 14, 99),
            Compression::fast(99, 6),
            Compression::fast(15, 99),
            level.with_fast_text(99, 6),
            level.with_fast_text(15, 99),
        ];
        for compression in unknown {
            assert!(Compressor::new(compression).is_err(), "{compression:?}");
        }
    }
}

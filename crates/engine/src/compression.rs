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
    /// For code, if it has a way of its own.
    for_code: Option<Way>,
}

/// How zstd looks for matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As a level does.
    Level(i32),
    /// As a level of the strategy `dfast` does, with tables of other sizes: binary logarithms of the
    /// entries of that of long matches and that of short ones.
    TwoTables { level: i32, long_log: u32, short_log: u32 },
    /// By the strategy `fast`, with one table of 2^`log` entries, and matches of at least
    /// `shortest_match` bytes.
    Fast { log: u32, shortest_match: u32 },
}

impl Compression {
    /// Nothing but a level of zstd's, from 1 to 22.
    pub const fn level(level: i32) -> Self {
        Self::by(Way::Level(level))
    }

    /// Level 3 with tables of 2^`long_log` and 2^`short_log` entries, for long matches and for
    /// short ones. The store does not open where zstd knows none of such a size.
    pub const fn two_tables(long_log: u32, short_log: u32) -> Self {
        Self::by(Way::TwoTables { level: 3, long_log, short_log })
    }

    /// The strategy `fast`, with a table of 2^`log` entries and matches of at least
    /// `shortest_match` bytes. The store does not open where zstd knows none such.
    pub const fn fast(log: u32, shortest_match: u32) -> Self {
        Self::by(Way::Fast { log, shortest_match })
    }

    const fn by(way: Way) -> Self {
        Self { way, for_text: None, for_code: None }
    }

    /// The same, but that text is compressed as by [`fast`](Self::fast).
    #[must_use]
    pub const fn with_fast_text(self, log: u32, shortest_match: u32) -> Self {
        Self { for_text: Some(Way::Fast { log, shortest_match }), ..self }
    }

    /// The same, but that code is compressed as by [`fast`](Self::fast).
    #[must_use]
    pub const fn with_fast_code(self, log: u32, shortest_match: u32) -> Self {
        Self { for_code: Some(Way::Fast { log, shortest_match }), ..self }
    }
}

/// Level 3 with tables that stay in the cache of a core, where its second table finds much: in what
/// is full of zeroes. Elsewhere zstd's fastest strategy, with one table, does nearly as well
/// (docs/decisions/0004).
impl Default for Compression {
    fn default() -> Self {
        Self::two_tables(15, 14).with_fast_text(14, 7).with_fast_code(15, 5)
    }
}

/// How much is looked at to tell what contents are, in so many samples of so many bytes.
const SAMPLES: usize = 16;
const SAMPLE_BYTES: usize = 512;

/// What part of text may be zeroes. There are none in a text, but between two files in a NAR, and so
/// in a frame, there are; of a program, a tenth or more are.
const ZEROES_IN_TEXT: usize = 32;

/// What part of code may be zeroes. Tables, of symbols and relocations, have more.
const ZEROES_IN_CODE: usize = 4;

/// What contents seem to be, by how many zeroes there are in samples of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contents {
    /// Text, or what is compressed already: one byte of [`ZEROES_IN_TEXT`] at most is 0.
    Text,
    /// Code, and most of what else is no text: one of [`ZEROES_IN_CODE`] at most.
    Code,
    Tables,
}

impl Contents {
    fn of(raw: &[u8]) -> Self {
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
        if zeroes * ZEROES_IN_TEXT <= bytes {
            Self::Text
        } else if zeroes * ZEROES_IN_CODE <= bytes {
            Self::Code
        } else {
            Self::Tables
        }
    }
}

/// Compresses, one frame after the other.
pub(crate) struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    /// For text and for code, if they have ways of their own.
    for_text: Option<zstd::bulk::Compressor<'static>>,
    for_code: Option<zstd::bulk::Compressor<'static>>,
    /// Room for what comes out, kept between frames.
    out: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new(compression: Compression) -> Result<Self> {
        let Compression { way, for_text, for_code } = compression;
        let set_up = || {
            let of = |way: Option<Way>| way.map(zstd).transpose();
            Ok(Self {
                zstd: zstd(way)?,
                for_text: of(for_text)?,
                for_code: of(for_code)?,
                out: Vec::new(),
            })
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
        let of_its_own = match Contents::of(raw) {
            Contents::Text => self.for_text.as_mut(),
            Contents::Code => self.for_code.as_mut(),
            Contents::Tables => None,
        };
        let zstd = of_its_own.unwrap_or(&mut self.zstd);
        zstd.compress_to_buffer(raw, &mut self.out).ok()?;
        (self.out.len() + raw.len() / 16 < raw.len()).then_some(&self.out)
    }
}

fn zstd(way: Way) -> io::Result<zstd::bulk::Compressor<'static>> {
    let (level, parameters) = match way {
        Way::Level(level) => (level, Vec::new()),
        Way::TwoTables { level, long_log, short_log } => {
            (level, vec![CParameter::HashLog(long_log), CParameter::ChainLog(short_log)])
        }
        Way::Fast { log, shortest_match } => {
            let strategy = CParameter::Strategy(Strategy::ZSTD_fast);
            (1, vec![strategy, CParameter::HashLog(log), CParameter::MinMatch(shortest_match)])
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
        assert!(compressed_len(Compression::two_tables(8, 8), &text) > level);
        let fast = compressed_len(Compression::fast(16, 5), &text);
        assert!(compressed_len(Compression::fast(8, 5), &text) > fast);
    }

    #[test]
    fn each_is_compressed_in_its_way() {
        let mut contents = Random::new(1).compressible(1 << 20);
        for byte in &mut contents {
            *byte |= 1;
        }
        let level = Compression::level(3);
        let (text, code) = (level.with_fast_text(10, 7), level.with_fast_code(10, 7));
        for (zeroes, by_text, by_code) in [
            (0, true, false),
            (32, true, false),
            (16, false, true),
            (4, false, true),
            (3, false, false),
        ] {
            let mut contents = contents.clone();
            if zeroes > 0 {
                contents.iter_mut().step_by(zeroes).for_each(|byte| *byte = 0);
            }
            let len = compressed_len(level, &contents);
            assert_eq!(compressed_len(text, &contents) > len, by_text, "{zeroes}");
            assert_eq!(compressed_len(code, &contents) > len, by_code, "{zeroes}");
        }
    }

    #[test]
    fn contents_are_told_by_their_zeroes() {
        for len in [1_000, SAMPLE_BYTES * SAMPLES, 1 << 20] {
            for (distance, expected) in [
                (40, Contents::Text),
                (20, Contents::Code),
                (5, Contents::Code),
                (3, Contents::Tables),
            ] {
                let mut contents = vec![b'x'; len];
                assert_eq!(Contents::of(&contents), Contents::Text, "{len}");
                contents.iter_mut().step_by(distance).for_each(|byte| *byte = 0);
                assert_eq!(Contents::of(&contents), expected, "{len} {distance}");
            }
        }
        assert_eq!(Contents::of(b""), Contents::Text);
    }

    #[test]
    fn settings_that_zstd_does_not_know_are_refused() {
        let level = Compression::level(3);
        let unknown = [
            Compression::two_tables(99, 14),
            Compression::two_tables(15, 99),
            Compression::fast(99, 6),
            Compression::fast(15, 99),
            level.with_fast_text(99, 6),
            level.with_fast_text(15, 99),
            level.with_fast_code(99, 6),
            level.with_fast_code(15, 99),
        ];
        for compression in unknown {
            assert!(Compressor::new(compression).is_err(), "{compression:?}");
        }
    }
}

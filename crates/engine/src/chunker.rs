//! Cutting blobs into chunks.

use fastcdc::v2020::FastCDC;

/// Which rules cut: stands in the store's header. It changes whenever any boundary would.
pub(crate) const CHUNKER_ID: u32 = 2;

/// Cuts blobs into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunker {
    average_bytes: usize,
}

/// What chunks are on average, if contents are random, unless told otherwise.
pub const DEFAULT_AVERAGE_CHUNK_BYTES: u32 = 64 << 10;

/// The least and the most that the average may be set to. The largest chunk of the most has no
/// room for more hashes than a patch can number.
pub(crate) const AVERAGE_CHUNK_LIMITS: std::ops::RangeInclusive<u32> = (4 << 10)..=(512 << 10);

impl Chunker {
    /// One that aims at chunks of `average_bytes`; `None` if that is no power of two within
    /// [`AVERAGE_CHUNK_LIMITS`].
    pub(crate) fn new(average_bytes: u32) -> Option<Self> {
        let valid =
            average_bytes.is_power_of_two() && AVERAGE_CHUNK_LIMITS.contains(&average_bytes);
        valid.then_some(Self { average_bytes: average_bytes as usize })
    }

    /// A blob up to this length is one chunk, and so is as much at the end of any other: what
    /// might be found again of it is no longer than a chunk is anyway.
    pub(crate) fn undivided_bytes(self) -> usize {
        self.average_bytes
    }

    /// No chunk but the last of a blob is shorter.
    fn min_bytes(self) -> usize {
        self.average_bytes / 4
    }

    /// No chunk is longer.
    pub(crate) fn max_bytes(self) -> usize {
        self.average_bytes * 4
    }

    /// Length of the first chunk of `data`. If `data` is not the rest of the blob, it must
    /// have at least [`max_bytes`](Self::max_bytes): the cut then is the same whatever
    /// follows.
    pub(crate) fn first_chunk_len(self, data: &[u8]) -> usize {
        if data.len() <= self.undivided_bytes() {
            return data.len();
        }
        let chunker = FastCDC::new(data, self.min_bytes(), self.average_bytes, self.max_bytes());
        chunker.cut(0, data.len()).1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Noise that is the same for ever, whatever the libraries do.
    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..len).map(|_| step()).collect()
    }

    fn chunker() -> Chunker {
        Chunker::new(DEFAULT_AVERAGE_CHUNK_BYTES).expect("it is valid")
    }

    fn cuts(mut data: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while !data.is_empty() {
            let len = chunker().first_chunk_len(data);
            lengths.push(len);
            data = &data[len..];
        }
        lengths
    }

    /// If this fails, stored blobs no longer deduplicate against new ones: give the rules a
    /// new [`CHUNKER_ID`].
    #[test]
    fn boundaries_are_golden() {
        assert_eq!(cuts(&noise(600_000, 1)), GOLDEN_NOISE);
        assert_eq!(cuts(&vec![0; 600_000]), [262_144, 262_144, 75_712]);
        // The first cut of the noise above, unless there is too little to be cut.
        assert_eq!(cuts(&noise(64 << 10, 1)), [64 << 10]);
        assert_eq!(cuts(&noise((64 << 10) + 1, 1)), [19_098, 46_439]);
        assert_eq!(cuts(b""), [0; 0]);
    }

    const GOLDEN_NOISE: &[usize] =
        &[19_098, 56_756, 74_159, 79_654, 92_087, 73_759, 32_425, 52_315, 119_747];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn what_follows_does_not_move_a_cut(len in 0..400_000_usize, seed in any::<u64>()) {
            let max_bytes = chunker().max_bytes();
            let data = noise(max_bytes + len, seed);
            let first = chunker().first_chunk_len(&data[..max_bytes]);
            prop_assert_eq!(chunker().first_chunk_len(&data), first);
        }

        #[test]
        fn chunks_keep_their_limits(len in 0..2_000_000_usize, seed in any::<u64>()) {
            let lengths = cuts(&noise(len, seed));
            prop_assert_eq!(lengths.iter().sum::<usize>(), len);
            prop_assert!(lengths.iter().all(|len| *len <= chunker().max_bytes()));
            let all_but_last = lengths.split_last().map_or(&[][..], |(_, rest)| rest);
            prop_assert!(all_but_last.iter().all(|len| *len >= chunker().min_bytes()));
        }
    }
}

//! Cutting blobs into chunks.

use fastcdc::v2020::FastCDC;

/// Which rules cut: stands in the store's header. It changes whenever any boundary would.
pub(crate) const CHUNKER_ID: u32 = 1;

/// A blob up to this length is one chunk.
pub(crate) const MIN_CHUNK_BYTES: usize = 16 << 10;

/// What chunks are on average, if contents are random.
const AVERAGE_CHUNK_BYTES: usize = 64 << 10;

/// No chunk is longer.
pub(crate) const MAX_CHUNK_BYTES: usize = 256 << 10;

/// Length of the first chunk of `data`. If `data` is not the rest of the blob, it must have
/// at least [`MAX_CHUNK_BYTES`]: the cut then is the same whatever follows.
pub(crate) fn first_chunk_len(data: &[u8]) -> usize {
    if data.len() <= MIN_CHUNK_BYTES {
        return data.len();
    }
    let chunker = FastCDC::new(data, MIN_CHUNK_BYTES, AVERAGE_CHUNK_BYTES, MAX_CHUNK_BYTES);
    chunker.cut(0, data.len()).1
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

    fn cuts(mut data: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while !data.is_empty() {
            let len = first_chunk_len(data);
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
        assert_eq!(cuts(&noise(MIN_CHUNK_BYTES, 2)), [MIN_CHUNK_BYTES]);
        assert_eq!(cuts(b""), [0; 0]);
    }

    const GOLDEN_NOISE: &[usize] =
        &[19_098, 56_756, 74_159, 79_654, 92_087, 73_759, 32_425, 52_315, 119_747];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn what_follows_does_not_move_a_cut(len in 0..400_000_usize, seed in any::<u64>()) {
            let data = noise(MAX_CHUNK_BYTES + len, seed);
            prop_assert_eq!(first_chunk_len(&data), first_chunk_len(&data[..MAX_CHUNK_BYTES]));
        }

        #[test]
        fn chunks_keep_their_limits(len in 0..2_000_000_usize, seed in any::<u64>()) {
            let lengths = cuts(&noise(len, seed));
            prop_assert_eq!(lengths.iter().sum::<usize>(), len);
            prop_assert!(lengths.iter().all(|len| *len <= MAX_CHUNK_BYTES));
            let all_but_last = lengths.split_last().map_or(&[][..], |(_, rest)| rest);
            prop_assert!(all_but_last.iter().all(|len| *len >= MIN_CHUNK_BYTES));
        }
    }
}

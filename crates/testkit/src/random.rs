//! Numbers and bytes that depend on a seed alone.

/// Of nixbase32.
const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// A small generator (`SplitMix64`), which gives the same numbers everywhere and for ever.
/// For fixtures, not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins at `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which must not be 0. Slightly uneven for large ends, which no
    /// fixture minds.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next_u64() % (end as u64)).unwrap_or_default()
    }

    /// True once in `of` times.
    pub fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// `len` bytes that no compressor makes smaller.
    pub fn incompressible(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// The hash part of a store path.
    pub fn hash(&mut self) -> [u8; 32] {
        std::array::from_fn(|_| ALPHABET[self.below(32)])
    }

    /// `len` bytes like [`compressible`](Self::compressible), in which store paths are named:
    /// `hashes` different ones, at about every `every` bytes, some of them cut off or
    /// otherwise no references. With another seed for the hashes only those differ.
    pub fn with_references(
        &mut self,
        len: usize,
        hashes: usize,
        every: usize,
        hash_seed: u64,
    ) -> Vec<u8> {
        let mut hash_random = Random::new(hash_seed);
        let hashes: Vec<_> = (0..hashes).map(|_| hash_random.hash()).collect();
        let mut bytes = Vec::with_capacity(len + 64);
        while bytes.len() < len {
            let text = 1 + self.below(2 * every);
            bytes.extend_from_slice(&self.compressible(text));
            bytes.extend_from_slice(b"/nix/store/");
            let hash = &hashes[self.below(hashes.len())];
            match self.below(8) {
                0 => bytes.extend_from_slice(&ALPHABET[..self.below(32)]),
                1 => bytes.extend_from_slice(b"nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-"),
                _ => {
                    bytes.extend_from_slice(hash);
                    bytes.extend_from_slice(b"-name/lib:");
                }
            }
        }
        bytes.truncate(len);
        bytes
    }

    /// `len` bytes of something like source text: words from a small vocabulary, in lines.
    pub fn compressible(&mut self, len: usize) -> Vec<u8> {
        const WORDS: [&str; 16] = [
            "static", "const", "struct", "return", "if", "else", "buffer", "length", "offset",
            "error", "self", "->", "=", "(", ");", "0x",
        ];
        let mut bytes = Vec::with_capacity(len + 32);
        while bytes.len() < len {
            let word = WORDS[self.below(WORDS.len())];
            bytes.extend_from_slice(word.as_bytes());
            match self.below(8) {
                0 => bytes.extend_from_slice(b"\n    "),
                1 => bytes.extend_from_slice(self.below(1000).to_string().as_bytes()),
                _ => bytes.push(b' '),
            }
        }
        bytes.truncate(len);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_published_sequence() {
        // From the reference implementation (https://prng.di.unimi.it/splitmix64.c).
        let mut random = Random::new(1_234_567);
        let numbers = [random.next_u64(), random.next_u64(), random.next_u64()];
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn bytes_have_the_length_asked_for() {
        for len in [0, 1, 7, 8, 1000] {
            assert_eq!(Random::new(1).incompressible(len).len(), len);
            assert_eq!(Random::new(1).compressible(len).len(), len);
        }
    }
}

//! Which keys a table cannot hold: a Bloom filter in which all bits of a key are in one line of
//! the processor's cache, so that asking waits for memory once.

use twox_hash::XxHash3_64;

use crate::{error::Damage, integer::take_array};

/// Bits for each key. With these, one key in a hundred that is not there seems to be.
const BITS_PER_KEY: u64 = 10;

/// How many bits of a line a key sets, and how many bits of its hash name one of them.
const BITS_SET: u32 = 6;
const BITS_OF_PLACE: u32 = LINE_BITS.trailing_zeros();

const LINE_BITS: u64 = 512;

/// Bytes of a line.
pub(crate) const LINE_BYTES: usize = 64;

/// What filters go by. It is the same for all tables, so it is made once for a look-up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    pub(crate) fn of(key: &[u8]) -> Self {
        Self(XxHash3_64::oneshot(key))
    }

    fn line(self, lines: usize) -> usize {
        // The upper half of the product is below `lines`, and as evenly spread as the hash.
        let product = u128::from(self.0) * lines as u128;
        usize::try_from(product >> 64).expect("it is less than a usize")
    }

    /// Word and bit of each that it sets, from bits that do not choose the line.
    fn places(self) -> impl Iterator<Item = (usize, u64)> {
        let bits = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..BITS_SET).map(move |number| {
            let place = (bits >> (number * BITS_OF_PLACE)) % LINE_BITS;
            (usize::try_from(place / 64).expect("a word of a line"), 1 << (place % 64))
        })
    }
}

/// A line of a cache, so that it never lies in two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(align(64))]
struct Line([u64; LINE_BYTES / 8]);

/// The filter of one table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter(Vec<Line>);

impl Filter {
    /// One for up to `keys` keys.
    pub(crate) fn for_keys(keys: u64) -> Self {
        let lines = keys.saturating_mul(BITS_PER_KEY).div_ceil(LINE_BITS);
        Self(vec![Line::default(); usize::try_from(lines).expect("the keys were in memory")])
    }

    pub(crate) fn insert(&mut self, key: KeyHash) {
        let line = key.line(self.0.len());
        for (word, bit) in key.places() {
            self.0[line].0[word] |= bit;
        }
    }

    /// Whether a key may be there. False is sure.
    pub(crate) fn may_hold(&self, key: KeyHash) -> bool {
        let Some(line) = self.0.get(key.line(self.0.len())) else { return false };
        key.places().all(|(word, bit)| line.0[word] & bit != 0)
    }

    pub(crate) fn lines(&self) -> usize {
        self.0.len()
    }

    /// The bytes of its lines.
    pub(crate) fn encoded(&self) -> impl Iterator<Item = [u8; LINE_BYTES]> {
        self.0.iter().map(|line| {
            let mut bytes = [0; LINE_BYTES];
            for (bytes, word) in bytes.chunks_exact_mut(8).zip(line.0) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            bytes
        })
    }

    /// A filter of the bytes of whole lines.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, Damage> {
        let mut lines = Vec::with_capacity(bytes.len() / LINE_BYTES);
        while !bytes.is_empty() {
            let mut line = Line::default();
            for word in &mut line.0 {
                *word = u64::from_le_bytes(take_array(&mut bytes)?);
            }
            lines.push(line);
        }
        Ok(Self(lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 20_000;

    fn hash(number: u64) -> KeyHash {
        KeyHash::of(&number.to_le_bytes())
    }

    #[test]
    fn it_holds_what_was_inserted_and_little_else() {
        let mut filter = Filter::for_keys(KEYS);
        (0..KEYS).for_each(|number| filter.insert(hash(number)));
        assert!((0..KEYS).all(|number| filter.may_hold(hash(number))));
        let wrong = (KEYS..2 * KEYS).filter(|number| filter.may_hold(hash(*number))).count();
        assert!(wrong < 400, "more than two in a hundred: {wrong}");
    }

    #[test]
    fn round_trips() {
        let mut filter = Filter::for_keys(100);
        (0..100).for_each(|number| filter.insert(hash(number)));
        let bytes: Vec<_> = filter.encoded().flatten().collect();
        assert_eq!(bytes.len(), filter.lines() * LINE_BYTES);
        assert_eq!(Filter::decode(&bytes), Ok(filter));
        assert!(Filter::decode(&bytes[1..]).is_err());
    }

    #[test]
    fn one_without_lines_holds_nothing() {
        assert!(!Filter::for_keys(0).may_hold(hash(1)));
    }
}

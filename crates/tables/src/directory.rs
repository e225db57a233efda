//! Which block of a table a key is in.
//!
//! Of each block it knows the *head*, the first eight bytes of its first key. Keys are mostly a
//! tag and a digest, and digests are spread evenly: the space of the heads of a tag is divided
//! into as many equal parts as give each a few blocks, and a *guide* says which. Then a look-up
//! waits for memory once or twice, where a binary search among millions would do so a dozen times.
//! Where heads are not spread evenly it is a binary search.

use std::ops::Range;

use crate::{error::Damage, integer::take_array};

/// Bytes of a block's entry: its head, most significant byte first, as in the key; its length.
pub(crate) const ENTRY_BYTES: usize = 12;

/// Blocks for each part of the guide.
const BLOCKS_IN_PART: usize = 4;

/// Bits of a head behind its first byte, which is the tag.
const SPACE_BITS: u32 = 56;

/// The first eight bytes of a key, which order as keys do; shorter keys are filled with zeroes.
pub(crate) fn head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = key.len().min(8);
    head[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(head)
}

/// A block, as the directory knows it.
#[derive(Debug)]
struct Entry {
    head: u64,
    /// Where it ends in the file.
    end: u64,
}

/// The blocks of one table.
#[derive(Debug)]
pub(crate) struct Directory {
    /// Heads and ends are together, so that a look-up waits for memory once for both.
    blocks: Vec<Entry>,
    /// Where the first block begins.
    start: u64,
    tags: Vec<Tag>,
    /// For each part of the space of a tag the first block whose head is in it or behind it; and
    /// where the blocks of the tag end.
    guide: Vec<u32>,
}

/// The blocks whose heads have some first byte.
#[derive(Debug)]
struct Tag {
    /// Where its parts begin in the guide.
    guide_at: usize,
    /// Bits by which a head is shifted to the number of its part.
    shift: u32,
}

impl Directory {
    /// Reads the entries of blocks, which lie at `place` in the file.
    pub(crate) fn decode(mut bytes: &[u8], place: Range<u64>) -> Result<Self, Damage> {
        let mut blocks: Vec<Entry> = Vec::with_capacity(bytes.len() / ENTRY_BYTES);
        let mut end = place.start;
        while !bytes.is_empty() {
            let head = u64::from_be_bytes(take_array(&mut bytes)?);
            let len = u32::from_le_bytes(take_array(&mut bytes)?);
            if blocks.last().is_some_and(|last| last.head > head) {
                return Err(Damage("the blocks are not in their order"));
            }
            end += u64::from(len);
            blocks.push(Entry { head, end });
        }
        if end != place.end {
            return Err(Damage("the blocks do not end where they should"));
        }
        let (tags, guide) = guide(&blocks)?;
        Ok(Self { blocks, start: place.start, tags, guide })
    }

    /// How many blocks there are.
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Where a block lies in the file.
    pub(crate) fn place(&self, block: usize) -> Range<u64> {
        let start = if block == 0 { self.start } else { self.blocks[block - 1].end };
        start..self.blocks[block].end
    }

    /// The blocks of which one has the key, if any has: mostly one, and none only if the key is
    /// before all others.
    pub(crate) fn candidates(&self, key: &[u8]) -> Range<usize> {
        let head = head(key);
        let end = self.first_above(head);
        let Some(last) = end.checked_sub(1) else { return 0..0 };
        if self.blocks[last].head < head {
            return last..end;
        }
        // Others may begin with the same bytes. The one before may end with them.
        let first = self.blocks[..last].partition_point(|other| other.head < head);
        first.saturating_sub(1)..end
    }

    /// How many heads are `head` or less.
    fn first_above(&self, head: u64) -> usize {
        let (tag, place) = split(head);
        let Tag { guide_at, shift } = self.tags[tag];
        let part = guide_at + usize::try_from(place >> shift).expect("the parts are in memory");
        let [start, end] = [part, part + 1].map(|part| self.guide[part] as usize);
        start + self.blocks[start..end].partition_point(|other| other.head <= head)
    }
}

/// Tag of a head, and its place in the space of the tag.
fn split(head: u64) -> (usize, u64) {
    let tag = usize::try_from(head >> SPACE_BITS).expect("a byte");
    (tag, head & ((1 << SPACE_BITS) - 1))
}

/// The guide to blocks whose heads ascend.
fn guide(blocks: &[Entry]) -> Result<(Vec<Tag>, Vec<u32>), Damage> {
    let number = |block| u32::try_from(block).map_err(|_| Damage("it has too many blocks"));
    let (mut tags, mut guide) = (Vec::with_capacity(256), Vec::new());
    let mut next = 0;
    for tag in 0..256 {
        let of_tag = blocks[next..].partition_point(|block| split(block.head).0 == tag);
        let bits = (of_tag / BLOCKS_IN_PART).next_power_of_two().ilog2();
        let shift = SPACE_BITS - bits;
        tags.push(Tag { guide_at: guide.len(), shift });
        let end = next + of_tag;
        for part in 0..1_u64 << bits {
            while next < end && split(blocks[next].head).1 >> shift < part {
                next += 1;
            }
            guide.push(number(next)?);
        }
        next = end;
        guide.push(number(end)?);
    }
    Ok((tags, guide))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn directory(heads: &[u64]) -> Directory {
        let entries = heads.iter().map(|head| [&head.to_be_bytes()[..], &[1, 0, 0, 0]].concat());
        let bytes: Vec<_> = entries.flatten().collect();
        Directory::decode(&bytes, 8..8 + heads.len() as u64).expect("in order")
    }

    fn heads() -> impl Strategy<Value = Vec<u64>> {
        let even = prop::collection::vec(any::<u64>(), 0..300);
        let uneven = prop::collection::vec(
            prop_oneof![0..9_u64, any::<u64>(), (7_u64 << 56)..(7 << 56) + 99],
            0..300,
        );
        prop_oneof![even, uneven].prop_map(|mut heads| {
            heads.sort_unstable();
            heads
        })
    }

    proptest! {
        #[test]
        fn candidates_are_all_that_may_have_a_key(heads in heads(), other: u64) {
            let directory = directory(&heads);
            for head in heads.iter().copied().chain([other, other % 9, 0, u64::MAX]) {
                let end = heads.iter().filter(|other| **other <= head).count();
                prop_assert_eq!(directory.first_above(head), end);
                let start = heads.iter().filter(|other| **other < head).count();
                let expected = if end == 0 { 0..0 } else { start.saturating_sub(1)..end };
                prop_assert_eq!(directory.candidates(&head.to_be_bytes()), expected);
            }
        }
    }

    #[test]
    fn parts_are_small_where_heads_are_even() {
        let mut state = 1_u64;
        let even = (0..100_000).map(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (u64::from(b'c') << SPACE_BITS) | (state >> 8)
        });
        let mut heads: Vec<_> = even.collect();
        heads.sort_unstable();
        let directory = directory(&heads);
        let parts = directory.guide.windows(2).map(|part| part[1] - part[0]);
        assert!(parts.clone().all(|blocks| blocks < 40), "{:?}", parts.max());
        assert!(directory.guide.len() < heads.len(), "it takes more than it is worth");
    }

    #[test]
    fn places_follow_each_other() {
        let directory = directory(&[1, 2, 2]);
        assert_eq!([0, 1, 2].map(|block| directory.place(block)), [8..9, 9..10, 10..11]);
        assert_eq!(directory.len(), 3);
    }

    #[test]
    fn disorder_is_damage() {
        let entry = |head: u64| [&head.to_be_bytes()[..], &[1, 0, 0, 0]].concat();
        let decode = |heads: [u64; 2], blocks| {
            Directory::decode(&heads.map(entry).concat(), blocks).map(|directory| directory.len())
        };
        assert_eq!(decode([1, 2], 8..10), Ok(2));
        assert!(decode([2, 1], 8..10).is_err());
        assert!(decode([1, 2], 8..11).is_err());
        assert!(Directory::decode(&[0; 13], 8..8).is_err());
    }
}

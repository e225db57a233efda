//! Some entries of a table that follow each other, which are read together.

use std::{cmp::Ordering, mem, ops::Range};

use twox_hash::XxHash3_64;

use crate::{
    error::Damage,
    integer::{put, take, take_array, take_bytes},
};

/// Bytes of entries at which a block is closed. It holds one entry more than fits, or it would
/// not hold one that is larger.
pub(crate) const BLOCK_BYTES: usize = 1 << 10;

/// A checksum stands before the rest.
const CHECKSUM_BYTES: usize = 8;

/// A value, or `None` if the key was removed.
pub(crate) type Slot<'a> = Option<&'a [u8]>;

/// Gathers entries, whose keys ascend, for one block.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    /// Keys and values, one behind the other.
    bytes: Vec<u8>,
    /// Lengths of each key and its value, in order.
    entries: Vec<(usize, Option<usize>)>,
}

impl BlockBuilder {
    pub(crate) fn push(&mut self, key: &[u8], value: Slot<'_>) {
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.entries.push((key.len(), value.map(<[u8]>::len)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= BLOCK_BYTES
    }

    pub(crate) fn first_key(&self) -> &[u8] {
        self.entries.first().map_or(&[], |(len, _)| &self.bytes[..*len])
    }

    fn last_key(&self) -> &[u8] {
        let Some((key_len, value_len)) = self.entries.last() else { return &[] };
        let value_at = self.bytes.len() - value_len.unwrap_or_default();
        &self.bytes[value_at - key_len..value_at]
    }

    /// Adds the block's bytes to `out`, and begins another.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let checksum_at = out.len();
        out.extend_from_slice(&[0; CHECKSUM_BYTES]);
        let first = self.first_key();
        // Keys ascend: what the first and the last have in common, all have.
        let shared = first.iter().zip(self.last_key()).take_while(|(a, b)| a == b).count();
        put(out, shared);
        out.extend_from_slice(&first[..shared]);
        let suffix_len = self.entries.first().map_or(0, |(len, _)| len - shared);
        let is_fixed = self.entries.iter().all(|(len, _)| len - shared == suffix_len);
        put(out, if is_fixed { suffix_len + 1 } else { 0 });
        let mut rest = &self.bytes[..];
        for (key_len, value_len) in mem::take(&mut self.entries) {
            let (key, behind) = rest.split_at(key_len);
            let (value, behind) = behind.split_at(value_len.unwrap_or_default());
            rest = behind;
            if !is_fixed {
                put(out, key_len - shared);
            }
            out.extend_from_slice(&key[shared..]);
            put(out, value_len.map_or(0, |len| len + 1));
            out.extend_from_slice(value);
        }
        self.bytes.clear();
        let checksum = XxHash3_64::oneshot(&out[checksum_at + CHECKSUM_BYTES..]);
        out[checksum_at..][..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// A block whose checksum is right.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    /// What all keys begin with.
    shared: Range<usize>,
    /// Length of what follows in each key, if it is the same for all.
    suffix_len: Option<usize>,
    /// Bytes of all entries.
    entries_len: usize,
}

impl Block {
    pub(crate) fn check(bytes: Vec<u8>) -> Result<Self, Damage> {
        let mut rest = &bytes[..];
        let checksum = u64::from_le_bytes(take_array(&mut rest)?);
        if XxHash3_64::oneshot(rest) != checksum {
            return Err(Damage("the checksum of a block is wrong"));
        }
        let shared_len = take(&mut rest)?;
        let shared_at = bytes.len() - rest.len();
        take_bytes(&mut rest, shared_len)?;
        let suffix_len = take(&mut rest)?.checked_sub(1);
        let entries_len = rest.len();
        Ok(Self { shared: shared_at..shared_at + shared_len, suffix_len, entries_len, bytes })
    }

    pub(crate) fn shared(&self) -> &[u8] {
        &self.bytes[self.shared.clone()]
    }

    pub(crate) fn entries(&self) -> Entries<'_> {
        self.last_entries(self.entries_len)
    }

    /// Those in the last `len` bytes, as [`Entries::len_bytes`] told it.
    pub(crate) fn last_entries(&self, len: usize) -> Entries<'_> {
        Entries { suffix_len: self.suffix_len, rest: &self.bytes[self.bytes.len() - len..] }
    }

    /// Whether its first key is not behind `key`.
    pub(crate) fn begins_by(&self, key: &[u8]) -> Result<bool, Damage> {
        let Some(wanted) = key.strip_prefix(self.shared()) else { return Ok(key > self.shared()) };
        let (first, _) = self.entries().next()?.ok_or(Damage("a block is empty"))?;
        Ok(first <= wanted)
    }

    /// What it has for a key.
    pub(crate) fn find(&self, key: &[u8]) -> Result<Option<Slot<'_>>, Damage> {
        let Some(wanted) = key.strip_prefix(self.shared()) else { return Ok(None) };
        let mut entries = self.entries();
        while let Some((suffix, value)) = entries.next()? {
            match suffix.cmp(wanted) {
                Ordering::Less => {}
                Ordering::Equal => return Ok(Some(value)),
                Ordering::Greater => break,
            }
        }
        Ok(None)
    }
}

/// Entries of a block, in order.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    suffix_len: Option<usize>,
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    /// Bytes of those that are left.
    pub(crate) fn len_bytes(&self) -> usize {
        self.rest.len()
    }

    /// What the key of the next entry has behind what all share, and its value; `None` at the
    /// end.
    pub(crate) fn next(&mut self) -> Result<Option<(&'a [u8], Slot<'a>)>, Damage> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let suffix_len = match self.suffix_len {
            Some(len) => len,
            None => take(&mut self.rest)?,
        };
        let suffix = take_bytes(&mut self.rest, suffix_len)?;
        let value = match take(&mut self.rest)?.checked_sub(1) {
            Some(len) => Some(take_bytes(&mut self.rest, len)?),
            None => None,
        };
        Ok(Some((suffix, value)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn block<'a>(entries: impl IntoIterator<Item = (&'a [u8], Slot<'a>)>) -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        entries.into_iter().for_each(|(key, value)| builder.push(key, value));
        let mut out = Vec::new();
        builder.finish(&mut out);
        assert!(builder.is_empty(), "it begins another");
        out
    }

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        // Few letters, so that keys share beginnings and are beginnings of each other.
        prop::collection::vec(0..3_u8, 0..6)
    }

    proptest! {
        #[test]
        fn it_has_what_was_pushed(
            entries in prop::collection::btree_map(keys(), any::<Option<Vec<u8>>>(), 1..20),
            asked in keys(),
        ) {
            let slots = entries.iter().map(|(key, value)| (&key[..], value.as_deref()));
            let bytes = block(slots.clone());
            let block = Block::check(bytes).expect("its checksum is right");
            let (mut found, mut all) = (BTreeMap::new(), block.entries());
            while let Some((suffix, value)) = all.next().expect("whole") {
                found.insert([block.shared(), suffix].concat(), value.map(<[u8]>::to_vec));
            }
            prop_assert_eq!(&found, &entries);
            for (key, value) in slots {
                prop_assert_eq!(block.find(key), Ok(Some(value)));
            }
            let expected = entries.get(&asked).map(Option::as_deref);
            prop_assert_eq!(block.find(&asked), Ok(expected));
            let first = entries.keys().next().expect("there is one");
            prop_assert_eq!(block.begins_by(&asked), Ok(*first <= asked));
        }

        #[test]
        fn what_is_not_a_block_is_damage(mut bytes: Vec<u8>, is_sealed: bool) {
            if is_sealed && bytes.len() >= CHECKSUM_BYTES {
                let checksum = XxHash3_64::oneshot(&bytes[CHECKSUM_BYTES..]);
                bytes[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
            }
            if let Ok(block) = Block::check(bytes) {
                block.find(b"key").ok();
                block.begins_by(b"key").ok();
            }
        }
    }

    #[test]
    fn every_flipped_bit_shows() {
        let bytes = block([(&b"ab"[..], Some(&b"1"[..])), (b"ac", None)]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Block::check(flipped).is_err(), "bit {bit}");
        }
    }
}

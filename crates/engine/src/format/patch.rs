//! Patches: what makes one chunk of another.

use super::cursor::{Cursor, Malformed, len_u32};

/// The bytes of a patch object. The chunk has the bytes of the object `base`, in which each
/// patch puts back a part of one of `hashes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Patches {
    pub(crate) base: [u8; 32],
    pub(crate) hashes: Vec<[u8; 32]>,
    pub(crate) places: Vec<Patch>,
}

/// The bytes `hashes[hash][start..start + len]` at `offset`. A patch at the edge of a chunk
/// is a part of a hash, cut there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patch {
    pub(crate) offset: u32,
    pub(crate) hash: u16,
    pub(crate) start: u8,
    pub(crate) len: u8,
}

impl Patches {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(36 + self.hashes.len() * 32 + self.places.len() * 8);
        out.extend_from_slice(&self.base);
        out.extend_from_slice(&len_u32(self.hashes.len()).to_le_bytes());
        for hash in &self.hashes {
            out.extend_from_slice(hash);
        }
        for patch in &self.places {
            out.extend_from_slice(&patch.offset.to_le_bytes());
            out.extend_from_slice(&patch.hash.to_le_bytes());
            out.extend_from_slice(&[patch.start, patch.len]);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let base = cursor.array()?;
        let hash_count = cursor.u32()? as usize;
        let hashes: Vec<[u8; 32]> = cursor
            .take(hash_count.checked_mul(32).ok_or(Malformed("a count is too large"))?)?
            .as_chunks()
            .0
            .to_vec();
        let mut places = Vec::with_capacity(cursor.remaining() / 8);
        while !cursor.is_empty() {
            let patch = Patch {
                offset: cursor.u32()?,
                hash: cursor.u16()?,
                start: cursor.u8()?,
                len: cursor.u8()?,
            };
            if usize::from(patch.hash) >= hashes.len()
                || usize::from(patch.start) + usize::from(patch.len) > 32
            {
                return Err(Malformed("a patch points outside of its hashes"));
            }
            places.push(patch);
        }
        Ok(Self { base, hashes, places })
    }

    /// Puts the hashes back into a copy of the base.
    pub(crate) fn apply(&self, base: &mut [u8]) -> Result<(), Malformed> {
        for patch in &self.places {
            let hash = &self.hashes[usize::from(patch.hash)];
            let (start, len) = (usize::from(patch.start), usize::from(patch.len));
            let offset = patch.offset as usize;
            let target = base
                .get_mut(offset..offset + len)
                .ok_or(Malformed("a patch points outside of its chunk"))?;
            target.copy_from_slice(&hash[start..start + len]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patches() -> Patches {
        let hash = *b"0123456789abcdfghijklmnpqrsvwxyz";
        let places = vec![
            Patch { offset: 0, hash: 1, start: 30, len: 2 },
            Patch { offset: 5, hash: 0, start: 0, len: 3 },
        ];
        Patches { base: [2; 32], hashes: vec![[b'!'; 32], hash], places }
    }

    #[test]
    fn bytes_are_golden() {
        let mut expected = vec![2; 32];
        expected.extend([2, 0, 0, 0]);
        expected.extend([b'!'; 32]);
        expected.extend(b"0123456789abcdfghijklmnpqrsvwxyz");
        expected.extend([0, 0, 0, 0, 1, 0, 30, 2]);
        expected.extend([5, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(patches().encode(), expected);
        assert_eq!(Patches::decode(&expected), Ok(patches()));
    }

    #[test]
    fn puts_parts_of_hashes_back() {
        let mut bytes = b"eewordseee.".to_vec();
        patches().apply(&mut bytes).expect("they fit");
        assert_eq!(bytes, b"yzwor!!!ee.");
        assert!(patches().apply(&mut b"eeword".to_vec()).is_err());
    }

    #[test]
    fn what_points_outside_is_refused() {
        let good = patches();
        let with = |patch| Patches { places: vec![patch], ..good.clone() }.encode();
        let patch = Patch { offset: 0, hash: 1, start: 30, len: 2 };
        assert!(Patches::decode(&with(patch)).is_ok());
        assert!(Patches::decode(&with(Patch { hash: 2, ..patch })).is_err());
        assert!(Patches::decode(&with(Patch { len: 3, ..patch })).is_err());
        let bytes = good.encode();
        for len in (0..36 + 64).chain([36 + 64 + 1, bytes.len() - 1]) {
            assert!(Patches::decode(&bytes[..len]).is_err(), "{len}");
        }
        let mut endless = bytes;
        endless[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Patches::decode(&endless).is_err());
    }
}

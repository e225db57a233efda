//! The footer of a sealed pack: where its segments begin. It only saves reading the pack.

use super::{
    checksum,
    cursor::{Cursor, Malformed, len_u32},
    header::StoreId,
};

/// The last bytes of a sealed pack, which say where the footer begins.
pub(crate) const FOOTER_TAIL_BYTES: usize = 32;

const MAGIC: &[u8; 8] = b"GRANFOOT";

/// Where the segments of a pack begin, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Footer {
    pub(crate) segment_offsets: Vec<u64>,
}

impl Footer {
    pub(crate) fn encode(&self, store_id: StoreId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.segment_offsets.len() * 8 + FOOTER_TAIL_BYTES);
        for offset in &self.segment_offsets {
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        let body_len = len_u32(bytes.len());
        bytes.extend_from_slice(&body_len.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let sum = checksum(&[&store_id.0, &bytes]);
        bytes.extend_from_slice(&sum);
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(MAGIC);
        bytes
    }

    /// From the last bytes of a pack: how long its footer is, if it has one.
    pub(crate) fn footer_len(tail: &[u8; FOOTER_TAIL_BYTES]) -> Option<usize> {
        let (body_len, rest) = tail.split_first_chunk::<4>()?;
        rest.ends_with(MAGIC).then(|| u32::from_le_bytes(*body_len) as usize + FOOTER_TAIL_BYTES)
    }

    /// Reads a whole footer.
    pub(crate) fn decode(bytes: &[u8], store_id: StoreId) -> Result<Self, Malformed> {
        let (body, tail) = bytes
            .len()
            .checked_sub(FOOTER_TAIL_BYTES)
            .and_then(|body_len| bytes.split_at_checked(body_len))
            .ok_or(Malformed("the footer is cut off"))?;
        let mut cursor = Cursor::new(tail);
        let (body_len, _) = (cursor.u32()?, cursor.u32()?);
        if cursor.array::<8>()? != checksum(&[&store_id.0, body, &tail[..8]])
            || cursor.array::<8>()? != [0; 8]
            || cursor.array::<8>()? != *MAGIC
            || body_len as usize != body.len()
        {
            return Err(Malformed("the checksum of the footer is wrong"));
        }
        let mut body = Cursor::new(body);
        let mut segment_offsets = Vec::with_capacity(body.remaining() / 8);
        while !body.is_empty() {
            segment_offsets.push(body.u64()?);
        }
        if segment_offsets.is_sorted_by(|a, b| a < b) {
            Ok(Self { segment_offsets })
        } else {
            Err(Malformed("the footer is not in order"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId([6; 16]);

    #[test]
    fn is_golden() {
        let footer = Footer { segment_offsets: vec![64, 1000] };
        let bytes = footer.encode(STORE);
        let mut expected = vec![64, 0, 0, 0, 0, 0, 0, 0, 232, 3, 0, 0, 0, 0, 0, 0];
        expected.extend([16, 0, 0, 0, 0, 0, 0, 0]);
        let sum = blake3::hash(&[&STORE.0, expected.as_slice()].concat());
        expected.extend(&sum.as_bytes()[..8]);
        expected.extend([0; 8]);
        expected.extend(b"GRANFOOT");
        assert_eq!(bytes, expected);
        assert_eq!(Footer::decode(&bytes, STORE), Ok(footer));
        let tail = bytes.last_chunk().expect("longer than its tail");
        assert_eq!(Footer::footer_len(tail), Some(bytes.len()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = Footer { segment_offsets: vec![64, 1000] }.encode(STORE);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::decode(&damaged, STORE).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Footer::decode(&bytes[..len], STORE).is_err(), "length {len}");
        }
    }
}

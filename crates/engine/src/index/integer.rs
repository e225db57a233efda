//! Integers in as few bytes as they need (LEB128): seven bits for each byte, the lowest first;
//! the highest bit of a byte says that more follow.

use crate::format::{Cursor, Malformed};

pub(super) fn put(out: &mut Vec<u8>, mut integer: u64) {
    while integer >= 0x80 {
        out.push(integer.to_le_bytes()[0] | 0x80);
        integer >>= 7;
    }
    out.push(integer.to_le_bytes()[0]);
}

pub(super) fn take(cursor: &mut Cursor<'_>) -> Result<u64, Malformed> {
    let mut integer = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = cursor.u8()?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        integer |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(integer);
        }
    }
    Err(Malformed("an integer is too large"))
}

pub(super) fn narrow(integer: u64) -> Result<u32, Malformed> {
    u32::try_from(integer).map_err(|_| Malformed("an integer is too large"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(integer: u64, shift in 0..64_u32) {
            let mut bytes = Vec::new();
            put(&mut bytes, integer >> shift);
            prop_assert_eq!(take(&mut Cursor::new(&bytes)), Ok(integer >> shift));
        }
    }

    #[test]
    fn what_is_too_large_or_cut_off_is_malformed() {
        let take = |bytes: &[u8]| take(&mut Cursor::new(bytes));
        let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(take(&largest), Ok(u64::MAX));
        let mut larger = largest;
        larger[9] = 0x02;
        for bytes in [&larger[..], &[0x80; 11], &largest[..9], &[]] {
            assert!(take(bytes).is_err(), "{bytes:?}");
        }
        assert!(narrow(1 << 32).is_err());
    }
}

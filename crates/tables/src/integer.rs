//! Integers off a slice: in as few bytes as they need (LEB128), or of fixed width.

use crate::error::Damage;

/// Adds an integer: seven bits for each byte, the lowest first; the highest bit of a byte says
/// that more follow.
pub(crate) fn put(out: &mut Vec<u8>, mut integer: usize) {
    while integer >= 0x80 {
        out.push(integer.to_le_bytes()[0] | 0x80);
        integer >>= 7;
    }
    out.push(integer.to_le_bytes()[0]);
}

/// Takes what [`put`] added off the front.
pub(crate) fn take(bytes: &mut &[u8]) -> Result<usize, Damage> {
    let mut integer = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Damage("an integer is cut off"))?;
        *bytes = rest;
        let bits = usize::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        integer |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(integer);
        }
    }
    Err(Damage("an integer is too large"))
}

/// Takes `len` bytes off the front.
pub(crate) fn take_bytes<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], Damage> {
    let (taken, rest) = bytes.split_at_checked(len).ok_or(Damage("a field is cut off"))?;
    *bytes = rest;
    Ok(taken)
}

/// Takes as many bytes as the array has off the front.
pub(crate) fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Damage> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(Damage("a field is cut off"))?;
    *bytes = rest;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(integer: usize, shift in 0..usize::BITS) {
            let mut bytes = Vec::new();
            put(&mut bytes, integer >> shift);
            let mut rest = &bytes[..];
            prop_assert_eq!(take(&mut rest), Ok(integer >> shift));
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_is_too_large_or_cut_off_is_damage() {
        let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(take(&mut &largest[..]), Ok(usize::MAX));
        let mut larger = largest;
        larger[9] = 0x02;
        for bytes in [&larger[..], &[0x80; 11], &largest[..9], &[]] {
            assert!(take(&mut &*bytes).is_err(), "{bytes:?}");
        }
        assert!(take_bytes(&mut &[1, 2][..], 3).is_err());
        assert!(take_array::<3>(&mut &[1, 2][..]).is_err());
    }
}

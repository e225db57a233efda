//! Nix's own base 32: digits `0-9a-z` without `e`, `o`, `t`, `u`, the bytes taken as a
//! little-endian number that is written with its most significant digit first.

/// The digits in the order of their values.
const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Marks a byte that is no digit in [`VALUES`].
const NO_DIGIT: u8 = 0xff;

/// The value of each byte as a digit, or [`NO_DIGIT`].
const VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 32_u8 {
        values[ALPHABET[value as usize] as usize] = value;
        value += 1;
    }
    values
}

/// Why a text is not nixbase32 of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No byte string has this many digits, or not one of the wanted length.
    #[error("{digits} digits are not the nixbase32 length of the bytes wanted")]
    Length {
        /// How many bytes the text has.
        digits: usize,
    },
    /// A byte that is no nixbase32 digit.
    #[error("byte {byte:#04x} at position {position} is not a nixbase32 digit")]
    Digit {
        /// The byte found.
        byte: u8,
        /// Where, counted in bytes from 0.
        position: usize,
    },
    /// The bits of the first digit that lie past the last byte are not zero.
    #[error("the unused bits of the first nixbase32 digit are not zero")]
    Padding,
}

/// How many digits `bytes` bytes take.
pub const fn encoded_len(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// Writes `bytes` as nixbase32.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(encoded_len(bytes.len()));
    for digit in (0..encoded_len(bytes.len())).rev() {
        let (byte, shift) = (digit * 5 / 8, digit * 5 % 8);
        let low = u16::from(bytes[byte]);
        let high = bytes.get(byte + 1).copied().map_or(0, u16::from);
        let value = ((low | high << 8) >> shift) & 0x1f;
        text.push(char::from(ALPHABET[usize::from(value)]));
    }
    text
}

/// Reads nixbase32 of any length.
///
/// # Errors
/// When the number of digits is that of no byte string, a byte is no digit, or the unused
/// bits are not zero: each byte string has exactly one text.
pub fn decode(text: &str) -> Result<Vec<u8>, DecodeError> {
    let mut bytes = vec![0; text.len() * 5 / 8];
    decode_into(text, &mut bytes)?;
    Ok(bytes)
}

/// Reads nixbase32 of exactly `N` bytes.
///
/// # Errors
/// As [`decode`], and when the text is not that of `N` bytes.
pub fn decode_fixed<const N: usize>(text: &str) -> Result<[u8; N], DecodeError> {
    let mut bytes = [0; N];
    decode_into(text, &mut bytes)?;
    Ok(bytes)
}

/// Fills `bytes`, which must be zero, from the text that encodes exactly as many.
fn decode_into(text: &str, bytes: &mut [u8]) -> Result<(), DecodeError> {
    let text = text.as_bytes();
    if text.len() != encoded_len(bytes.len()) {
        return Err(DecodeError::Length { digits: text.len() });
    }
    for (digit, (position, &byte)) in text.iter().enumerate().rev().enumerate() {
        let value = VALUES[usize::from(byte)];
        if value == NO_DIGIT {
            return Err(DecodeError::Digit { byte, position });
        }
        let (index, shift) = (digit * 5 / 8, digit * 5 % 8);
        let [low, high] = (u16::from(value) << shift).to_le_bytes();
        bytes[index] |= low;
        match bytes.get_mut(index + 1) {
            Some(next) => *next |= high,
            None if high != 0 => return Err(DecodeError::Padding),
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_texts() {
        assert_eq!(encode(&[]), "");
        assert_eq!(encode(&[0xff]), "7z");
        // SHA-256 of "abc", as `nix-hash --type sha256 --to-base32` writes it.
        let abc = data_encoding::HEXLOWER
            .decode(b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
            .expect("hex");
        let text = "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s";
        assert_eq!(encode(&abc), text);
        assert_eq!(decode(text), Ok(abc));
    }

    #[test]
    fn wrong_lengths() {
        for text in ["0", "000", "000000"] {
            assert_eq!(decode(text), Err(DecodeError::Length { digits: text.len() }));
        }
        assert_eq!(decode_fixed::<20>(&"0".repeat(31)), Err(DecodeError::Length { digits: 31 }));
        assert_eq!(decode_fixed::<20>(&"0".repeat(33)), Err(DecodeError::Length { digits: 33 }));
    }

    #[test]
    fn wrong_digits() {
        for byte in *b"eotuEZ-_ \0" {
            let text = format!("0{}", char::from(byte));
            assert_eq!(decode(&text), Err(DecodeError::Digit { byte, position: 1 }));
        }
        assert!(matches!(decode("\u{e9}"), Err(DecodeError::Digit { byte: 0xa9, position: 1 })));
    }

    #[test]
    fn unused_bits_must_be_zero() {
        assert_eq!(decode("7z"), Ok(vec![0xff]));
        assert_eq!(decode("8z"), Err(DecodeError::Padding));
        assert_eq!(decode_fixed::<1>("zz"), Err(DecodeError::Padding));
    }

    proptest! {
        #[test]
        fn round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let text = encode(&bytes);
            prop_assert_eq!(text.len(), encoded_len(bytes.len()));
            prop_assert_eq!(decode(&text), Ok(bytes));
        }

        #[test]
        fn what_decodes_is_canonical(text in "[0-9a-z]{0,40}") {
            if let Ok(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}

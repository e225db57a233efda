//! Hash algorithms, the texts in which Nix writes their digests, and [`NarHash`].

use std::{fmt, str::FromStr};

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};

use crate::nixbase32;

/// A hash algorithm that a content address may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashAlgorithm {
    /// MD5, 16 bytes.
    Md5,
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl HashAlgorithm {
    /// The length of a digest in bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The name as Nix writes it, such as `sha256`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Reads a digest in hex, nixbase32 or base64, told apart by length as Nix does.
    ///
    /// # Errors
    /// When the text is none of the three for this algorithm.
    pub fn parse_digest(self, text: &str) -> Result<Vec<u8>, HashParseError> {
        let len = self.digest_len();
        let wrong = |cause| HashParseError::Digest { algorithm: self, cause };
        let bytes = if text.len() == len * 2 {
            HEXLOWER_PERMISSIVE
                .decode(text.as_bytes())
                .map_err(|cause| wrong(DigestTextError::Hex(cause)))?
        } else if text.len() == nixbase32::encoded_len(len) {
            nixbase32::decode(text).map_err(|cause| wrong(DigestTextError::Nixbase32(cause)))?
        } else if text.len() == BASE64.encode_len(len) {
            BASE64.decode(text.as_bytes()).map_err(|cause| wrong(DigestTextError::Base64(cause)))?
        } else {
            return Err(HashParseError::Length { algorithm: self, found: text.len() });
        };
        // The lengths of the texts do not decide how much of base64 is padding.
        if bytes.len() == len {
            Ok(bytes)
        } else {
            Err(HashParseError::Length { algorithm: self, found: text.len() })
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HashAlgorithm {
    type Err = HashParseError;

    fn from_str(text: &str) -> Result<Self, HashParseError> {
        [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha512]
            .into_iter()
            .find(|algorithm| algorithm.name() == text)
            .ok_or_else(|| HashParseError::Algorithm { found: text.to_owned() })
    }
}

/// Why a text is not a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashParseError {
    /// There is no `algorithm:` or `algorithm-` in front.
    #[error("hash {found:?} does not begin with its algorithm, as in \"sha256:…\"")]
    Prefix {
        /// The text found.
        found: String,
    },
    /// The algorithm is unknown, or not the one that is needed here.
    #[error("hash algorithm {found:?} is unknown or not allowed here")]
    Algorithm {
        /// The name found.
        found: String,
    },
    /// The digest has a length that no text of this algorithm has.
    #[error("{found} characters are no {algorithm} digest in hex, nixbase32 or base64")]
    Length {
        /// The algorithm named.
        algorithm: HashAlgorithm,
        /// The length of the digest's text in bytes.
        found: usize,
    },
    /// The digest has the length of an encoding, but does not decode.
    #[error("the {algorithm} digest does not decode")]
    Digest {
        /// The algorithm named.
        algorithm: HashAlgorithm,
        /// What is wrong with the text.
        #[source]
        cause: DigestTextError,
    },
}

/// Why the text of a digest does not decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestTextError {
    /// It has the length of hex.
    #[error("not hex: {0}")]
    Hex(data_encoding::DecodeError),
    /// It has the length of nixbase32.
    #[error("not nixbase32: {0}")]
    Nixbase32(nixbase32::DecodeError),
    /// It has the length of base64, or is an SRI hash.
    #[error("not base64: {0}")]
    Base64(data_encoding::DecodeError),
}

/// The SHA-256 of a NAR's bytes (or of a compressed NAR, where a narinfo gives that).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NarHash([u8; 32]);

impl NarHash {
    /// Takes the digest's bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// `sha256:` and the digest in nixbase32, as narinfo and fingerprint write it.
    pub fn to_nix_string(&self) -> String {
        format!("sha256:{}", nixbase32::encode(&self.0))
    }

    /// Reads `sha256:` with hex, nixbase32 or base64 behind, or SRI (`sha256-` and base64).
    ///
    /// # Errors
    /// When the text has no such form.
    pub fn parse_nix_string(text: &str) -> Result<Self, HashParseError> {
        let (name, digest, sri) = if let Some((name, digest)) = text.split_once(':') {
            (name, digest, false)
        } else if let Some((name, digest)) = text.split_once('-') {
            (name, digest, true)
        } else {
            return Err(HashParseError::Prefix { found: text.to_owned() });
        };
        let algorithm = HashAlgorithm::Sha256;
        if name != algorithm.name() {
            return Err(HashParseError::Algorithm { found: name.to_owned() });
        }
        let wrong_length = || HashParseError::Length { algorithm, found: digest.len() };
        if sri && digest.len() != BASE64.encode_len(algorithm.digest_len()) {
            return Err(wrong_length());
        }
        let bytes = algorithm.parse_digest(digest)?;
        Ok(Self(bytes.try_into().map_err(|_| wrong_length())?))
    }
}

impl fmt::Display for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_nix_string())
    }
}

impl fmt::Debug for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NarHash({})", HEXLOWER.encode(&self.0))
    }
}

impl FromStr for NarHash {
    type Err = HashParseError;

    fn from_str(text: &str) -> Result<Self, HashParseError> {
        Self::parse_nix_string(text)
    }
}

impl TryFrom<&[u8]> for NarHash {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// SHA-256 of "abc".
    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn all_forms_are_read() {
        let forms = [
            format!("sha256:{HEX}"),
            format!("sha256:{}", HEX.to_uppercase()),
            "sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s".to_owned(),
            "sha256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=".to_owned(),
            "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=".to_owned(),
        ];
        for form in forms {
            let hash = NarHash::parse_nix_string(&form).expect("a form of the hash");
            assert_eq!(HEXLOWER.encode(hash.as_bytes()), HEX, "{form}");
        }
    }

    #[test]
    fn wrong_forms() {
        let parse = |text: &str| NarHash::parse_nix_string(text).expect_err("not a hash");
        assert!(matches!(parse(HEX), HashParseError::Prefix { .. }));
        assert!(matches!(parse(&format!("md5:{HEX}")), HashParseError::Algorithm { .. }));
        assert!(matches!(parse("sha256:"), HashParseError::Length { found: 0, .. }));
        assert!(matches!(parse(&format!("sha256:{HEX}0")), HashParseError::Length { .. }));
        assert!(matches!(parse(&format!("sha256-{HEX}")), HashParseError::Length { .. }));
        for text in ["g".repeat(64), "e".repeat(52), "!".repeat(44), "z".repeat(52)] {
            let error = parse(&format!("sha256:{text}"));
            assert!(matches!(error, HashParseError::Digest { .. }), "{text}: {error}");
        }
        // 44 characters of base64, but 33 and 31 bytes.
        for text in ["A".repeat(44), format!("{}==", "A".repeat(42))] {
            let error = parse(&format!("sha256:{text}"));
            assert!(matches!(error, HashParseError::Length { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn algorithms_by_name() {
        for name in ["md5", "sha1", "sha256", "sha512"] {
            assert_eq!(name.parse::<HashAlgorithm>().map(HashAlgorithm::name), Ok(name));
        }
        assert!("blake3".parse::<HashAlgorithm>().is_err());
    }

    proptest! {
        #[test]
        fn round_trip(bytes: [u8; 32]) {
            let hash = NarHash::from_bytes(bytes);
            prop_assert_eq!(hash.to_string().parse(), Ok(hash));
            let sri = format!("sha256-{}", BASE64.encode(&bytes));
            prop_assert_eq!(NarHash::parse_nix_string(&sri), Ok(hash));
        }

        #[test]
        fn any_text_is_an_answer(text in "(sha256[:-])?.{0,70}") {
            let _ = NarHash::parse_nix_string(&text);
        }
    }
}

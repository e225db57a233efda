//! Signatures as a narinfo writes them: `name:base64`.

use std::{fmt, str::FromStr};

use data_encoding::BASE64;

/// Why a text is not a signature or a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no `:` between name and base64.
    #[error("a {what} has the form <name>:<base64>, and there is no colon")]
    Form {
        /// "signature", "public key" or "secret key".
        what: &'static str,
    },
    /// The name is empty, or holds a colon, whitespace or a control character.
    #[error("{name:?} cannot be the name of a key")]
    Name {
        /// The name found.
        name: String,
    },
    /// What follows the name is not base64.
    #[error("the {what} with name {name:?} is not base64")]
    Base64 {
        /// "signature", "public key" or "secret key".
        what: &'static str,
        /// The name.
        name: String,
        /// Where base64 ends.
        #[source]
        cause: data_encoding::DecodeError,
    },
    /// It is base64 of another number of bytes.
    #[error("the {what} with name {name:?} has {found} bytes, not {expected}")]
    Length {
        /// "signature", "public key" or "secret key".
        what: &'static str,
        /// The name.
        name: String,
        /// How many bytes there are.
        found: usize,
        /// How many there must be.
        expected: usize,
    },
    /// The bytes are no point on the curve, or the halves of a secret key do not belong
    /// together.
    #[error("the {what} with name {name:?} is not a valid ed25519 key")]
    Key {
        /// "public key" or "secret key".
        what: &'static str,
        /// The name.
        name: String,
    },
}

/// An ed25519 signature and the name of the key that made it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature {
    /// The key's name. [`Signature::new`] and [`Signature::parse`] check it; a value put
    /// together otherwise may hold one that no narinfo can carry.
    pub name: String,
    /// The signature.
    pub bytes: [u8; 64],
}

impl Signature {
    /// A signature whose name is checked.
    ///
    /// # Errors
    /// When the name is empty or has a colon, whitespace or a control character.
    pub fn new(name: impl Into<String>, bytes: [u8; 64]) -> Result<Self, KeyError> {
        let name = name.into();
        check_key_name(&name)?;
        Ok(Self { name, bytes })
    }

    /// Reads `name:base64`.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = parse_named("signature", text)?;
        Ok(Self { name, bytes })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, BASE64.encode(&self.bytes))
    }
}

impl FromStr for Signature {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

/// A name must survive on a narinfo's line and in `trusted-public-keys`, a list that is
/// separated by whitespace.
pub(crate) fn check_key_name(name: &str) -> Result<(), KeyError> {
    let forbidden = |c: char| c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.contains(forbidden) {
        return Err(KeyError::Name { name: name.to_owned() });
    }
    Ok(())
}

/// Reads `name:base64` of exactly `N` bytes.
pub(crate) fn parse_named<const N: usize>(
    what: &'static str,
    text: &str,
) -> Result<(String, [u8; N]), KeyError> {
    let (name, base64) = text.split_once(':').ok_or(KeyError::Form { what })?;
    check_key_name(name)?;
    let name = name.to_owned();
    match BASE64.decode(base64.as_bytes()) {
        Ok(bytes) => match bytes.try_into() {
            Ok(bytes) => Ok((name, bytes)),
            Err(bytes) => Err(KeyError::Length { what, name, found: bytes.len(), expected: N }),
        },
        Err(cause) => Err(KeyError::Base64 { what, name, cause }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wrong_texts() {
        let base64 = BASE64.encode(&[7; 64]);
        assert!(Signature::parse(&format!("k-1:{base64}")).is_ok());
        assert_eq!(Signature::parse("k"), Err(KeyError::Form { what: "signature" }));
        for name in ["", "a b", "a\nURL", "a\tb", "a\0", "\u{a0}"] {
            let error = Signature::parse(&format!("{name}:{base64}"));
            assert!(matches!(error, Err(KeyError::Name { .. })), "{name:?}");
            assert!(Signature::new(name, [0; 64]).is_err(), "{name:?}");
        }
        assert!(Signature::new("a:b", [0; 64]).is_err());
        for text in [format!("k:{base64} "), format!("k::{base64}"), "k:A".to_owned()] {
            assert!(matches!(Signature::parse(&text), Err(KeyError::Base64 { .. })), "{text}");
        }
        let short = Signature::parse(&format!("k:{}", BASE64.encode(&[7; 63])));
        assert!(matches!(short, Err(KeyError::Length { found: 63, expected: 64, .. })));
    }

    proptest! {
        #[test]
        fn round_trip(name in "[a-zA-Z0-9._-]{1,30}", bytes in any::<[u8; 64]>()) {
            let signature = Signature::new(name, bytes).expect("an allowed name");
            prop_assert_eq!(Signature::parse(&signature.to_string()), Ok(signature));
        }
    }
}

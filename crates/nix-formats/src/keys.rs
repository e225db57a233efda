//! The ed25519 keys that sign fingerprints, in the texts that Nix keeps them in.

use std::{fmt, str::FromStr};

use data_encoding::BASE64;
use ed25519_dalek::{Signer, VerifyingKey};

use crate::signature::{KeyError, Signature, check_key_name, parse_named};

/// A secret key with its name, as `nix-store --generate-binary-cache-key` writes it.
///
/// `Debug` shows the name only. The key's memory is overwritten when it is dropped.
#[derive(Clone)]
pub struct SigningKey {
    name: String,
    key: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// Makes the key that belongs to a seed, which must come from a good random source.
    ///
    /// # Errors
    /// When the name is empty or has a colon, whitespace or a control character.
    pub fn generate(name: impl Into<String>, seed: [u8; 32]) -> Result<Self, KeyError> {
        let name = name.into();
        check_key_name(&name)?;
        Ok(Self { name, key: ed25519_dalek::SigningKey::from_bytes(&seed) })
    }

    /// Reads `name:base64` of 64 bytes: the seed and the public key. Whitespace around it,
    /// such as the newline of a key file, is ignored.
    ///
    /// # Errors
    /// When the text has another form, or the public key is not that of the seed.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let what = "secret key";
        let (name, bytes) = parse_named(what, text.trim())?;
        match ed25519_dalek::SigningKey::from_keypair_bytes(&bytes) {
            Ok(key) => Ok(Self { name, key }),
            Err(_) => Err(KeyError::Key { what, name }),
        }
    }

    /// The key as [`SigningKey::parse`] and Nix read it. This is the secret itself.
    pub fn to_secret_string(&self) -> String {
        format!("{}:{}", self.name, BASE64.encode(&self.key.to_keypair_bytes()))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Signs a message, which for Nix is a [fingerprint](crate::fingerprint).
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature { name: self.name.clone(), bytes: self.key.sign(message).to_bytes() }
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl FromStr for SigningKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

/// A public key with its name, as `trusted-public-keys` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: VerifyingKey,
}

impl PublicKey {
    /// Reads `name:base64` of 32 bytes. Whitespace around it is ignored.
    ///
    /// # Errors
    /// When the text has another form, or the bytes are no point on the curve.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let what = "public key";
        let (name, bytes) = parse_named(what, text.trim())?;
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) => Ok(Self { name, key }),
            Err(_) => Err(KeyError::Key { what, name }),
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Whether the signature bears this key's name and is valid for the message.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        // Strict, as libsodium is, with which Nix verifies: no keys of small order.
        let bytes = ed25519_dalek::Signature::from_bytes(&signature.bytes);
        self.name == signature.name && self.key.verify_strict(message, &bytes).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, BASE64.encode(self.key.as_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn debug_hides_the_secret() {
        let key = SigningKey::generate("k-1", [7; 32]).expect("a name");
        assert_eq!(format!("{key:?}"), "SigningKey { name: \"k-1\", .. }");
    }

    #[test]
    fn wrong_keys() {
        let key = SigningKey::generate("k-1", [7; 32]).expect("a name");
        let secret = key.to_secret_string();
        assert!(SigningKey::parse(&format!(" {secret}\n")).is_ok());
        assert!(matches!(SigningKey::generate("a b", [0; 32]), Err(KeyError::Name { .. })));
        // The public half of another seed.
        let other = SigningKey::generate("k-1", [8; 32]).expect("a name");
        let mixed = [[7; 32], *other.public_key().as_bytes()].concat();
        let mixed = SigningKey::parse(&format!("k-1:{}", BASE64.encode(&mixed)));
        assert!(matches!(mixed, Err(KeyError::Key { what: "secret key", .. })));
        let public = PublicKey::parse(&secret);
        assert!(matches!(public, Err(KeyError::Length { found: 64, expected: 32, .. })));
        // Two is the y coordinate of no point.
        let mut no_point = [0; 32];
        no_point[0] = 2;
        let no_point = PublicKey::parse(&format!("k:{}", BASE64.encode(&no_point)));
        assert!(matches!(no_point, Err(KeyError::Key { what: "public key", .. })));
    }

    proptest! {
        #[test]
        fn signs_and_verifies(seed: [u8; 32], message: Vec<u8>, flip in 0..512_usize) {
            let key = SigningKey::generate("cache.example.org-1", seed).expect("a name");
            let key = SigningKey::parse(&key.to_secret_string()).expect("what we wrote");
            let public = key.public_key();
            prop_assert_eq!(PublicKey::parse(&public.to_string()), Ok(public.clone()));
            let signature = key.sign(&message);
            prop_assert!(public.verify(&message, &signature));

            let mut damaged = signature.clone();
            damaged.bytes[flip / 8] ^= 1 << (flip % 8);
            prop_assert!(!public.verify(&message, &damaged));
            let mut longer = message.clone();
            longer.push(0);
            prop_assert!(!public.verify(&longer, &signature));
            let mut renamed = signature;
            renamed.name.push('2');
            prop_assert!(!public.verify(&message, &renamed));
        }
    }
}

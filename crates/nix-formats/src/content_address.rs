//! Content addresses (the `CA` of a narinfo) and the store paths that follow from them.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::{
    HashAlgorithm, HashParseError, STORE_DIR, StorePath, StorePathError, StorePathHash, nixbase32,
};

/// What the contents of a path that is addressed by contents hash to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ContentAddress {
    /// `text:sha256:…`: one file, by the hash of its contents; may have references, but
    /// not to itself. Derivations and `builtins.toFile`.
    Text {
        /// SHA-256 of the contents.
        digest: [u8; 32],
    },
    /// `fixed:…`: fixed outputs and sources.
    Fixed {
        /// Whether the hash is that of the NAR; else it is that of the one file's contents.
        recursive: bool,
        /// The algorithm.
        algorithm: HashAlgorithm,
        /// The digest, of the algorithm's length.
        digest: Vec<u8>,
    },
}

/// Why a text is not a content address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentAddressError {
    /// It begins neither with `text:` nor with `fixed:`, or names no algorithm.
    #[error("content address {found:?} is neither \"text:sha256:…\" nor \"fixed:…\"")]
    Form {
        /// The text found.
        found: String,
    },
    /// Its hash is not valid.
    #[error("the hash of content address {found:?} is not valid")]
    Hash {
        /// The text found.
        found: String,
        /// What is wrong with the hash.
        #[source]
        cause: HashParseError,
    },
}

impl ContentAddress {
    /// Reads `text:sha256:…`, `fixed:<algorithm>:…` or `fixed:r:<algorithm>:…`; the digest
    /// may be in hex, nixbase32 or base64.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, ContentAddressError> {
        let form = || ContentAddressError::Form { found: text.to_owned() };
        let hash = |cause| ContentAddressError::Hash { found: text.to_owned(), cause };
        let (kind, rest) = text.split_once(':').ok_or_else(form)?;
        let (recursive, rest) = match (kind, rest.strip_prefix("r:")) {
            ("fixed", Some(rest)) => (true, rest),
            _ => (false, rest),
        };
        let (algorithm, digest) = rest.split_once(':').ok_or_else(form)?;
        let algorithm: HashAlgorithm = algorithm.parse().map_err(hash)?;
        let digest = algorithm.parse_digest(digest).map_err(hash)?;
        match kind {
            "fixed" => Ok(Self::Fixed { recursive, algorithm, digest }),
            // Only the digest of SHA-256 has this length.
            "text" => Ok(Self::Text { digest: digest.try_into().map_err(|_| form())? }),
            _ => Err(form()),
        }
    }

    /// The path that contents of this address have under `name`. `references` are those to
    /// other paths, in any order; `self_reference` says whether the contents also refer to
    /// the path itself (the address is then that of the contents with the hash part put to
    /// zeros, which is for the caller to compute).
    ///
    /// # Errors
    /// When Nix does not allow the name, or a path of this kind to have such references.
    pub fn store_path(
        &self,
        name: impl Into<String>,
        references: &[StorePath],
        self_reference: bool,
    ) -> Result<StorePath, StorePathError> {
        let name = name.into();
        let no_such_references =
            || StorePathError::References { content_address: self.to_string() };
        match self {
            Self::Text { .. } if self_reference => Err(no_such_references()),
            Self::Text { digest } => make_path(&path_type("text", references, false), digest, name),
            Self::Fixed { recursive: true, algorithm: HashAlgorithm::Sha256, digest } => {
                make_path(&path_type("source", references, self_reference), digest, name)
            }
            Self::Fixed { .. } if self_reference || !references.is_empty() => {
                Err(no_such_references())
            }
            Self::Fixed { recursive, algorithm, digest } => {
                let method = if *recursive { "r:" } else { "" };
                let inner = format!("fixed:out:{method}{algorithm}:{}:", HEXLOWER.encode(digest));
                make_path("output:out", &Sha256::digest(inner.as_bytes()), name)
            }
        }
    }
}

/// The type of a path, with its references in Nix's order.
fn path_type(kind: &str, references: &[StorePath], self_reference: bool) -> String {
    let mut references: Vec<&StorePath> = references.iter().collect();
    references.sort_unstable();
    references.dedup();
    let mut text = kind.to_owned();
    for reference in references {
        text.push(':');
        text.push_str(&reference.absolute());
    }
    if self_reference {
        text.push_str(":self");
    }
    text
}

/// The hash part is SHA-256 of a text that names everything, folded to 20 bytes.
fn make_path(
    path_type: &str,
    inner_digest: &[u8],
    name: String,
) -> Result<StorePath, StorePathError> {
    let inner_digest = HEXLOWER.encode(inner_digest);
    let text = format!("{path_type}:sha256:{inner_digest}:{STORE_DIR}:{name}");
    let mut folded = [0; 20];
    for (index, byte) in Sha256::digest(text.as_bytes()).into_iter().enumerate() {
        folded[index % folded.len()] ^= byte;
    }
    StorePath::new(StorePathHash::from_bytes(folded), name)
}

impl fmt::Display for ContentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { digest } => write!(f, "text:sha256:{}", nixbase32::encode(digest)),
            Self::Fixed { recursive, algorithm, digest } => {
                let method = if *recursive { "r:" } else { "" };
                write!(f, "fixed:{method}{algorithm}:{}", nixbase32::encode(digest))
            }
        }
    }
}

impl FromStr for ContentAddress {
    type Err = ContentAddressError;

    fn from_str(text: &str) -> Result<Self, ContentAddressError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_address() -> impl Strategy<Value = ContentAddress> {
        use HashAlgorithm::{Md5, Sha1, Sha256, Sha512};
        let algorithm = prop_oneof![Just(Md5), Just(Sha1), Just(Sha256), Just(Sha512)];
        prop_oneof![
            any::<[u8; 32]>().prop_map(|digest| ContentAddress::Text { digest }),
            (any::<bool>(), algorithm, any::<[u8; 64]>()).prop_map(
                |(recursive, algorithm, bytes)| ContentAddress::Fixed {
                    recursive,
                    algorithm,
                    digest: bytes[..algorithm.digest_len()].to_vec(),
                }
            ),
        ]
    }

    #[test]
    fn wrong_texts() {
        let digest = "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s";
        for text in ["", "text", "text:", "fixed:r:", "sha256:x", &format!("nar:sha256:{digest}")] {
            let error = ContentAddress::parse(text).expect_err(text);
            assert!(matches!(error, ContentAddressError::Form { .. }), "{text}: {error}");
        }
        let sha1_text = format!("text:sha1:{}", "0".repeat(32));
        let error = ContentAddress::parse(&sha1_text).expect_err("text is always sha256");
        assert!(matches!(error, ContentAddressError::Form { .. }), "{error}");
        for text in [
            format!("text:r:sha256:{digest}"),
            format!("fixed:r:r:sha256:{digest}"),
            format!("fixed:sha1:{digest}"),
            format!("fixed:git:{digest}"),
            format!("fixed:sha256:{digest}0"),
        ] {
            let error = ContentAddress::parse(&text).expect_err(&text);
            assert!(matches!(error, ContentAddressError::Hash { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn references_only_where_nix_has_them() {
        let path = StorePath::new(StorePathHash::from_bytes([1; 20]), "a").expect("a path");
        let refs = [path];
        let text = ContentAddress::Text { digest: [0; 32] };
        assert!(text.store_path("t", &refs, false).is_ok());
        assert!(matches!(
            text.store_path("t", &refs, true),
            Err(StorePathError::References { .. })
        ));
        let fixed = |recursive, algorithm: HashAlgorithm| ContentAddress::Fixed {
            recursive,
            algorithm,
            digest: vec![0; algorithm.digest_len()],
        };
        let source = fixed(true, HashAlgorithm::Sha256);
        let plain = source.store_path("t", &[], false).expect("no references");
        let with_refs = source.store_path("t", &refs, false).expect("references");
        let with_self = source.store_path("t", &refs, true).expect("a self-reference");
        assert_ne!(plain, with_refs);
        assert_ne!(with_refs, with_self);
        for address in [fixed(false, HashAlgorithm::Sha256), fixed(true, HashAlgorithm::Sha1)] {
            assert!(address.store_path("t", &[], false).is_ok());
            for (references, itself) in [(&refs[..], false), (&[], true)] {
                assert!(address.store_path("t", references, itself).is_err());
            }
        }
    }

    #[test]
    fn order_and_repetition_of_references_do_not_matter() {
        let path =
            |byte| StorePath::new(StorePathHash::from_bytes([byte; 20]), "a").expect("a path");
        let source = ContentAddress::Text { digest: [7; 32] };
        let sorted = source.store_path("t", &[path(1), path(2)], false);
        assert_eq!(source.store_path("t", &[path(2), path(1), path(2)], false), sorted);
    }

    proptest! {
        #[test]
        fn round_trip(address in any_address()) {
            prop_assert_eq!(ContentAddress::parse(&address.to_string()), Ok(address));
        }
    }
}

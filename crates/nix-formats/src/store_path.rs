//! Store paths: `/nix/store/<hash>-<name>`.

use std::{cmp::Ordering, fmt, str::FromStr};

use crate::{ContentAddress, HashAlgorithm, NarHash, nixbase32};

/// The store directory, the only one that Granary serves.
pub const STORE_DIR: &str = "/nix/store";

/// The longest name of a store path, in bytes. Nix's limit: with hash and `.drv` or `.lock`
/// behind, it still fits into the 255 bytes of a file name.
pub const MAX_STORE_PATH_NAME_BYTES: usize = 211;

/// The length of a hash part in characters.
const HASH_CHARS: usize = nixbase32::encoded_len(20);

/// Why something is not a store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorePathError {
    /// An absolute path that does not lie directly in [`STORE_DIR`].
    #[error("{path:?} is not a path directly in {STORE_DIR}")]
    NotInStore {
        /// The path found.
        path: String,
    },
    /// There is no `-` behind the 32 characters of the hash part.
    #[error("{base_name:?} is not of the form <32 characters>-<name>")]
    Form {
        /// The base name found.
        base_name: String,
    },
    /// The hash part is not nixbase32 of 20 bytes.
    #[error("hash part {text:?} of a store path is not valid")]
    Hash {
        /// The hash part found.
        text: String,
        /// What is wrong with it.
        #[source]
        cause: nixbase32::DecodeError,
    },
    /// The hash is given in bytes, and not in 20.
    #[error("a store path hash has 20 bytes, not {found}")]
    HashLength {
        /// How many there are.
        found: usize,
    },
    /// The name is empty or too long.
    #[error("store path name of {len} bytes; it must have 1 to {MAX_STORE_PATH_NAME_BYTES}")]
    NameLength {
        /// Its length in bytes.
        len: usize,
    },
    /// The name has a character outside `0-9a-zA-Z+-._?=`.
    #[error("store path name {name:?} contains {found:?}, which Nix does not allow")]
    NameCharacter {
        /// The name.
        name: String,
        /// The first such character.
        found: char,
    },
    /// The name is `.` or `..`, or begins with one of them and a dash.
    #[error("store path name {name:?} could be taken for a relative directory")]
    NameDots {
        /// The name.
        name: String,
    },
    /// A content address of a kind that has no references was given some.
    #[error("a path with content address {content_address} cannot have such references")]
    References {
        /// The content address.
        content_address: String,
    },
}

/// The 20 bytes that tell store paths apart, written as 32 characters of nixbase32.
///
/// `Ord` is that of the bytes, which is not the order of the texts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePathHash([u8; 20]);

impl StorePathHash {
    /// Takes the bytes.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// Reads the 32 characters of nixbase32.
    ///
    /// # Errors
    /// When the text is not that.
    pub fn parse(text: &str) -> Result<Self, StorePathError> {
        nixbase32::decode_fixed(text)
            .map(Self)
            .map_err(|cause| StorePathError::Hash { text: text.to_owned(), cause })
    }
}

impl fmt::Display for StorePathHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&nixbase32::encode(&self.0))
    }
}

impl fmt::Debug for StorePathHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorePathHash({self})")
    }
}

impl FromStr for StorePathHash {
    type Err = StorePathError;

    fn from_str(text: &str) -> Result<Self, StorePathError> {
        Self::parse(text)
    }
}

impl TryFrom<&[u8]> for StorePathHash {
    type Error = StorePathError;

    fn try_from(bytes: &[u8]) -> Result<Self, StorePathError> {
        bytes.try_into().map(Self).map_err(|_| StorePathError::HashLength { found: bytes.len() })
    }
}

/// A store path: a hash part and a name that Nix accepts.
///
/// `Ord` is that of the base names, in which Nix sorts references.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StorePath {
    hash: StorePathHash,
    name: String,
}

impl StorePath {
    /// A path of its parts.
    ///
    /// # Errors
    /// When Nix does not allow the name.
    pub fn new(hash: StorePathHash, name: impl Into<String>) -> Result<Self, StorePathError> {
        let name = name.into();
        check_name(&name)?;
        Ok(Self { hash, name })
    }

    /// Reads `<hash>-<name>`.
    ///
    /// # Errors
    /// When the text has another form, or Nix does not allow the name.
    pub fn from_base_name(base_name: &str) -> Result<Self, StorePathError> {
        let form = || StorePathError::Form { base_name: shortened(base_name) };
        let (hash, rest) = base_name.split_at_checked(HASH_CHARS).ok_or_else(form)?;
        let name = rest.strip_prefix('-').ok_or_else(form)?;
        Self::new(StorePathHash::parse(hash)?, name)
    }

    /// Reads `/nix/store/<hash>-<name>`, with nothing behind it.
    ///
    /// # Errors
    /// When the path is not directly in [`STORE_DIR`], or its base name is not valid.
    pub fn from_absolute(path: &str) -> Result<Self, StorePathError> {
        path.strip_prefix(STORE_DIR)
            .and_then(|rest| rest.strip_prefix('/'))
            .filter(|base_name| !base_name.contains('/'))
            .ok_or_else(|| StorePathError::NotInStore { path: shortened(path) })
            .and_then(Self::from_base_name)
    }

    /// The path that `nix-store --add` gives to a tree with this NAR hash: addressed by
    /// contents, without references.
    ///
    /// # Errors
    /// When Nix does not allow the name.
    pub fn for_source(name: impl Into<String>, nar_hash: &NarHash) -> Result<Self, StorePathError> {
        Self::fixed_output(name, true, HashAlgorithm::Sha256, nar_hash.as_bytes())
    }

    /// The path of a fixed output without references: `digest` is that of the NAR if
    /// `recursive`, else that of the one file's contents.
    ///
    /// # Errors
    /// When Nix does not allow the name.
    pub fn fixed_output(
        name: impl Into<String>,
        recursive: bool,
        algorithm: HashAlgorithm,
        digest: &[u8],
    ) -> Result<Self, StorePathError> {
        ContentAddress::Fixed { recursive, algorithm, digest: digest.to_vec() }.store_path(
            name,
            &[],
            false,
        )
    }

    /// The path of a text (`builtins.toFile`, a derivation): `digest` is the SHA-256 of the
    /// contents.
    ///
    /// # Errors
    /// When Nix does not allow the name.
    pub fn text(
        name: impl Into<String>,
        digest: &[u8; 32],
        references: &[StorePath],
    ) -> Result<Self, StorePathError> {
        ContentAddress::Text { digest: *digest }.store_path(name, references, false)
    }

    /// The hash part.
    pub const fn hash(&self) -> &StorePathHash {
        &self.hash
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `<hash>-<name>`.
    pub fn base_name(&self) -> String {
        self.to_string()
    }

    /// `/nix/store/<hash>-<name>`.
    pub fn absolute(&self) -> String {
        format!("{STORE_DIR}/{self}")
    }
}

/// Nix's rules for names.
fn check_name(name: &str) -> Result<(), StorePathError> {
    if name.is_empty() || name.len() > MAX_STORE_PATH_NAME_BYTES {
        return Err(StorePathError::NameLength { len: name.len() });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+-._?=".contains(c);
    if let Some(found) = name.chars().find(|&c| !allowed(c)) {
        return Err(StorePathError::NameCharacter { name: name.to_owned(), found });
    }
    if matches!(name.split('-').next(), Some("." | "..")) {
        return Err(StorePathError::NameDots { name: name.to_owned() });
    }
    Ok(())
}

/// What an error quotes of a text of any length.
fn shortened(text: &str) -> String {
    /// Longer than any store path, so that a valid one with something behind it is shown.
    const MAX_QUOTED_CHARS: usize = 300;
    text.chars().take(MAX_QUOTED_CHARS).collect()
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.hash, self.name)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorePath({self})")
    }
}

impl Ord for StorePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // The first character holds the most significant bits of the last byte, and the
        // digits ascend in ASCII: comparing the bytes from the last compares the texts.
        let digits = |path: &Self| path.hash.0.into_iter().rev();
        digits(self).cmp(digits(other)).then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for StorePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for StorePath {
    type Err = StorePathError;

    /// Reads a base name, not an absolute path.
    fn from_str(text: &str) -> Result<Self, StorePathError> {
        Self::from_base_name(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "slnq0qwffq4zk8fvimrid70czkss4kch";

    #[test]
    fn parses_and_displays() {
        let path = StorePath::from_absolute(&format!("{STORE_DIR}/{HASH}-tree")).expect("a path");
        assert_eq!(path.name(), "tree");
        assert_eq!(path.hash().to_string(), HASH);
        assert_eq!(path.to_string(), format!("{HASH}-tree"));
        assert_eq!(path.absolute(), format!("/nix/store/{HASH}-tree"));
        assert_eq!(StorePath::from_base_name(&path.base_name()), Ok(path));
    }

    #[test]
    fn names() {
        let hash = StorePathHash::from_bytes([0; 20]);
        let new = |name: &str| StorePath::new(hash, name);
        for name in ["a", "-", ".a", "...", ".a-b", "..a", "A+b-c._?=9", "a..", &"x".repeat(211)] {
            assert!(new(name).is_ok(), "{name}");
        }
        assert_eq!(new(""), Err(StorePathError::NameLength { len: 0 }));
        assert_eq!(new(&"x".repeat(212)), Err(StorePathError::NameLength { len: 212 }));
        for name in ["a b", "a/b", "a\n", "\u{e9}", "a~", "a\0", "a:"] {
            assert!(matches!(new(name), Err(StorePathError::NameCharacter { .. })), "{name:?}");
        }
        for name in [".", "..", ".-", "..-", ".-a", "..-a"] {
            assert!(matches!(new(name), Err(StorePathError::NameDots { .. })), "{name}");
        }
    }

    #[test]
    fn wrong_paths() {
        let absolute = StorePath::from_absolute;
        for path in [
            String::new(),
            format!("{HASH}-a"),
            format!("/nix/store{HASH}-a"),
            format!("/nix/store/{HASH}-a/"),
            format!("/nix/store/{HASH}-a/bin"),
            format!("/nix/store//{HASH}-a"),
            format!("/nix/stores/{HASH}-a"),
        ] {
            assert!(matches!(absolute(&path), Err(StorePathError::NotInStore { .. })), "{path}");
        }
        let base_name = StorePath::from_base_name;
        for text in ["", "a", HASH, &format!("{HASH}a-b"), &format!("{}\u{e9}-b", &HASH[1..])] {
            assert!(matches!(base_name(text), Err(StorePathError::Form { .. })), "{text}");
        }
        let bad_digit = format!("{}-a", HASH.replace('s', "e"));
        assert!(matches!(base_name(&bad_digit), Err(StorePathError::Hash { .. })));
        assert!(matches!(base_name(&format!("{HASH}-")), Err(StorePathError::NameLength { .. })));
        assert_eq!(
            StorePathHash::try_from(&[0; 19][..]),
            Err(StorePathError::HashLength { found: 19 })
        );
    }

    fn any_path() -> impl Strategy<Value = StorePath> {
        (any::<[u8; 20]>(), "[0-9a-zA-Z+_?=][0-9a-zA-Z+._?=-]{0,20}").prop_map(|(hash, name)| {
            StorePath::new(StorePathHash::from_bytes(hash), name).expect("allowed characters")
        })
    }

    proptest! {
        #[test]
        fn round_trip(path in any_path()) {
            prop_assert_eq!(StorePath::from_base_name(&path.base_name()), Ok(path.clone()));
            prop_assert_eq!(StorePath::from_absolute(&path.absolute()), Ok(path));
        }

        #[test]
        fn order_is_that_of_base_names(a in any_path(), b in any_path()) {
            prop_assert_eq!(a.cmp(&b), a.base_name().cmp(&b.base_name()));
        }

        #[test]
        fn any_text_is_an_answer(text in "(/nix/store/)?.{0,50}") {
            let _ = StorePath::from_absolute(&text);
            let _ = StorePath::from_base_name(&text);
        }
    }
}

//! narinfo: what a binary cache says about one store path, and the fingerprint that its
//! signatures are made over.

use std::fmt;

use crate::{
    ContentAddress, ContentAddressError, HashParseError, KeyError, NarHash, Signature, StorePath,
    StorePathError, signature::check_key_name,
};

/// The longest narinfo that is read, in bytes. A path with ten thousand references fits.
pub const MAX_NARINFO_BYTES: usize = 1024 * 1024;

/// What Nix writes where it does not know the deriver.
const UNKNOWN_DERIVER: &str = "unknown-deriver";

/// The compression of a narinfo that names none.
const DEFAULT_COMPRESSION: &str = "bzip2";

/// The contents of a `.narinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarInfo {
    /// The path.
    pub store_path: StorePath,
    /// Where the NAR lies, absolute or relative to the cache.
    pub url: String,
    /// How the NAR at `url` is compressed, as written: `none`, `xz`, `zstd`, ...
    pub compression: String,
    /// SHA-256 of the compressed NAR.
    pub file_hash: Option<NarHash>,
    /// The size of the compressed NAR in bytes.
    pub file_size: Option<u64>,
    /// SHA-256 of the NAR.
    pub nar_hash: NarHash,
    /// The size of the NAR in bytes; not 0.
    pub nar_size: u64,
    /// The paths that this one refers to, itself included where it does; each once.
    pub references: Vec<StorePath>,
    /// The derivation that built it.
    pub deriver: Option<StorePath>,
    /// The system it was built for. Nix no longer writes it.
    pub system: Option<String>,
    /// Signatures of the fingerprint.
    pub signatures: Vec<Signature>,
    /// How the path follows from the contents, if it does.
    pub ca: Option<ContentAddress>,
}

/// Why a text is not a narinfo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NarInfoError {
    /// It is over [`MAX_NARINFO_BYTES`].
    #[error("narinfo of {len} bytes, over the limit of {MAX_NARINFO_BYTES}")]
    TooLarge {
        /// Its length.
        len: usize,
    },
    /// The last line has no end, so something may be missing.
    #[error("narinfo is truncated: its last line does not end")]
    Truncated,
    /// A line that is no field.
    #[error("line {line} of the narinfo is not of the form <field>: <value>")]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// A field that must be there is not.
    #[error("narinfo without {field}")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field is there twice.
    #[error("narinfo with more than one {field}")]
    Duplicate {
        /// The field.
        field: &'static str,
    },
    /// A value that is not allowed.
    #[error("{field} {value:?} of the narinfo is not allowed: {why}")]
    Value {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
        /// What it should be.
        why: &'static str,
    },
    /// A value that is not a store path.
    #[error("{field} of the narinfo is not a store path")]
    StorePath {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        cause: StorePathError,
    },
    /// A value that is not a SHA-256.
    #[error("{field} of the narinfo is not a SHA-256")]
    Hash {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        cause: HashParseError,
    },
    /// A signature that is none.
    #[error("Sig of the narinfo is not a signature")]
    Signature(#[source] KeyError),
    /// A content address that is none.
    #[error("CA of the narinfo is not a content address")]
    ContentAddress(#[source] ContentAddressError),
}

/// The text that Nix signs: version, path, NAR hash, NAR size and references, sorted.
pub fn fingerprint(
    store_path: &StorePath,
    nar_hash: &NarHash,
    nar_size: u64,
    references: &[StorePath],
) -> String {
    let mut references: Vec<&StorePath> = references.iter().collect();
    references.sort_unstable();
    references.dedup();
    let references: Vec<String> = references.into_iter().map(StorePath::absolute).collect();
    format!("1;{};{nar_hash};{nar_size};{}", store_path.absolute(), references.join(","))
}

impl NarInfo {
    /// Reads a narinfo. Fields that are not known are ignored.
    ///
    /// # Errors
    /// When it is too large, truncated, lacks a field, has one twice, or has a value that
    /// is not valid.
    pub fn parse(text: &str) -> Result<Self, NarInfoError> {
        if text.len() > MAX_NARINFO_BYTES {
            return Err(NarInfoError::TooLarge { len: text.len() });
        }
        let mut fields = Fields::default();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let line = line.strip_suffix('\n').ok_or(NarInfoError::Truncated)?;
            let (field, value) =
                line.split_once(':').ok_or(NarInfoError::Line { line: index + 1 })?;
            fields.add(field, value.strip_prefix(' ').unwrap_or(value))?;
        }
        fields.check()
    }

    /// The text that its signatures are made over.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.store_path, &self.nar_hash, self.nar_size, &self.references)
    }
}

/// The known fields as written.
#[derive(Default)]
struct Fields<'a> {
    store_path: Option<&'a str>,
    url: Option<&'a str>,
    compression: Option<&'a str>,
    file_hash: Option<&'a str>,
    file_size: Option<&'a str>,
    nar_hash: Option<&'a str>,
    nar_size: Option<&'a str>,
    references: Option<&'a str>,
    deriver: Option<&'a str>,
    system: Option<&'a str>,
    signatures: Vec<&'a str>,
    ca: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn add(&mut self, field: &str, value: &'a str) -> Result<(), NarInfoError> {
        let (field, slot) = match field {
            "StorePath" => ("StorePath", &mut self.store_path),
            "URL" => ("URL", &mut self.url),
            "Compression" => ("Compression", &mut self.compression),
            "FileHash" => ("FileHash", &mut self.file_hash),
            "FileSize" => ("FileSize", &mut self.file_size),
            "NarHash" => ("NarHash", &mut self.nar_hash),
            "NarSize" => ("NarSize", &mut self.nar_size),
            "References" => ("References", &mut self.references),
            "Deriver" => ("Deriver", &mut self.deriver),
            "System" => ("System", &mut self.system),
            "CA" => ("CA", &mut self.ca),
            "Sig" => {
                self.signatures.push(value);
                return Ok(());
            }
            _ => return Ok(()),
        };
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err(NarInfoError::Duplicate { field }),
        }
    }

    fn check(self) -> Result<NarInfo, NarInfoError> {
        let missing = |field| NarInfoError::Missing { field };
        let store_path = self.store_path.ok_or_else(|| missing("StorePath"))?;
        let store_path = StorePath::from_absolute(store_path)
            .map_err(|cause| NarInfoError::StorePath { field: "StorePath", cause })?;
        let deriver = match self.deriver {
            None | Some(UNKNOWN_DERIVER) => None,
            Some(base_name) => Some(base_path("Deriver", base_name)?),
        };
        let ca = match self.ca {
            None | Some("") => None,
            Some(ca) => Some(ContentAddress::parse(ca).map_err(NarInfoError::ContentAddress)?),
        };
        let nar_size = number("NarSize", self.nar_size.ok_or_else(|| missing("NarSize"))?)?;
        if nar_size == 0 {
            return Err(wrong_value("NarSize", "0", "a NAR is never empty"));
        }
        let compression = match self.compression {
            None | Some("") => DEFAULT_COMPRESSION,
            Some(compression) => word("Compression", compression)?,
        };
        let signatures = self.signatures.into_iter().map(Signature::parse);
        Ok(NarInfo {
            store_path,
            url: word("URL", self.url.ok_or_else(|| missing("URL"))?)?.to_owned(),
            compression: compression.to_owned(),
            file_hash: self.file_hash.map(|text| hash("FileHash", text)).transpose()?,
            file_size: self.file_size.map(|text| number("FileSize", text)).transpose()?,
            nar_hash: hash("NarHash", self.nar_hash.ok_or_else(|| missing("NarHash"))?)?,
            nar_size,
            references: references(self.references.unwrap_or_default())?,
            deriver,
            system: self.system.map(|text| word("System", text)).transpose()?.map(str::to_owned),
            signatures: signatures.collect::<Result<_, _>>().map_err(NarInfoError::Signature)?,
            ca,
        })
    }
}

/// Reads references in the order written, each once.
fn references(text: &str) -> Result<Vec<StorePath>, NarInfoError> {
    let mut seen = std::collections::BTreeSet::new();
    let mut references = Vec::new();
    for base_name in text.split_ascii_whitespace() {
        let path = base_path("References", base_name)?;
        if seen.insert(path.clone()) {
            references.push(path);
        }
    }
    Ok(references)
}

fn base_path(field: &'static str, text: &str) -> Result<StorePath, NarInfoError> {
    StorePath::from_base_name(text).map_err(|cause| NarInfoError::StorePath { field, cause })
}

fn hash(field: &'static str, text: &str) -> Result<NarHash, NarInfoError> {
    NarHash::parse_nix_string(text).map_err(|cause| NarInfoError::Hash { field, cause })
}

fn number(field: &'static str, text: &str) -> Result<u64, NarInfoError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(number),
        _ => Err(wrong_value(field, text, "a number of bytes is needed")),
    }
}

/// A value without whitespace, so that it cannot break out of the line it is written on.
fn word<'a>(field: &'static str, text: &'a str) -> Result<&'a str, NarInfoError> {
    let forbidden = |c: char| c.is_whitespace() || c.is_control();
    if text.is_empty() || text.contains(forbidden) {
        return Err(wrong_value(field, text, "text without whitespace is needed"));
    }
    Ok(text)
}

fn wrong_value(field: &'static str, value: &str, why: &'static str) -> NarInfoError {
    /// Enough to recognise the value, however long it is.
    const MAX_QUOTED_CHARS: usize = 200;
    let value = value.chars().take(MAX_QUOTED_CHARS).collect();
    NarInfoError::Value { field, value, why }
}

impl fmt::Display for NarInfo {
    /// Writes the fields in Nix's order. A signature whose name cannot stand on a line (one
    /// that [`Signature::new`] rejects) is left out: it could not be read back, or would
    /// smuggle fields in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "StorePath: {}", self.store_path.absolute())?;
        writeln!(f, "URL: {}", self.url)?;
        writeln!(f, "Compression: {}", self.compression)?;
        if let Some(hash) = &self.file_hash {
            writeln!(f, "FileHash: {hash}")?;
        }
        if let Some(size) = self.file_size {
            writeln!(f, "FileSize: {size}")?;
        }
        writeln!(f, "NarHash: {}", self.nar_hash)?;
        writeln!(f, "NarSize: {}", self.nar_size)?;
        // Nix's parser needs the space behind the colon even if nothing follows.
        let references: Vec<String> = self.references.iter().map(StorePath::base_name).collect();
        writeln!(f, "References: {}", references.join(" "))?;
        if let Some(deriver) = &self.deriver {
            writeln!(f, "Deriver: {deriver}")?;
        }
        if let Some(system) = &self.system {
            writeln!(f, "System: {system}")?;
        }
        for signature in &self.signatures {
            if check_key_name(&signature.name).is_ok() {
                writeln!(f, "Sig: {signature}")?;
            }
        }
        if let Some(ca) = &self.ca {
            writeln!(f, "CA: {ca}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{HashAlgorithm, StorePathHash};

    const HASH: &str = "sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s";

    /// Only what must be there.
    fn minimal() -> Vec<String> {
        vec![
            "StorePath: /nix/store/slnq0qwffq4zk8fvimrid70czkss4kch-tree".to_owned(),
            "URL: nar/x.nar".to_owned(),
            format!("NarHash: {HASH}"),
            "NarSize: 120".to_owned(),
        ]
    }

    fn parse(lines: &[String]) -> Result<NarInfo, NarInfoError> {
        NarInfo::parse(&(lines.join("\n") + "\n"))
    }

    fn parse_with(line: &str) -> Result<NarInfo, NarInfoError> {
        let mut lines = minimal();
        lines.push(line.to_owned());
        parse(&lines)
    }

    #[test]
    fn what_may_be_missing() {
        let info = parse(&minimal()).expect("all that is needed");
        assert_eq!(info.compression, "bzip2");
        assert_eq!(info.nar_size, 120);
        assert_eq!((info.file_hash, info.file_size), (None, None));
        assert!(info.references.is_empty() && info.signatures.is_empty());
        assert_eq!((&info.deriver, &info.system, &info.ca), (&None, &None, &None));
        let lines = ["Compression: ", "References:", "References: ", "CA: ", "Unknown: field: x"];
        for line in lines.into_iter().chain(["Deriver: unknown-deriver"]) {
            assert_eq!(parse_with(line), Ok(info.clone()), "{line:?}");
        }
    }

    #[test]
    fn what_must_be_there() {
        for (index, field) in ["StorePath", "URL", "NarHash", "NarSize"].into_iter().enumerate() {
            let mut lines = minimal();
            lines.remove(index);
            assert_eq!(parse(&lines), Err(NarInfoError::Missing { field }));
        }
        assert_eq!(NarInfo::parse(""), Err(NarInfoError::Missing { field: "StorePath" }));
    }

    #[test]
    fn what_may_be_there_once() {
        for field in [
            "StorePath",
            "URL",
            "Compression",
            "FileHash",
            "FileSize",
            "NarHash",
            "NarSize",
            "References",
            "Deriver",
            "System",
            "CA",
        ] {
            let mut lines = minimal();
            lines.extend([format!("{field}: x"), format!("{field}: x")]);
            assert_eq!(parse(&lines), Err(NarInfoError::Duplicate { field }));
        }
    }

    #[test]
    fn values_that_are_not_allowed() {
        let mut lines = minimal();
        lines[3] = "NarSize: 0".to_owned();
        assert!(matches!(parse(&lines), Err(NarInfoError::Value { field: "NarSize", .. })));
        for size in ["", "+1", "-1", " 1", "1 ", "0x1", "18446744073709551616"] {
            let result = parse_with(&format!("FileSize: {size}"));
            assert!(matches!(result, Err(NarInfoError::Value { .. })), "{size:?}");
        }
        for url in ["", "a b", "a\r"] {
            lines = minimal();
            lines[1] = format!("URL: {url}");
            assert!(matches!(parse(&lines), Err(NarInfoError::Value { field: "URL", .. })));
        }
        assert!(matches!(parse_with("FileHash: x"), Err(NarInfoError::Hash { .. })));
        assert!(matches!(parse_with("References: x"), Err(NarInfoError::StorePath { .. })));
        assert!(matches!(parse_with("Deriver: x"), Err(NarInfoError::StorePath { .. })));
        assert!(matches!(parse_with("Deriver: "), Err(NarInfoError::StorePath { .. })));
        assert!(matches!(parse_with("Sig: x"), Err(NarInfoError::Signature(_))));
        assert!(matches!(parse_with("CA: x"), Err(NarInfoError::ContentAddress(_))));
        assert!(matches!(parse_with("no field"), Err(NarInfoError::Line { line: 5 })));
        assert!(matches!(parse_with(""), Err(NarInfoError::Line { line: 5 })));
        let unfinished = minimal().join("\n");
        assert_eq!(NarInfo::parse(&unfinished), Err(NarInfoError::Truncated));
        let large = format!("X: {}\n", "x".repeat(MAX_NARINFO_BYTES));
        assert!(matches!(NarInfo::parse(&large), Err(NarInfoError::TooLarge { .. })));
    }

    #[test]
    fn a_signature_smuggles_nothing_in() {
        let mut info = parse(&minimal()).expect("all that is needed");
        let name = "k\nCompression: none\nSig: k".to_owned();
        info.signatures.push(Signature { name, bytes: [0; 64] });
        let read = NarInfo::parse(&info.to_string()).expect("the rest");
        info.signatures.clear();
        assert_eq!(read, info);
    }

    #[test]
    fn fingerprint_sorts_references() {
        let path = |hash, name| {
            StorePath::new(StorePathHash::from_bytes([hash; 20]), name).expect("a path")
        };
        // Nix sorts by the text, in which the last byte comes first.
        let (a, b, c) = (path(1, "b"), path(1, "c"), path(2, "a"));
        let hash = NarHash::parse_nix_string(HASH).expect("a hash");
        let text = fingerprint(&a, &hash, 7, &[c.clone(), b.clone(), a.clone(), b.clone()]);
        let paths = [&a, &b, &c].map(StorePath::absolute).join(",");
        assert_eq!(text, format!("1;{};{HASH};7;{paths}", a.absolute()));
        assert_eq!(fingerprint(&a, &hash, 7, &[]), format!("1;{};{HASH};7;", a.absolute()));
    }

    fn any_path() -> impl Strategy<Value = StorePath> {
        (any::<[u8; 20]>(), "[a-z]{1,8}").prop_map(|(hash, name)| {
            StorePath::new(StorePathHash::from_bytes(hash), name).expect("an allowed name")
        })
    }

    fn any_narinfo() -> impl Strategy<Value = NarInfo> {
        let hash = || any::<[u8; 32]>().prop_map(NarHash::from_bytes);
        let signature = ("[a-z.-]{1,9}", any::<[u8; 64]>())
            .prop_map(|(name, bytes)| Signature::new(name, bytes).expect("an allowed name"));
        let ca = any::<[u8; 32]>().prop_map(|digest| ContentAddress::Fixed {
            recursive: digest[0] & 1 == 0,
            algorithm: HashAlgorithm::Sha256,
            digest: digest.to_vec(),
        });
        let required = (any_path(), "[!-~]{1,30}", "[a-z]{1,5}", hash(), 1..=u64::MAX);
        let optional = (
            proptest::option::of(hash()),
            proptest::option::of(any::<u64>()),
            proptest::collection::btree_set(any_path(), 0..6),
            proptest::option::of(any_path()),
            proptest::option::of("[a-z0-9_-]{1,12}"),
            proptest::collection::vec(signature, 0..4),
            proptest::option::of(ca),
        );
        (required, optional).prop_map(|(required, optional)| {
            let (store_path, url, compression, nar_hash, nar_size) = required;
            let (file_hash, file_size, references, deriver, system, signatures, ca) = optional;
            NarInfo {
                store_path,
                url,
                compression,
                file_hash,
                file_size,
                nar_hash,
                nar_size,
                references: references.into_iter().collect(),
                deriver,
                system,
                signatures,
                ca,
            }
        })
    }

    proptest! {
        #[test]
        fn round_trip(info in any_narinfo()) {
            prop_assert_eq!(NarInfo::parse(&info.to_string()), Ok(info));
        }

        #[test]
        fn any_text_is_an_answer(info in any_narinfo(), cut in any::<prop::sample::Index>()) {
            let text = info.to_string();
            let _ = NarInfo::parse(&text[..cut.index(text.len())]);
        }
    }
}

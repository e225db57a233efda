//! The paths of a binary cache.

use granary_nix_formats::StorePathHash;

use super::{castore_url, document::Sort};

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `nix-cache-info`
    CacheInfo,
    /// `<hash>.narinfo`
    NarInfo(StorePathHash),
    /// `<hash>.ls`
    Listing(StorePathHash),
    /// `nar/snix-castore/<node>` or `nar/tvix-castore/<node>`: the node, encoded.
    CastoreNar(String),
    /// `nar/<name>`
    UploadedNar(String),
    /// Something that is kept as it came, by its sort and its name.
    Document(Sort, String),
}

impl Target {
    /// Reads the path of a URL; `None` if it is none of a binary cache.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let path = decode_percent(path.strip_prefix('/')?)?;
        if path == "nix-cache-info" {
            return Some(Self::CacheInfo);
        }
        let Some((directory, name)) = path.split_once('/') else {
            return if let Some(hash) = path.strip_suffix(".narinfo") {
                StorePathHash::parse(hash).ok().map(Self::NarInfo)
            } else {
                let hash = path.strip_suffix(".ls")?;
                StorePathHash::parse(hash).ok().map(Self::Listing)
            };
        };
        if directory == "nar" {
            return match castore_url::encoded_node(name) {
                Some(encoded) => Some(Self::CastoreNar(encoded.to_owned())),
                None => is_plain(name).then(|| Self::UploadedNar(name.to_owned())),
            };
        }
        let sort = Sort::of_directory(directory)?;
        let is_name = match sort {
            Sort::Log | Sort::DebugInfo => is_plain(name),
            Sort::Realisation => is_plain(name.strip_suffix(".doi")?),
            Sort::BuildTrace => {
                let (derivation, output) = name.strip_suffix(".doi")?.split_once('/')?;
                is_plain(derivation) && is_plain(output)
            }
        };
        is_name.then(|| Self::Document(sort, name.to_owned()))
    }
}

/// Whether `name` is one segment of a path.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != ".."
}

/// Undoes the percent encoding of a path; `None` if it is broken or no UTF-8.
fn decode_percent(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        rest = behind;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00000000000000000000000000000001";

    #[test]
    fn parses_each() {
        let hash = StorePathHash::parse(HASH).expect("nixbase32");
        let document = |sort, name: &str| Target::Document(sort, name.to_owned());
        let cases = [
            ("/nix-cache-info".to_owned(), Target::CacheInfo),
            (format!("/{HASH}.narinfo"), Target::NarInfo(hash)),
            (format!("/{HASH}.ls"), Target::Listing(hash)),
            ("/nar/x.nar.xz".to_owned(), Target::UploadedNar("x.nar.xz".to_owned())),
            ("/nar/snix-castore/Cg".to_owned(), Target::CastoreNar("Cg".to_owned())),
            ("/nar/tvix-castore/Cg".to_owned(), Target::CastoreNar("Cg".to_owned())),
            ("/log/a.drv".to_owned(), document(Sort::Log, "a.drv")),
            ("/debuginfo/ab%2Bcd".to_owned(), document(Sort::DebugInfo, "ab+cd")),
            (
                "/realisations/sha256:ab!out.doi".to_owned(),
                document(Sort::Realisation, "sha256:ab!out.doi"),
            ),
            (
                "/realisations/sha256%3Aab%21out.doi".to_owned(),
                document(Sort::Realisation, "sha256:ab!out.doi"),
            ),
            (
                "/build-trace-v2/a.drv/out.doi".to_owned(),
                document(Sort::BuildTrace, "a.drv/out.doi"),
            ),
        ];
        for (path, expected) in cases {
            assert_eq!(Target::parse(&path), Some(expected), "{path}");
        }
    }

    #[test]
    fn refuses_all_else() {
        for path in [
            "",
            "/",
            "/x",
            "/x.narinfo",
            "/e0000000000000000000000000000001.narinfo",
            "/nar/",
            "/nar/..",
            "/nar/a/b",
            "/nar/%2e%2e",
            "/nar/%zz",
            "/nar/%2",
            "/nar/%ff",
            "/log/",
            "/log/a/b",
            "/realisations/x",
            "/build-trace-v2/x.doi",
            "/build-trace-v2/a/b/c.doi",
            "/tvix.castore.v1.BlobService/Read",
        ] {
            assert_eq!(Target::parse(path), None, "{path}");
        }
    }
}

//! Compressions: told apart by their first bytes, undone for what is uploaded, and done
//! again for whoever asks for an upload in the form it came in.

mod decode;
mod encode;
mod gzip;
mod limit;
mod xz;

pub(crate) use decode::{DecodeError, Decoder};
pub(crate) use encode::{EncodeError, Encoder, encoded_len};
pub use limit::DecodeLimits;

/// How a NAR or a document is compressed on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// xz, one or more streams.
    Xz,
    /// zstd, one or more frames.
    Zstd,
    /// gzip, one or more members.
    Gzip,
    /// bzip2, one or more streams.
    Bzip2,
}

/// How many bytes [`Compression::sniff`] wants to see.
pub(crate) const SNIFF_BYTES: usize = 8;

/// The length of the first string of every NAR, as it stands in the NAR.
const NAR_MAGIC: [u8; 8] = [13, 0, 0, 0, 0, 0, 0, 0];

impl Compression {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::None, Self::Xz, Self::Zstd, Self::Gzip, Self::Bzip2];

    /// Tells the compression of a NAR by its first [`SNIFF_BYTES`] bytes; `None` if they
    /// begin neither a NAR nor anything that may hold one. Names do not tell: a gzip upload
    /// of Nix has no suffix.
    pub(crate) fn sniff(start: &[u8]) -> Option<Self> {
        match start {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            // A frame, or a skippable frame, of which there are sixteen kinds.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            _ if start.starts_with(&NAR_MAGIC) => Some(Self::None),
            _ => None,
        }
    }

    /// The name that a narinfo and Nix's `compression` setting use.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
        }
    }

    /// The reverse of [`name`](Self::name).
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| compression.name() == name)
    }

    /// The compression that a content coding of HTTP names, in any case of letters.
    pub(crate) fn from_content_coding(coding: &str) -> Option<Self> {
        let coding = coding.to_ascii_lowercase();
        match coding.as_str() {
            "identity" | "" => Some(Self::None),
            "x-gzip" => Some(Self::Gzip),
            "x-bzip2" => Some(Self::Bzip2),
            "none" => None,
            name => Self::from_name(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sniffs() {
        let cases: [(&[u8], Option<Compression>); 9] = [
            (b"\xfd7zXZ\0\0\x04", Some(Compression::Xz)),
            (b"\x28\xb5\x2f\xfd\x04\0", Some(Compression::Zstd)),
            (b"\x53\x2a\x4d\x18\x04\0", Some(Compression::Zstd)),
            (b"\x1f\x8b\x08\0", Some(Compression::Gzip)),
            (b"BZh9", Some(Compression::Bzip2)),
            (b"\x0d\0\0\0\0\0\0\0nix-archive-1", Some(Compression::None)),
            (b"BZh0", None),
            (b"", None),
            (b"<html>", None),
        ];
        for (start, expected) in cases {
            assert_eq!(Compression::sniff(start), expected, "{start:?}");
        }
    }

    #[test]
    fn names_round_trip() {
        for compression in Compression::ALL {
            assert_eq!(Compression::from_name(compression.name()), Some(compression));
        }
        assert_eq!(Compression::from_name("br"), None);
        assert_eq!(Compression::from_content_coding("X-GZIP"), Some(Compression::Gzip));
        assert_eq!(Compression::from_content_coding("identity"), Some(Compression::None));
        assert_eq!(Compression::from_content_coding("br"), None);
    }
}

//! Digests: BLAKE3-256, one newtype for each thing that is named by one.

use std::fmt;

use data_encoding::BASE64;

/// Length of every digest, in bytes.
pub const DIGEST_BYTES: usize = 32;

/// Bytes that were to be a digest are not [`DIGEST_BYTES`] long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest has {DIGEST_BYTES} bytes, these are {actual_bytes}")]
pub struct DigestLengthError {
    /// How many bytes there were.
    pub actual_bytes: usize,
}

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; DIGEST_BYTES]);

        impl $name {
            /// The digest of `bytes`.
            pub fn of(bytes: &[u8]) -> Self {
                Self(*blake3::hash(bytes).as_bytes())
            }

            /// A digest that was computed elsewhere.
            pub const fn from_bytes(bytes: [u8; DIGEST_BYTES]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; DIGEST_BYTES] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = DigestLengthError;

            fn try_from(bytes: &[u8]) -> Result<Self, DigestLengthError> {
                bytes
                    .try_into()
                    .map(Self)
                    .map_err(|_| DigestLengthError { actual_bytes: bytes.len() })
            }
        }

        impl From<blake3::Hash> for $name {
            fn from(hash: blake3::Hash) -> Self {
                Self(*hash.as_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "b3:{}", BASE64.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

digest_type!(
    /// BLAKE3 of the raw bytes of a blob.
    BlobDigest
);
digest_type!(
    /// BLAKE3 of the raw bytes of a chunk, a piece of a blob. A blob of one chunk has the
    /// same digest as its chunk.
    ChunkDigest
);
digest_type!(
    /// BLAKE3 of the canonical encoding of a directory.
    DirectoryDigest
);

impl From<BlobDigest> for ChunkDigest {
    /// The digest of the only chunk of a blob that is one chunk.
    fn from(blob: BlobDigest) -> Self {
        Self(blob.0)
    }
}

impl From<ChunkDigest> for BlobDigest {
    /// A chunk read as a blob of its own.
    fn from(chunk: ChunkDigest) -> Self {
        Self(chunk.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_as_in_the_seed() {
        // The transcript of the original README: "x86_64-linux".
        assert_eq!(
            BlobDigest::of(b"x86_64-linux").to_string(),
            "b3:KOM3/IHEx7YfInAnlJpAElYezq0Sxn9fRz7xuClwNfA="
        );
    }

    #[test]
    fn refuses_other_lengths() {
        for actual_bytes in [0, 31, 33] {
            assert_eq!(
                BlobDigest::try_from(vec![0; actual_bytes].as_slice()),
                Err(DigestLengthError { actual_bytes })
            );
        }
    }
}

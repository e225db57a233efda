//! Compression of a body whose length is known, piece by piece.

use std::io::{self, Write};

use bytes::Bytes;

use super::{Compression, gzip, gzip::StoredGzip, xz, xz::StoredXz};

/// Level of zstd for what is compressed as it is sent: the wire is not to wait for it.
const ZSTD_LEVEL: i32 = 1;

/// Why a body could not be compressed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    /// The pieces are more or fewer bytes than were declared.
    #[error("{given} bytes were to be compressed, where {declared} were declared")]
    Length {
        /// How many were declared.
        declared: u64,
        /// How many there were when it was noticed.
        given: u64,
    },
    /// The length passes a u64 when compressed.
    #[error("{declared} bytes are too many for {}", compression.name())]
    TooLong {
        /// How it was to be compressed.
        compression: Compression,
        /// How many bytes were declared.
        declared: u64,
    },
    /// The compressor failed.
    #[error("the compressor failed")]
    Compressor(#[from] io::Error),
}

/// Length of a body of `len` bytes in `compression`, where that can be known before.
pub(crate) fn encoded_len(compression: Compression, len: u64) -> Option<u64> {
    match compression {
        Compression::None => Some(len),
        Compression::Xz => xz::encoded_len(len),
        Compression::Gzip => gzip::encoded_len(len),
        Compression::Zstd | Compression::Bzip2 => None,
    }
}

/// Compresses a body.
///
/// xz and gzip store: those who ask for them ask for the form of something they once
/// uploaded, and a compressor of that strength would make them wait. zstd is one frame.
pub(crate) struct Encoder {
    declared: u64,
    given: u64,
    form: Form,
}

enum Form {
    None,
    Xz(StoredXz),
    Gzip(StoredGzip),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Bzip2(bzip2::write::BzEncoder<Vec<u8>>),
}

impl Encoder {
    /// An encoder for a body of `len` bytes.
    ///
    /// # Errors
    ///
    /// If the length cannot be represented, or there is no memory for the compressor.
    pub(crate) fn new(compression: Compression, len: u64) -> Result<Self, EncodeError> {
        let too_long = || EncodeError::TooLong { compression, declared: len };
        let form = match compression {
            Compression::None => Form::None,
            Compression::Xz => Form::Xz(StoredXz::new(len).ok_or_else(too_long)?),
            Compression::Gzip => Form::Gzip(StoredGzip::new(len).ok_or_else(too_long)?),
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_pledged_src_size(Some(len))?;
                encoder.include_checksum(true)?;
                Form::Zstd(encoder)
            }
            Compression::Bzip2 => {
                Form::Bzip2(bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast()))
            }
        };
        Ok(Self { declared: len, given: 0, form })
    }

    /// Takes the next piece, and returns what can be sent by now, which may be nothing.
    ///
    /// # Errors
    ///
    /// If the pieces pass the declared length, or the compressor fails. The encoder is of
    /// no more use then.
    pub(crate) fn push(&mut self, piece: &Bytes) -> Result<Bytes, EncodeError> {
        self.given += piece.len() as u64;
        if self.given > self.declared {
            return Err(EncodeError::Length { declared: self.declared, given: self.given });
        }
        let mut out = Vec::new();
        match &mut self.form {
            Form::None => return Ok(piece.clone()),
            Form::Xz(xz) => {
                out.reserve(piece.len() + FRAMING_BYTES);
                xz.push(piece, &mut out);
            }
            Form::Gzip(gzip) => {
                out.reserve(piece.len() + FRAMING_BYTES);
                gzip.push(piece, &mut out);
            }
            Form::Zstd(zstd) => {
                zstd.write_all(piece)?;
                out = std::mem::take(zstd.get_mut());
            }
            Form::Bzip2(bzip2) => {
                bzip2.write_all(piece)?;
                out = std::mem::take(bzip2.get_mut());
            }
        }
        Ok(out.into())
    }

    /// Ends the body, and returns what is left to send.
    ///
    /// # Errors
    ///
    /// If the pieces did not reach the declared length, or the compressor fails.
    pub(crate) fn finish(self) -> Result<Bytes, EncodeError> {
        if self.given != self.declared {
            return Err(EncodeError::Length { declared: self.declared, given: self.given });
        }
        let mut out = Vec::new();
        match self.form {
            Form::None => {}
            Form::Xz(xz) => xz.finish(&mut out),
            Form::Gzip(gzip) => gzip.finish(&mut out),
            Form::Zstd(zstd) => out = zstd.finish()?,
            Form::Bzip2(bzip2) => out = bzip2.finish()?,
        }
        Ok(out.into())
    }
}

/// Room for the framing of a piece.
const FRAMING_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;
    use crate::http::coding::{DecodeLimits, Decoder};

    fn encode(compression: Compression, pieces: &[Bytes]) -> Vec<u8> {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        let mut encoder = Encoder::new(compression, len).expect("the length fits");
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&encoder.push(piece).expect("declared"));
        }
        out.extend_from_slice(&encoder.finish().expect("complete"));
        if let Some(expected) = encoded_len(compression, len) {
            assert_eq!(out.len() as u64, expected, "{compression:?} of {len} bytes");
        }
        out
    }

    fn check(pieces: &[Bytes]) {
        for compression in Compression::ALL {
            let encoded = encode(compression, pieces);
            let mut decoded = Vec::new();
            Decoder::new(&encoded[..], compression, DecodeLimits::default())
                .expect("there is memory")
                .read_to_end(&mut decoded)
                .expect("decodes");
            assert!(decoded == pieces.concat(), "{compression:?} gives other bytes");
        }
    }

    #[test]
    fn round_trips_at_the_edges_of_blocks() {
        check(&[]);
        for len in [1, 2, 3, 4, 5, 65_534, 65_535, 65_536, 65_537, 131_070, 131_072, 200_000] {
            let bytes: Vec<u8> = (0..len).map(|i: u32| i.to_le_bytes()[1]).collect();
            check(&[bytes.into()]);
        }
    }

    #[test]
    fn stored_lengths_of_huge_bodies_do_not_overflow() {
        for compression in [Compression::Xz, Compression::Gzip] {
            assert_eq!(encoded_len(compression, u64::MAX), None);
            assert!(Encoder::new(compression, u64::MAX).is_err());
            assert!(encoded_len(compression, 1 << 62).is_some());
        }
    }

    #[test]
    fn another_length_than_declared_is_an_error() {
        for compression in Compression::ALL {
            let mut encoder = Encoder::new(compression, 3).expect("fits");
            assert!(matches!(
                encoder.push(&Bytes::from_static(b"four")),
                Err(EncodeError::Length { declared: 3, given: 4 })
            ));
            let mut encoder = Encoder::new(compression, 3).expect("fits");
            encoder.push(&Bytes::from_static(b"it")).expect("declared");
            assert!(matches!(encoder.finish(), Err(EncodeError::Length { declared: 3, given: 2 })));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_pieces_round_trip(lens in prop::collection::vec(0usize..100_000, 0..6)) {
            let pieces: Vec<Bytes> = lens
                .iter()
                .map(|len| (0..*len).map(|i| (i * 7 % 256).to_le_bytes()[0]).collect())
                .collect();
            check(&pieces);
        }
    }
}

//! Decompression as it streams, in bounded memory and with a bound on what comes out.

use std::{
    io::{self, BufReader, Cursor, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Compression, DecodeLimits, SNIFF_BYTES};

/// Largest window of a zstd frame, as a power of two: 128 MiB, which is all that `zstd -d`
/// takes without being asked.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Most memory that an xz stream may ask for, in KiB. `xz -9` asks for 65 MiB.
const XZ_MEMORY_KIB: u32 = 128 * 1024;

/// Compressed bytes are read in pieces of this size.
const INPUT_BUFFER_BYTES: usize = 64 * 1024;

/// Why a body did not decode.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    /// It begins with nothing that is known.
    #[error(
        "the body begins neither a NAR nor one compressed with xz, zstd, gzip or bzip2; other \
         compressions are not supported"
    )]
    Unknown,
    /// It decodes to more than a body of its size may.
    #[error(
        "the {} body of {input_bytes} bytes gives more than {allowed_bytes} bytes, which is over \
         the limit",
        compression.name()
    )]
    TooLarge {
        /// How it is compressed.
        compression: Compression,
        /// How many bytes had been read.
        input_bytes: u64,
        /// How many might have come out.
        allowed_bytes: u64,
    },
    /// It is damaged, cut short, or needs more memory than it gets.
    #[error("the body does not decompress as {}", compression.name())]
    Damaged {
        /// How it is compressed.
        compression: Compression,
        /// What the decompressor says.
        #[source]
        cause: io::Error,
    },
}

/// Reads what a compressed body decodes to.
///
/// Reading to the end (`Ok(0)`) checks all checksums and that nothing follows. After an
/// error, [`take_failure`](Self::take_failure) says what it was, unless it was the body
/// that could not be read.
pub(crate) struct Decoder<'a> {
    inner: Box<dyn Read + 'a>,
    compression: Compression,
    limits: DecodeLimits,
    input_bytes: Arc<AtomicU64>,
    output_bytes: u64,
    failure: Option<DecodeError>,
}

impl<'a> Decoder<'a> {
    /// Decodes a NAR in whatever compression `body` begins with.
    ///
    /// # Errors
    ///
    /// The outer if `body` cannot be read; the inner if the compression is not known.
    pub(crate) fn sniff(
        mut body: impl Read + 'a,
        limits: DecodeLimits,
    ) -> io::Result<Result<Self, DecodeError>> {
        let mut start = Vec::with_capacity(SNIFF_BYTES);
        body.by_ref().take(SNIFF_BYTES as u64).read_to_end(&mut start)?;
        let Some(compression) = Compression::sniff(&start) else {
            return Ok(Err(DecodeError::Unknown));
        };
        Self::new(Cursor::new(start).chain(body), compression, limits).map(Ok)
    }

    /// Decodes `body`, which is compressed with `compression`.
    ///
    /// # Errors
    ///
    /// If there is no memory for a decompressor.
    pub(crate) fn new(
        body: impl Read + 'a,
        compression: Compression,
        limits: DecodeLimits,
    ) -> io::Result<Self> {
        let input_bytes = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: body, bytes: Arc::clone(&input_bytes) };
        let input = BufReader::with_capacity(INPUT_BUFFER_BYTES, counted);
        let inner: Box<dyn Read + 'a> = match compression {
            Compression::None => Box::new(input),
            Compression::Xz => {
                Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, XZ_MEMORY_KIB))
            }
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        };
        Ok(Self { inner, compression, limits, input_bytes, output_bytes: 0, failure: None })
    }

    /// How the body is compressed.
    pub(crate) fn compression(&self) -> Compression {
        self.compression
    }

    /// How many bytes came out so far.
    pub(crate) fn output_bytes(&self) -> u64 {
        self.output_bytes
    }

    /// Why the last read failed.
    pub(crate) fn take_failure(&mut self) -> Option<DecodeError> {
        self.failure.take()
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf).map_err(|cause| {
            let kind = cause.kind();
            self.failure = Some(DecodeError::Damaged { compression: self.compression, cause });
            io::Error::new(kind, "the body does not decompress")
        })?;
        self.output_bytes += read as u64;
        let input_bytes = self.input_bytes.load(Ordering::Relaxed);
        let allowed_bytes = self.limits.allowed_bytes(input_bytes);
        if self.compression != Compression::None && self.output_bytes > allowed_bytes {
            let compression = self.compression;
            self.failure = Some(DecodeError::TooLarge { compression, input_bytes, allowed_bytes });
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the body is over the limit"));
        }
        Ok(read)
    }
}

/// Counts what is read through it.
struct Counted<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::http::coding::Encoder;

    /// Compresses for real, unlike the encoders whose blocks are stored.
    fn compress(compression: Compression, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match compression {
            Compression::None => Ok(bytes.to_vec()),
            Compression::Xz => {
                let options = lzma_rust2::XzOptions::with_preset(1);
                let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options)?;
                writer.write_all(bytes)?;
                writer.finish()
            }
            Compression::Zstd => zstd::stream::encode_all(bytes, 3),
            Compression::Gzip => {
                let mut writer =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                writer.write_all(bytes)?;
                writer.finish()
            }
            Compression::Bzip2 => {
                let mut writer =
                    bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                writer.write_all(bytes)?;
                writer.finish()
            }
        }
    }

    fn nar_like(len: usize) -> Vec<u8> {
        let mut bytes = vec![13, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend((0..len).map(|i| u8::try_from(i * i % 251).expect("below 251")));
        bytes
    }

    fn decode(body: &[u8], limits: DecodeLimits) -> Result<Vec<u8>, DecodeError> {
        let mut decoder = Decoder::sniff(body, limits).expect("the body is in memory")?;
        let mut out = Vec::new();
        match decoder.read_to_end(&mut out) {
            Ok(_) => Ok(out),
            Err(_) => Err(decoder.take_failure().expect("a body in memory reads well")),
        }
    }

    #[test]
    fn decodes_each_and_concatenations() {
        let bytes = nar_like(300_000);
        for compression in Compression::ALL {
            let mut body = compress(compression, &bytes).expect("compresses");
            assert_eq!(
                decode(&body, DecodeLimits::default()).expect("decodes"),
                bytes,
                "{compression:?}"
            );
            body.extend_from_within(..);
            let twice = [&bytes[..], &bytes[..]].concat();
            assert_eq!(
                decode(&body, DecodeLimits::default()).expect("decodes twice"),
                twice,
                "{compression:?}"
            );
        }
    }

    #[test]
    fn truncation_trailing_bytes_and_flips_are_damage() {
        let bytes = nar_like(100_000);
        for compression in &Compression::ALL[1..] {
            let body = compress(*compression, &bytes).expect("compresses");
            let mut trailing = body.clone();
            trailing.extend_from_slice(b"garbage that is long enough to be seen");
            let mut flipped = body.clone();
            flipped[body.len() / 2] ^= 0x10;
            for (what, bad) in [
                ("cut by one", &body[..body.len() - 1]),
                ("cut in the middle", &body[..body.len() / 2]),
                ("cut at the sniffed bytes", &body[..SNIFF_BYTES]),
                ("with a tail", &trailing[..]),
                ("flipped", &flipped[..]),
            ] {
                let result = decode(bad, DecodeLimits::default());
                // zstd's encode_all writes no checksum: a flip may pass, but not as is.
                if what == "flipped" && *compression == Compression::Zstd {
                    assert_ne!(result.ok().as_deref(), Some(&bytes[..]));
                    continue;
                }
                assert!(
                    matches!(result, Err(DecodeError::Damaged { .. })),
                    "{compression:?} {what}: {result:?}"
                );
            }
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let mut bytes = nar_like(0);
        bytes.resize(30_000_000, 0);
        let limits = DecodeLimits { free_bytes: 1_000_000, max_ratio: 10 };
        for compression in &Compression::ALL[1..] {
            let body = compress(*compression, &bytes).expect("compresses");
            let mut decoder = Decoder::sniff(&body[..], limits).expect("in memory").expect("known");
            io::copy(&mut decoder, &mut io::sink()).expect_err("over the limit");
            assert!(decoder.output_bytes() < 3_000_000, "{compression:?} gave too much");
            assert!(matches!(decoder.take_failure(), Some(DecodeError::TooLarge { .. })));
        }
        // What is not compressed cannot be a bomb.
        assert_eq!(decode(&bytes, limits).expect("not compressed"), bytes);
    }

    #[test]
    fn memory_that_a_header_asks_for_is_limited() {
        // A zstd frame header that asks for a window of 1 GiB, and a raw block.
        let body = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0x01, 0x00, 0x00];
        assert!(matches!(
            decode(&body, DecodeLimits::default()),
            Err(DecodeError::Damaged { compression: Compression::Zstd, .. })
        ));
        // An xz block whose dictionary is 1.5 GiB: size byte 37, right CRCs.
        let mut encoder = Encoder::new(Compression::Xz, 8).expect("no allocation fails");
        let mut body = encoder.push(&nar_like(0).into()).expect("declared").to_vec();
        body.extend_from_slice(&encoder.finish().expect("complete"));
        body[12 + 4] = 37;
        let mut crc = flate2::Crc::new();
        crc.update(&body[12..20]);
        body[20..24].copy_from_slice(&crc.sum().to_le_bytes());
        assert!(matches!(
            decode(&body, DecodeLimits::default()),
            Err(DecodeError::Damaged { compression: Compression::Xz, .. })
        ));
    }

    /// An xz stream whose block header is `header`, with sums that are right.
    fn xz_with_block_header(header: &[u8], behind: &[u8]) -> Vec<u8> {
        let sum = |bytes: &[u8]| {
            let mut crc = flate2::Crc::new();
            crc.update(bytes);
            crc.sum().to_le_bytes()
        };
        let mut header = header.to_vec();
        header.insert(0, 0);
        header.resize(header.len().next_multiple_of(4), 0);
        header[0] = u8::try_from(header.len() / 4).expect("a short header");
        let stream_header = [&b"\xfd7zXZ\0\0\x01"[..], &sum(&[0, 1])].concat();
        [&stream_header[..], &header, &sum(&header), behind].concat()
    }

    proptest! {
        #[test]
        fn damaged_bodies_never_panic(
            which in 1..Compression::ALL.len(),
            len in 0_usize..3_000,
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut body = compress(Compression::ALL[which], &nar_like(len)).expect("compresses");
            for (at, value) in flips {
                let at = at.index(body.len());
                body[at] = value;
            }
            body.truncate(cut.index(body.len()) + 1);
            decode(&body, DecodeLimits::default()).ok();
        }

        #[test]
        fn xz_block_headers_never_panic(
            flags in any::<u8>(),
            filters in prop::collection::vec(
                (0_u8..0x24, prop::collection::vec(any::<u8>(), 0..6)), 0..5),
            behind in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut header = vec![flags];
            for (id, properties) in filters {
                header.push(id);
                header.push(u8::try_from(properties.len()).expect("short"));
                header.extend(properties);
            }
            decode(&xz_with_block_header(&header, &behind), DecodeLimits::default()).ok();
        }
    }
}

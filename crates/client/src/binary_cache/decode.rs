//! Decompression of what a binary cache has, in bounded memory.

use std::io::{BufReader, Read};

use granary_castore::{Error, Result};

/// Largest window of a zstd frame, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Most memory that an xz stream may ask for, in KiB. `xz -9` asks for 65 MiB.
const XZ_MEMORY_KIB: u32 = 128 * 1024;

/// Compressed bytes are read in pieces of this size.
const INPUT_BUFFER_BYTES: usize = 64 * 1024;

/// Reads what `body` decodes to, by the name that a narinfo has for it. How much that may be is
/// for the reader to say.
pub(super) fn decode(
    body: Box<dyn Read + Send>,
    compression: &str,
) -> Result<Box<dyn Read + Send>> {
    let input = BufReader::with_capacity(INPUT_BUFFER_BYTES, body);
    Ok(match compression {
        "none" => Box::new(input),
        "xz" => Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, XZ_MEMORY_KIB)),
        "zstd" => {
            let failed = |cause| Error::unavailable("cannot decompress zstd").because(cause);
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(failed)?;
            Box::new(decoder)
        }
        "gzip" => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        // A narinfo without a compression is from a time when that was the only one.
        "bzip2" | "" => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        other => {
            return Err(Error::invalid(format!(
                "the NAR is compressed with {other}; only xz, zstd, gzip, bzip2 and none are known"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn decoded(body: Vec<u8>, compression: &str) -> Result<Vec<u8>, String> {
        let mut contents = Vec::new();
        let mut reader = decode(Box::new(std::io::Cursor::new(body)), compression)
            .map_err(|error| error.to_string())?;
        reader.read_to_end(&mut contents).map_err(|error| error.to_string())?;
        Ok(contents)
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let contents = b"the same bytes ".repeat(1_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&contents).expect("memory");
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
        bzip2.write_all(&contents).expect("memory");
        let options = lzma_rust2::XzOptions::default();
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).expect("memory");
        xz.write_all(&contents).expect("memory");
        for (body, compression) in [
            (contents.clone(), "none"),
            (xz.finish().expect("memory"), "xz"),
            (zstd::bulk::compress(&contents, 1).expect("memory"), "zstd"),
            (gzip.finish().expect("memory"), "gzip"),
            (bzip2.finish().expect("memory"), "bzip2"),
        ] {
            assert_eq!(decoded(body.clone(), compression), Ok(contents.clone()), "{compression}");
            if compression != "none" {
                decoded(body[..body.len() / 2].to_vec(), compression).expect_err(compression);
            }
        }
        let error = decoded(contents, "lzip").expect_err("not known");
        assert!(error.contains("lzip"), "{error}");
    }
}

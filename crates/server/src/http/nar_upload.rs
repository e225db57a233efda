//! PUT of `nar/<name>`: taken apart as it arrives.

use std::io::{self, Read};

use axum::http::{HeaderMap, StatusCode};
use granary_castore::Error;
use granary_nix_formats::{NarHash, nixbase32};
use granary_store::{Store, UploadedNar, ingest_nar};
use sha2::{Digest, Sha256};
use tokio::task::yield_now;

use super::{
    Cache, Failure,
    coding::{Compression, DecodeLimits, Decoder},
    nar::root_is_stored,
    request_body::{RequestBody, content_coding},
    upload::{self, Body},
};

/// What Nix appends to `.nar`, as it was compressed. gzip has nothing.
const SUFFIXES: [&str; 5] = ["", ".xz", ".zst", ".gz", ".bz2"];

/// What Nix appends for compressions that are not decoded here.
const UNSUPPORTED_SUFFIXES: [&str; 6] = [".br", ".lzip", ".lz4", ".lzma", ".Z", ".grz"];

/// How much of a NAR that is stored already is hashed before others have their turn, in about a
/// millisecond. Another thread for that would be one of the few on which uploads are decoded, and a
/// client that only sends again what is there should not wait for these.
const HASHED_AT_A_TIME_BYTES: usize = 1 << 20;

/// What a PUT of a NAR needs to know beside its body.
struct Upload {
    name: String,
    file_hash: NarHash,
    coding: Compression,
    limits: DecodeLimits,
}

pub(super) async fn put(
    cache: &Cache,
    name: String,
    headers: &HeaderMap,
    body: &mut RequestBody,
) -> Result<StatusCode, Failure> {
    let file_hash = file_hash(&name)?;
    let coding = content_coding(headers)?;
    let upload = Upload { name, file_hash, coding, limits: cache.options.decode_limits };
    let name = upload.name.clone();
    let is_stored = cache
        .blocking(move |store| match store.touch_uploaded_nar(&name)? {
            Some(uploaded) => root_is_stored(store, &uploaded.node),
            None => Ok::<_, Error>(false),
        })
        .await?;
    if is_stored {
        upload.check(body).await?;
        return Ok(StatusCode::OK);
    }
    upload::on_thread(cache, body, move |store, body| upload.store(store, body)).await?;
    Ok(StatusCode::CREATED)
}

/// The hash in a name of the form `<SHA-256 of the file in nixbase32>.nar<suffix>`.
fn file_hash(name: &str) -> Result<NarHash, Failure> {
    let (hash, suffix) = name.split_once(".nar").ok_or_else(|| bad_name(name))?;
    if UNSUPPORTED_SUFFIXES.contains(&suffix) {
        return Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "NARs compressed as {suffix:?} are not supported: set compression to none, zstd, \
                 xz, gzip or bzip2 in the URL of the cache"
            ),
        ));
    }
    if !SUFFIXES.contains(&suffix) {
        return Err(bad_name(name));
    }
    nixbase32::decode_fixed(hash).map(NarHash::from_bytes).map_err(|_| bad_name(name))
}

fn bad_name(name: &str) -> Failure {
    Failure::bad_request(format!(
        "nar/{name} is no name for a NAR: it should be the SHA-256 of the body in nixbase32, \
         \".nar\", and the suffix of its compression"
    ))
}

impl Upload {
    /// Takes the body of a NAR that is stored already: it must be what its name says all
    /// the same, or the client would believe that something else is stored.
    async fn check(&self, body: &mut RequestBody) -> Result<(), Failure> {
        if self.coding != Compression::None {
            body.drain().await;
            return Ok(());
        }
        let (mut hasher, mut hashed_bytes) = (Sha256::new(), 0);
        while let Some(data) = body.next().await? {
            hasher.update(&data);
            hashed_bytes += data.len();
            if hashed_bytes >= HASHED_AT_A_TIME_BYTES {
                hashed_bytes = 0;
                // Others of this thread wait.
                yield_now().await;
            }
        }
        self.check_hash(NarHash::from_bytes(hasher.finalize().into()))
    }

    fn check_hash(&self, file_hash: NarHash) -> Result<(), Failure> {
        if file_hash == self.file_hash {
            return Ok(());
        }
        Err(Failure::bad_request(format!(
            "the body sent to nar/{} has the hash {file_hash}, and not the one in that name",
            self.name
        )))
    }

    /// Decodes and stores the body; remembers its name if it has the hash in it.
    fn store(self, store: &Store, mut body: Body) -> Result<(), Failure> {
        // Until a record leads to it.
        let _hold = store.castore().hold();
        let mut batch = store.castore().batch()?;
        let mut transport = Decoder::new(&mut body, self.coding, self.limits).map_err(no_memory)?;
        let mut file = FileReader::new(&mut transport);
        let ingested = match Decoder::sniff(&mut file, self.limits) {
            Err(error) => Err((None, Failure::of(StatusCode::BAD_REQUEST, &error))),
            Ok(Err(error)) => Err((Some(Failure::from(error)), bad_name(&self.name))),
            Ok(Ok(mut nar)) => match ingest_nar(&mut nar, &mut *batch) {
                Ok(ingested) => Ok((ingested, nar.compression())),
                Err(error) => Err((nar.take_failure().map(Failure::from), Failure::from(error))),
            },
        };
        let file = file.finish();
        let (ingested, compression) = match ingested {
            Ok(ingested) => ingested,
            Err((decoding, failure)) => {
                // What failed below made all above it fail: the lowest is the one to tell.
                let below = transport.take_failure().map(Failure::from);
                drop(transport);
                return Err(body.take_failure().or(below).or(decoding).unwrap_or(failure));
            }
        };
        let (file_hash, file_size) = file.unwrap_or((ingested.nar.nar_hash, ingested.nar.nar_size));
        self.check_hash(file_hash)?;
        let uploaded = UploadedNar {
            node: ingested.node,
            nar: ingested.nar,
            file_hash,
            file_size,
            compression: compression.name().to_owned(),
            touched_unix_s: 0,
        };
        Ok(store.commit_uploaded_nar(batch, &self.name, &uploaded)?)
    }
}

fn no_memory(error: io::Error) -> Error {
    Error::unavailable("there is no memory to decompress an upload").because(error)
}

/// What every NAR begins with: the length of its magic string. No compressed file does.
const NAR_START: [u8; 8] = 13_u64.to_le_bytes();

/// Hashes the file that is read through it, unless that is a NAR as it is: whoever reads that
/// hashes it anyway, and it would be a fifth of the work of storing it.
struct FileReader<R> {
    inner: R,
    /// Bytes that were read to see what the file is, and how many of them were given on.
    head: Vec<u8>,
    given: usize,
    /// None until the head was read, and if the file is a NAR.
    hasher: Option<Sha256>,
    len: u64,
}

impl<R: Read> FileReader<R> {
    fn new(inner: R) -> Self {
        Self { inner, head: Vec::new(), given: 0, hasher: None, len: 0 }
    }

    fn read_head(&mut self) -> io::Result<()> {
        (&mut self.inner).take(NAR_START.len() as u64).read_to_end(&mut self.head)?;
        if self.head != NAR_START {
            self.hasher = Some(Sha256::new());
        }
        Ok(())
    }

    /// Hash and length of what was read; `None` if it is a NAR.
    fn finish(self) -> Option<(NarHash, u64)> {
        let hash = self.hasher?.finalize();
        Some((NarHash::from_bytes(hash.into()), self.len))
    }
}

impl<R: Read> Read for FileReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.head.is_empty() {
            self.read_head()?;
        }
        let read = if self.given < self.head.len() {
            let read = (&self.head[self.given..]).read(buf)?;
            self.given += read;
            read
        } else {
            self.inner.read(buf)?
        };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..read]);
        }
        self.len += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_hashed_unless_they_are_nars() {
        for (file, is_nar) in [
            (&b""[..], false),
            (b"xz", false),
            (b"something longer", false),
            (b"\x0d\0\0\0\0\0\0\0nix-archive-1", true),
            (b"\x0d\0\0\0\0\0\0", false),
        ] {
            let mut reader = FileReader::new(file);
            let mut read = Vec::new();
            reader.read_to_end(&mut read).expect("memory does not fail");
            assert_eq!(read, file);
            let hash = NarHash::from_bytes(Sha256::digest(file).into());
            let expected = (!is_nar).then_some((hash, file.len() as u64));
            assert_eq!(reader.finish(), expected);
        }
    }

    #[test]
    fn names() {
        let hash = "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s";
        for suffix in SUFFIXES {
            let parsed = file_hash(&format!("{hash}.nar{suffix}")).expect("a good name");
            assert_eq!(nixbase32::encode(parsed.as_bytes()), hash);
        }
        for (name, status) in [
            (format!("{hash}.nar.br"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (format!("{hash}.nar.exe"), StatusCode::BAD_REQUEST),
            (format!("{hash}.nar.xz.xz"), StatusCode::BAD_REQUEST),
            (hash.to_owned(), StatusCode::BAD_REQUEST),
            (format!("{}.nar", &hash[1..]), StatusCode::BAD_REQUEST),
            (format!("e{}.nar", &hash[1..]), StatusCode::BAD_REQUEST),
            (".nar".to_owned(), StatusCode::BAD_REQUEST),
        ] {
            assert_eq!(file_hash(&name).expect_err("a bad name").status(), status, "{name}");
        }
    }
}

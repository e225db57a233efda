//! What is kept as it came: build logs, debug information, realisations.

use std::{io::Read as _, sync::Arc};

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode},
    response::Response,
};
use data_encoding::HEXLOWER;
use granary_castore::Error;
use granary_store::{Document, DocumentKind, NarPlan, Store};

use super::{
    Cache, Failure, Reading,
    coding::{DecodeLimits, Decoder},
    representation::Representation,
    request_body::{RequestBody, content_coding},
    upload,
};

/// Longest build log that is taken, in bytes.
const MAX_LOG_BYTES: u64 = 1024 * 1024 * 1024;

/// Longest of the others, in bytes. They are some hundred bytes of JSON.
const MAX_SMALL_BYTES: u64 = 4 * 1024 * 1024;

/// The body is decoded and stored in pieces of this size.
const COPY_BUFFER_BYTES: usize = 64 * 1024;

/// What stands behind a build id in URLs of some clients, and not in those of others.
const DEBUG_SUFFIX: &str = ".debug";

/// Which directory of the cache it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// `log/<derivation>`
    Log,
    /// `debuginfo/<build id>`
    DebugInfo,
    /// `realisations/<id>.doi`
    Realisation,
    /// `build-trace-v2/<derivation>/<output>.doi`
    BuildTrace,
}

impl Sort {
    /// What is kept in that directory.
    pub(super) fn of_directory(directory: &str) -> Option<Self> {
        match directory {
            "log" => Some(Self::Log),
            "debuginfo" => Some(Self::DebugInfo),
            "realisations" => Some(Self::Realisation),
            "build-trace-v2" => Some(Self::BuildTrace),
            _ => None,
        }
    }

    /// The kind that it is stored as. A build trace has a slash in its name, and a
    /// realisation none, so that they can share one.
    const fn kind(self) -> DocumentKind {
        match self {
            Self::Log => DocumentKind::Log,
            Self::DebugInfo => DocumentKind::DebugInfo,
            Self::Realisation | Self::BuildTrace => DocumentKind::Realisation,
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Log => "text/plain; charset=utf-8",
            Self::DebugInfo | Self::Realisation | Self::BuildTrace => "application/json",
        }
    }

    const fn max_bytes(self) -> u64 {
        match self {
            Self::Log => MAX_LOG_BYTES,
            Self::DebugInfo | Self::Realisation | Self::BuildTrace => MAX_SMALL_BYTES,
        }
    }
}

pub(super) async fn get(
    cache: &Cache,
    sort: Sort,
    name: String,
    reading: &Reading,
) -> Result<Response, Failure> {
    let not_found = Failure::not_found(format!("nothing is stored under {name}"));
    let document = cache.blocking(move |store| find(store, sort, &name)).await?.ok_or(not_found)?;
    Representation {
        content_type: HeaderValue::from_static(sort.content_type()),
        tag: HEXLOWER.encode(document.digest.as_bytes()),
        plan: Arc::new(NarPlan::of_blob(document.digest, document.size_bytes).for_once()),
    }
    .respond(cache, reading)
    .await
}

fn find(store: &Store, sort: Sort, name: &str) -> Result<Option<Document>, Error> {
    let found = store.document(sort.kind(), name.as_bytes())?;
    if found.is_some() || sort != Sort::DebugInfo {
        return Ok(found);
    }
    let other = match name.strip_suffix(DEBUG_SUFFIX) {
        Some(build_id) => build_id.to_owned(),
        None => format!("{name}{DEBUG_SUFFIX}"),
    };
    store.document(sort.kind(), other.as_bytes())
}

pub(super) async fn put(
    cache: &Cache,
    sort: Sort,
    name: String,
    headers: &HeaderMap,
    body: &mut RequestBody,
) -> Result<StatusCode, Failure> {
    let coding = content_coding(headers)?;
    upload::on_thread(cache, body, move |store, mut body| {
        // Until a record leads to it.
        let _hold = store.castore().hold();
        let mut batch = store.castore().batch()?;
        let max_bytes = sort.max_bytes();
        // The limit below holds for all codings alike.
        let limits = DecodeLimits { free_bytes: u64::MAX, max_ratio: 0 };
        let mut decoder = Decoder::new(&mut body, coding, limits)
            .map_err(|error| Error::unavailable("there is no memory").because(error))?;
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        loop {
            match decoder.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => batch.write(&buffer[..read])?,
                Err(error) => {
                    let decoding = decoder.take_failure().map(Failure::from);
                    drop(decoder);
                    return Err(body
                        .take_failure()
                        .or(decoding)
                        .unwrap_or_else(|| Failure::of(StatusCode::BAD_REQUEST, &error)));
                }
            }
            if decoder.output_bytes() > max_bytes {
                return Err(Error::too_large(format!(
                    "{name} has more than {max_bytes} bytes, the limit"
                ))
                .into());
            }
        }
        let size_bytes = decoder.output_bytes();
        let digest = batch.finish_blob()?;
        batch.commit()?;
        let content_type = sort.content_type().to_owned();
        let document = Document { digest, size_bytes, content_type };
        Ok(store.put_document(sort.kind(), name.as_bytes(), &document)?)
    })
    .await?;
    Ok(StatusCode::CREATED)
}

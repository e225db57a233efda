//! The bodies of requests: read with patience that ends, in bounded memory.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::{
    Failure,
    coding::{Compression, DecodeLimits, Decoder},
};
use crate::event_loops;

/// How much of a body is read only to throw it away, in bytes: a client that is still
/// sending when the connection closes never sees why.
const MAX_DRAINED_BYTES: u64 = 64 * 1024 * 1024;

/// The body of a request.
pub(super) struct RequestBody {
    body: Body,
    idle_timeout: Duration,
    /// The client waits to be told to go on; being refused, it sends nothing.
    awaits_continue: bool,
}

impl RequestBody {
    pub(super) fn new(headers: &HeaderMap, body: Body, idle_timeout: Duration) -> Self {
        let awaits_continue = headers
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        Self { body, idle_timeout, awaits_continue }
    }

    /// The next bytes, which may be none; `None` at the end.
    ///
    /// # Errors
    ///
    /// If the body breaks off, or nothing comes for as long as the client is given.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.awaits_continue = false;
        match timeout(self.idle_timeout, self.body.frame()).await {
            // What is no data is trailers, of which none mean anything here.
            Ok(Some(Ok(frame))) => Ok(Some(frame.into_data().unwrap_or_default())),
            Ok(None) => Ok(None),
            Ok(Some(Err(error))) => {
                Err(Failure::bad_request(format!("the body of the request breaks off: {error}")))
            }
            Err(_) => Err(Failure::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("nothing of the body came for {} s", self.idle_timeout.as_secs()),
            )),
        }
    }

    /// The whole body without its Content-Encoding, if it has at most `max_bytes` with and
    /// without it. `what` is what it should be, for the message.
    ///
    /// # Errors
    ///
    /// If it is longer, does not arrive, or does not decode.
    pub(super) async fn collect(
        &mut self,
        headers: &HeaderMap,
        what: &str,
        max_bytes: usize,
    ) -> Result<Bytes, Failure> {
        let coding = content_coding(headers)?;
        let too_large = || {
            let message = format!("{what} of more than {max_bytes} bytes, the limit");
            Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        let mut collected = BytesMut::new();
        while let Some(data) = self.next().await? {
            if collected.len() + data.len() > max_bytes {
                return Err(too_large());
            }
            collected.extend_from_slice(&data);
        }
        if coding == Compression::None {
            return Ok(collected.freeze());
        }
        let decode = move || -> Result<Option<Bytes>, Failure> {
            use std::io::Read as _;
            let limits = DecodeLimits { free_bytes: max_bytes as u64, max_ratio: 0 };
            let mut decoder = Decoder::new(&collected[..], coding, limits)
                .map_err(|error| Failure::of(StatusCode::SERVICE_UNAVAILABLE, &error))?;
            let mut out = Vec::new();
            match decoder.read_to_end(&mut out) {
                Ok(_) => Ok(Some(out.into())),
                Err(error) => Err(match decoder.take_failure() {
                    Some(failure) => failure.into(),
                    None => Failure::of(StatusCode::BAD_REQUEST, &error),
                }),
            }
        };
        match event_loops::spawn_blocking(decode).await {
            Ok(decoded) => decoded?.ok_or_else(too_large),
            Err(error) => Err(Failure::of(StatusCode::SERVICE_UNAVAILABLE, &error)),
        }
    }

    /// Reads what is left, up to [`MAX_DRAINED_BYTES`], so that the client is ready to read
    /// an answer.
    pub(super) async fn drain(&mut self) {
        if self.awaits_continue {
            return;
        }
        let mut drained_bytes = 0;
        while drained_bytes <= MAX_DRAINED_BYTES {
            match self.next().await {
                Ok(Some(data)) => drained_bytes += data.len() as u64,
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// What the body of a request is encoded with.
///
/// # Errors
///
/// If it is something that is not decoded here, or more than one thing.
pub(super) fn content_coding(headers: &HeaderMap) -> Result<Compression, Failure> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let coding = match (codings.next(), codings.next()) {
        (None, _) => Some(Compression::None),
        (Some(coding), None) => known_coding(coding),
        (Some(_), Some(_)) => None,
    };
    coding.ok_or_else(|| {
        let value = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
        Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "Content-Encoding \"{}\" is not supported: send zstd, xz, gzip, bzip2 or identity",
                value.unwrap_or_default().escape_ascii()
            ),
        )
    })
}

fn known_coding(coding: &HeaderValue) -> Option<Compression> {
    Compression::from_content_coding(coding.to_str().ok()?.trim())
}

//! Answers to GET and HEAD with a body that is read in pieces.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use granary_castore::Error;

use super::{
    Failure, Reading,
    coding::{Compression, EncodeError, Encoder, encoded_len},
    negotiation,
    pieces::{self, ReadAt},
    range::{self, Wanted},
};

/// Something with a body.
pub(super) struct Representation {
    /// Media type of the body.
    pub content_type: HeaderValue,
    /// What stands for the bytes of the body and changes with them; printable ASCII without
    /// quotes.
    pub tag: String,
    /// Length of the body in bytes.
    pub len: u64,
    /// Reads the body.
    pub read_at: ReadAt,
}

impl Representation {
    /// Answers a request for it: whole, one range, or encoded as zstd, as the client asks.
    pub(super) async fn respond(self, reading: &Reading) -> Result<Response, Failure> {
        let etag = etag(&self.tag, "")?;
        let mut wanted = range::wanted(&reading.headers, self.len, &etag);
        if reading.is_head {
            // Ranges are for GET alone.
            wanted = Wanted::Whole;
        }
        // A client that wants a part counts in bytes of the body as it is.
        let asks_for_part = reading.headers.contains_key(header::RANGE) && !reading.is_head;
        if !asks_for_part && negotiation::wants_zstd(&reading.headers) {
            let etag = self::etag(&self.tag, "-zstd")?;
            return self.respond_zstd(reading, etag).await;
        }
        let (status, range) = match wanted {
            Wanted::Unsatisfiable => return Ok(unsatisfiable(self.len)),
            Wanted::Whole => (StatusCode::OK, 0..self.len),
            Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        };
        let mut headers = self.headers(etag);
        if is_known(reading, &headers) {
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
        if status == StatusCode::PARTIAL_CONTENT {
            let value = format!("bytes {}-{}/{}", range.start, range.end - 1, self.len);
            headers.insert(header::CONTENT_RANGE, ascii(&value)?);
        }
        let body = if reading.is_head {
            Body::empty()
        } else {
            Body::from_stream(pieces::pieces(self.read_at, range).await?)
        };
        Ok((status, headers, body).into_response())
    }

    async fn respond_zstd(self, reading: &Reading, etag: HeaderValue) -> Result<Response, Failure> {
        let mut headers = self.headers(etag);
        if is_known(reading, &headers) {
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
        let body = self.encoded_body(reading, Compression::Zstd).await?;
        Ok((headers, body).into_response())
    }

    /// Answers with the body in `compression`, as it was once uploaded: that is then the
    /// body itself, and what a client knows of ranges and encodings does not apply.
    pub(super) async fn respond_compressed(
        self,
        reading: &Reading,
        compression: Compression,
    ) -> Result<Response, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("none"));
        if let Some(len) = encoded_len(compression, self.len) {
            headers.insert(header::CONTENT_LENGTH, len.into());
        }
        let body = self.encoded_body(reading, compression).await?;
        Ok((headers, body).into_response())
    }

    async fn encoded_body(
        self,
        reading: &Reading,
        compression: Compression,
    ) -> Result<Body, Failure> {
        if reading.is_head {
            // A body without a length that is known, so that none is claimed.
            return Ok(Body::from_stream(stream::empty::<Result<Bytes, Error>>()));
        }
        let encoder = Encoder::new(compression, self.len)?;
        let pieces = pieces::pieces(self.read_at, 0..self.len).await?;
        Ok(Body::from_stream(encode(encoder, pieces)))
    }

    fn headers(&self, etag: HeaderValue) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::ETAG, etag);
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        headers
    }
}

/// Compresses `pieces`, each on a thread that may block, while the next are being read.
fn encode(
    encoder: Encoder,
    pieces: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Failure>> + Send + 'static {
    let pieces = Box::pin(pieces);
    stream::try_unfold(Some((encoder, pieces)), |state| async {
        let Some((encoder, mut pieces)) = state else { return Ok(None) };
        let Some(piece) = pieces.next().await.transpose()? else {
            let last = compute(move || encoder.finish()).await?;
            return Ok::<_, Failure>(Some((last, None)));
        };
        let (encoder, out) = compute(move || {
            let mut encoder = encoder;
            let out = encoder.push(&piece)?;
            Ok((encoder, out))
        })
        .await?;
        Ok(Some((out, Some((encoder, pieces)))))
    })
    // Nothing may come out of a piece yet, and an empty chunk would be no news to a client.
    .try_filter(|out| std::future::ready(!out.is_empty()))
}

async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EncodeError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| {
            tracing::error!("a body breaks off: {}", granary_castore::Chain(&error));
            error.into()
        }),
        Err(error) => {
            Err(Error::unavailable("a piece could not be compressed").because(error).into())
        }
    }
}

/// A strong validator.
fn etag(tag: &str, suffix: &str) -> Result<HeaderValue, Failure> {
    ascii(&format!("\"{tag}{suffix}\""))
}

fn ascii(value: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(value)
        .map_err(|error| Failure::of(StatusCode::INTERNAL_SERVER_ERROR, &error))
}

/// Whether the client says that it has just that already.
fn is_known(reading: &Reading, headers: &HeaderMap) -> bool {
    let etag = headers.get(header::ETAG).and_then(|etag| etag.to_str().ok());
    reading
        .headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == "*" || Some(tag) == etag)
}

fn unsatisfiable(len: u64) -> Response {
    let content_range = format!("bytes */{len}");
    let text = format!("the body has {len} bytes, and the range begins behind them\n");
    (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, content_range)], text)
        .into_response()
}

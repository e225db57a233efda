//! Answers to GET and HEAD with a body that is read in pieces.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use granary_castore::Error;
use granary_store::NarPlan;

use super::{
    Cache, Failure, Reading,
    coding::{Compression, EncodeError, Encoder, encoded_len},
    frames, negotiation,
    pieces::Buffers,
    range::{self, Wanted},
};
use crate::event_loops;

/// Something with a body.
pub(super) struct Representation {
    /// Media type of the body.
    pub content_type: HeaderValue,
    /// What stands for the bytes of the body and changes with them; printable ASCII without
    /// quotes.
    pub tag: String,
    /// What the body consists of.
    pub plan: Arc<NarPlan>,
}

impl Representation {
    /// Answers a request for it: whole, one range, or encoded as zstd, as the client asks.
    pub(super) async fn respond(
        self,
        cache: &Cache,
        reading: &Reading,
    ) -> Result<Response, Failure> {
        let len = self.plan.nar_size();
        let etag = etag(&self.tag, "")?;
        let mut wanted = range::wanted(&reading.headers, len, &etag);
        if reading.is_head {
            // Ranges are for GET alone.
            wanted = Wanted::Whole;
        }
        // A client that wants a part counts in bytes of the body as it is.
        let asks_for_part = reading.headers.contains_key(header::RANGE) && !reading.is_head;
        if !asks_for_part && negotiation::wants_zstd(&reading.headers) {
            return self.respond_zstd(cache, reading).await;
        }
        let (status, range) = match wanted {
            Wanted::Unsatisfiable => return Ok(unsatisfiable(len)),
            Wanted::Whole => (StatusCode::OK, 0..len),
            Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        };
        let mut headers = self.headers(etag);
        if is_known(reading, &headers) {
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
        if status == StatusCode::PARTIAL_CONTENT {
            let value = format!("bytes {}-{}/{}", range.start, range.end - 1, len);
            headers.insert(header::CONTENT_RANGE, ascii(&value)?);
        }
        let body = if reading.is_head {
            Body::empty()
        } else {
            body(cache.readers.plain(self.plan, range).await?)
        };
        Ok((status, headers, body).into_response())
    }

    async fn respond_zstd(self, cache: &Cache, reading: &Reading) -> Result<Response, Failure> {
        let clients = &cache.options.multi_frame_clients;
        let many_frames = frames::are_read_by_client(&reading.headers, clients);
        // What is stored as a frame may be stored as another later: weak, for the same bytes
        // come out of both.
        let etag = if many_frames {
            ascii(&format!("W/\"{}-frames\"", self.tag))?
        } else {
            etag(&self.tag, "-zstd")?
        };
        let mut headers = self.headers(etag);
        if is_known(reading, &headers) {
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
        let body = if many_frames && !reading.is_head {
            let (range, form) = (0..self.plan.nar_size(), Arc::clone(&cache.framer));
            body(cache.readers.pieces(self.plan, range, form).await?)
        } else {
            self.encoded_body(cache, reading, Compression::Zstd).await?
        };
        Ok((headers, body).into_response())
    }

    /// Answers with the body in `compression`, as it was once uploaded: that is then the
    /// body itself, and what a client knows of ranges and encodings does not apply.
    pub(super) async fn respond_compressed(
        self,
        cache: &Cache,
        reading: &Reading,
        compression: Compression,
    ) -> Result<Response, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("none"));
        if let Some(len) = encoded_len(compression, self.plan.nar_size()) {
            headers.insert(header::CONTENT_LENGTH, len.into());
        }
        let body = self.encoded_body(cache, reading, compression).await?;
        Ok((headers, body).into_response())
    }

    async fn encoded_body(
        self,
        cache: &Cache,
        reading: &Reading,
        compression: Compression,
    ) -> Result<Body, Failure> {
        if reading.is_head {
            // A body without a length that is known, so that none is claimed.
            return Ok(Body::from_stream(stream::empty::<Result<Bytes, Error>>()));
        }
        let len = self.plan.nar_size();
        let encoder = Encoder::new(compression, len)?;
        let pieces = cache.readers.plain(self.plan, 0..len).await?;
        Ok(body(encode(encoder, pieces)))
    }

    fn headers(&self, etag: HeaderValue) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::ETAG, etag);
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding, User-Agent"));
        headers
    }
}

/// A body of `pieces`.
fn body<E>(pieces: impl Stream<Item = Result<Buffers, E>> + Send + 'static) -> Body
where
    E: std::error::Error + Send + Sync + 'static,
{
    Body::from_stream(pieces.map_ok(|buffers| stream::iter(buffers).map(Ok::<_, E>)).try_flatten())
}

/// Compresses `pieces`, each on a thread that may block, while the next are being read.
fn encode(
    encoder: Encoder,
    pieces: impl Stream<Item = Result<Buffers, Error>> + Send + 'static,
) -> impl Stream<Item = Result<Buffers, Failure>> + Send + 'static {
    let pieces = Box::pin(pieces);
    stream::try_unfold(Some((encoder, pieces)), |state| async {
        let Some((encoder, mut pieces)) = state else { return Ok(None) };
        let Some(piece) = pieces.next().await.transpose()? else {
            let last = compute(move || encoder.finish()).await?;
            return Ok::<_, Failure>(Some((filled([last]), None)));
        };
        let (encoder, out) = compute(move || {
            let mut encoder = encoder;
            let out: Vec<_> =
                piece.iter().map(|buffer| encoder.push(buffer)).collect::<Result<_, _>>()?;
            Ok((encoder, out))
        })
        .await?;
        Ok(Some((filled(out), Some((encoder, pieces)))))
    })
}

/// Without empty buffers: nothing may come out of a piece yet, and an empty chunk would be no
/// news to a client.
fn filled(buffers: impl IntoIterator<Item = Bytes>) -> Buffers {
    buffers.into_iter().filter(|buffer| !buffer.is_empty()).collect()
}

async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EncodeError> + Send + 'static,
) -> Result<T, Failure> {
    match event_loops::spawn_blocking(work).await {
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
        .any(|tag| tag == "*" || Some(tag) == etag.map(|etag| etag.trim_start_matches("W/")))
}

fn unsatisfiable(len: u64) -> Response {
    let content_range = format!("bytes */{len}");
    let text = format!("the body has {len} bytes, and the range begins behind them\n");
    (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, content_range)], text)
        .into_response()
}

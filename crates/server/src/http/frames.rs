//! Bodies of many zstd frames: what is stored as a frame goes out as it is stored, and what
//! lies between is compressed fast, piece by piece and each piece for itself.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use granary_castore::{Error, Result};
use granary_store::{NarPiece, StoredBytes};
use zstd::zstd_safe::compress_bound;

use super::pieces::{Buffers, Form};

/// Level of zstd for what lies between the frames that are stored.
const ZSTD_LEVEL: i32 = 1;

/// Compressors that are kept for the next piece. More pieces than this are hardly ever read
/// at the same time.
const MAX_KEPT_COMPRESSORS: usize = 16;

/// Whether the client says that it is one of `clients`, which read every frame of a body: some
/// decoders stop behind the first. A client is known by how one of the words of its
/// `User-Agent` begins.
pub(super) fn are_read_by_client(headers: &HeaderMap, clients: &[String]) -> bool {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| {
        let is_known = |word: &str| clients.iter().any(|client| word.starts_with(client.as_str()));
        agent.split_whitespace().any(is_known)
    })
}

/// Makes frames of pieces.
#[derive(Default)]
pub(super) struct Framer {
    compressors: Mutex<Vec<zstd::bulk::Compressor<'static>>>,
}

impl Framer {
    /// The form of pieces that are frames.
    pub(super) fn form(self: &Arc<Self>) -> Form {
        let framer = Arc::clone(self);
        Arc::new(move |piece| framer.frames(piece))
    }

    /// The piece as frames, one after the other.
    fn frames(&self, piece: NarPiece) -> Result<Buffers> {
        let mut compressor = self.compressor()?;
        let mut frames = Vec::new();
        let mut between = Vec::new();
        piece.read_stored(|bytes| {
            match bytes {
                StoredBytes::Literal(bytes) => between.extend_from_slice(bytes),
                StoredBytes::Plain(bytes) => between.extend_from_slice(&bytes),
                StoredBytes::Zstd { frame, .. } => {
                    end_frame(&mut compressor, &mut between, &mut frames)?;
                    frames.push(frame);
                }
            }
            Ok(())
        })?;
        end_frame(&mut compressor, &mut between, &mut frames)?;
        self.keep(compressor);
        Ok(frames)
    }

    fn compressor(&self) -> Result<zstd::bulk::Compressor<'static>> {
        let kept = self.compressors.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match kept {
            Some(compressor) => Ok(compressor),
            None => zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(no_memory),
        }
    }

    fn keep(&self, compressor: zstd::bulk::Compressor<'static>) {
        let mut kept = self.compressors.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MAX_KEPT_COMPRESSORS {
            kept.push(compressor);
        }
    }
}

/// Makes a frame of the bytes between two others, if there are any.
fn end_frame(
    compressor: &mut zstd::bulk::Compressor<'static>,
    between: &mut Vec<u8>,
    frames: &mut Vec<Bytes>,
) -> Result<()> {
    if between.is_empty() {
        return Ok(());
    }
    let mut frame = Vec::with_capacity(compress_bound(between.len()));
    compressor.compress_to_buffer(between, &mut frame).map_err(no_memory)?;
    between.clear();
    frames.push(frame.into());
    Ok(())
}

/// With room for the worst case, compressing fails for nothing else.
fn no_memory(cause: std::io::Error) -> Error {
    Error::unavailable("there is no memory to compress a body").because(cause)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn clients_are_known_by_their_words() {
        let clients = ["Nix/".to_owned(), "curl/".to_owned()];
        for (agent, expected) in [
            ("curl/7.88.1 Nix/2.8.0", true),
            ("curl/8.5.0", true),
            ("Nix/2.24", true),
            ("something Nix/2.24", true),
            ("ureq/3.0", false),
            ("libcurl/8", false),
            ("nix/2", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
            assert_eq!(are_read_by_client(&headers, &clients), expected, "{agent:?}");
        }
        assert!(!are_read_by_client(&HeaderMap::new(), &clients));
    }
}

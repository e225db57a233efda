//! Bodies of many zstd frames: what is stored as a frame goes out as it is stored, and what
//! lies between is compressed fast, piece by piece and each piece for itself.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use granary_castore::{Error, Result};
use granary_store::{NarPiece, StoredBytes};
use quick_cache::{Weighter, sync::Cache};
use zstd::zstd_safe::compress_bound;

use super::{
    bounded,
    pieces::{Buffers, Form, Later},
};

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

/// Most bytes of frames that are kept: what lies between those that are stored, a twentieth of the
/// bytes of a closure, takes a third of the time to send it.
const FRAMED_CACHE_BYTES: u64 = 64 << 20;

/// How many pieces the cache is laid out for.
const FRAMED_CACHE_ENTRIES: usize = 8 << 10;

/// Makes frames of pieces.
pub(super) struct Framer {
    compressors: Mutex<Vec<zstd::bulk::Compressor<'static>>>,
    /// By piece.
    framed: Cache<u64, Arc<[Framed]>, ByLength>,
}

/// Some bytes of a piece.
#[derive(Clone)]
enum Framed {
    /// As a frame that was made of them.
    Made(Bytes),
    /// Those of this part, which was stored as a frame.
    Stored(usize),
}

#[derive(Clone)]
struct ByLength;

impl Weighter<u64, Arc<[Framed]>> for ByLength {
    fn weight(&self, _piece: &u64, framed: &Arc<[Framed]>) -> u64 {
        let made = framed.iter().map(|framed| match framed {
            Framed::Made(frame) => frame.len(),
            Framed::Stored(_) => 0,
        });
        (made.sum::<usize>() + size_of_val(&**framed) + size_of::<Arc<[Framed]>>()) as u64
    }
}

impl Default for Framer {
    fn default() -> Self {
        let framed = bounded::cache(FRAMED_CACHE_ENTRIES, FRAMED_CACHE_BYTES, ByLength);
        Self { compressors: Mutex::default(), framed }
    }
}

impl Framer {
    fn make(&self, piece: &NarPiece, later: Later) -> Result<Buffers> {
        let (mut frames, mut framed) = (Vec::new(), Vec::new());
        let mut between = Vec::new();
        for part in 0..piece.part_count() {
            match piece.read_stored_part(part)? {
                StoredBytes::Literal(bytes) => between.extend_from_slice(bytes),
                StoredBytes::Plain(bytes) => between.extend_from_slice(&bytes),
                StoredBytes::Zstd { frame, .. } => {
                    self.end_frame(&mut between, &mut frames, &mut framed)?;
                    frames.push(frame);
                    framed.push(Framed::Stored(part));
                }
            }
        }
        self.end_frame(&mut between, &mut frames, &mut framed)?;
        if later == Later::Kept {
            self.framed.insert(piece.id(), framed.into());
        }
        Ok(frames)
    }

    /// What was framed before, once more.
    fn again(&self, piece: &NarPiece, framed: &Framed) -> Result<Bytes> {
        match framed {
            Framed::Made(frame) => Ok(frame.clone()),
            Framed::Stored(part) => match piece.read_stored_part(*part)? {
                StoredBytes::Zstd { frame, .. } => Ok(frame),
                // It is stored in another way by now.
                StoredBytes::Plain(bytes) => self.frame(&bytes),
                StoredBytes::Literal(bytes) => self.frame(bytes),
            },
        }
    }

    /// Makes a frame of the bytes between two others, if there are any.
    fn end_frame(
        &self,
        between: &mut Vec<u8>,
        frames: &mut Buffers,
        framed: &mut Vec<Framed>,
    ) -> Result<()> {
        if !between.is_empty() {
            let frame = self.frame(between)?;
            between.clear();
            framed.push(Framed::Made(frame.clone()));
            frames.push(frame);
        }
        Ok(())
    }

    fn frame(&self, bytes: &[u8]) -> Result<Bytes> {
        let mut compressor = self.compressor()?;
        let mut frame = Vec::with_capacity(compress_bound(bytes.len()));
        // With room for the worst case, compressing fails for nothing else.
        compressor.compress_to_buffer(bytes, &mut frame).map_err(no_memory)?;
        self.keep(compressor);
        // It will be kept, without that room.
        frame.shrink_to_fit();
        Ok(frame.into())
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

/// The piece as frames, one after the other.
impl Form for Framer {
    fn read(&self, piece: &NarPiece, later: Later) -> Result<Buffers> {
        match self.framed.get(&piece.id()) {
            Some(framed) => framed.iter().map(|framed| self.again(piece, framed)).collect(),
            None => self.make(piece, later),
        }
    }

    fn read_now(&self, piece: &NarPiece) -> Option<Buffers> {
        let framed = self.framed.get(&piece.id())?;
        let now = framed.iter().map(|framed| match framed {
            Framed::Made(frame) => Some(frame.clone()),
            Framed::Stored(part) => piece.read_frame_now(*part),
        });
        now.collect()
    }

    fn is_work(&self) -> bool {
        // What is had now was made before, and goes out as it is.
        false
    }
}

fn no_memory(cause: std::io::Error) -> Error {
    Error::unavailable("there is no memory to compress a body").because(cause)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use granary_castore::Castore as _;
    use granary_store::{NarPieces, NarPlan};
    use granary_testkit::{FramedStore, Random};

    use super::*;

    #[test]
    fn what_was_framed_once_is_not_framed_again() {
        let castore = FramedStore::new(100_000);
        let contents = Random::new(1).compressible(1 << 20);
        let mut batch = castore.batch().expect("memory");
        let digest = batch.put_blob(contents.clone().into()).expect("memory");
        batch.commit().expect("memory");
        let plan = Arc::new(NarPlan::of_blob(digest, contents.len() as u64));
        let mut rest = NarPieces::new(plan, 0..u64::MAX);
        let pieces = std::iter::from_fn(|| rest.next(&castore).expect("whole"));
        let (pieces, framer): (Vec<_>, _) = (pieces.collect(), Framer::default());
        let frames = || -> Vec<Bytes> {
            pieces
                .iter()
                .flat_map(|piece| framer.read(piece, Later::Kept).expect("whole"))
                .collect()
        };
        let first = frames();
        let read = || {
            let counts = castore.counts().remove(&digest).expect("it was read");
            (counts.read.values().sum::<usize>(), counts.frames)
        };
        let (all, stored) = read();
        assert!(stored < all, "some is not stored as a frame");
        let second = frames();
        assert_eq!(read(), (all + stored, 2 * stored), "only what is stored is read again");
        assert!(first == second);
        let decoded: Vec<u8> = first
            .iter()
            .flat_map(|frame| zstd::stream::decode_all(&frame[..]).expect("a frame of zstd"))
            .collect();
        assert!(decoded == contents);
    }

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

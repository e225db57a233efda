//! A body in pieces: read ahead, in order, without holding a thread while the client is
//! slow.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use granary_castore::{Chain, Error, Result};

/// How much is read at a time, in bytes.
pub(super) const PIECE_BYTES: u32 = 512 * 1024;

/// How many pieces are read before the client has taken the first of them. This times
/// [`PIECE_BYTES`] is what a connection costs.
const PIECES_AHEAD: usize = 2;

/// Reads a body at an offset: as many bytes as are asked for, fewer only at its end. It may
/// block.
pub(super) type ReadAt = Arc<dyn Fn(u64, usize) -> Result<Bytes> + Send + Sync>;

/// The bytes `range` of a body, which must lie within it, piece by piece.
///
/// The first piece is read before this returns, so that what is wrong from the start still
/// gets a proper answer. An error later is an item of the stream, and its end.
pub(super) async fn pieces(
    read_at: ReadAt,
    range: Range<u64>,
) -> Result<impl Stream<Item = Result<Bytes>> + Send + 'static> {
    let end = range.end;
    let mut rest = stream::iter(range.step_by(PIECE_BYTES as usize))
        .map(move |offset| {
            let len = (end - offset).min(u64::from(PIECE_BYTES));
            read_piece(Arc::clone(&read_at), offset, len)
        })
        .buffered(PIECES_AHEAD);
    let first = rest.next().await.transpose()?;
    Ok(stream::iter(first.map(Ok)).chain(rest).inspect(|piece| {
        if let Err(error) = piece {
            // The client only sees its connection break.
            tracing::error!("a body breaks off: {}", Chain(error));
        }
    }))
}

async fn read_piece(read_at: ReadAt, offset: u64, len: u64) -> Result<Bytes> {
    let wanted = usize::try_from(len).unwrap_or(usize::MAX);
    let piece = tokio::task::spawn_blocking(move || read_at(offset, wanted))
        .await
        .map_err(|error| Error::unavailable("a piece could not be read").because(error))??;
    // A piece of another length would shift all that follows.
    if piece.len() as u64 != len {
        return Err(Error::corrupt(format!(
            "reading {len} bytes at {offset} gave {} bytes",
            piece.len()
        )));
    }
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 3 * PIECE_BYTES as usize + 7;

    fn byte_at(offset: usize) -> u8 {
        (offset / 1000).to_le_bytes()[0]
    }

    fn whole() -> Vec<u8> {
        (0..LEN).map(byte_at).collect()
    }

    fn source(fails_at: Option<u64>, is_short: bool) -> ReadAt {
        let bytes = Bytes::from(whole());
        Arc::new(move |offset, len| {
            if fails_at.is_some_and(|at| (offset..offset + len as u64).contains(&at)) {
                return Err(Error::corrupt("damaged"));
            }
            let start = usize::try_from(offset).expect("small");
            Ok(bytes.slice(start..start + len - usize::from(is_short)))
        })
    }

    async fn collect(read_at: ReadAt, range: Range<u64>) -> Result<Vec<Result<Bytes>>> {
        Ok(pieces(read_at, range).await?.collect().await)
    }

    #[tokio::test]
    async fn gives_any_range() {
        let whole = whole();
        let piece = u64::from(PIECE_BYTES);
        for range in [0..LEN as u64, 0..1, 5..6, piece - 1..piece + 1, 7..LEN as u64, 9..9] {
            let pieces = collect(source(None, false), range.clone()).await.expect("reads");
            let bytes: Vec<u8> =
                pieces.into_iter().flat_map(|piece| piece.expect("reads")).collect();
            let expected = usize::try_from(range.start).expect("small")
                ..usize::try_from(range.end).expect("small");
            assert!(bytes == whole[expected], "{range:?}");
        }
    }

    #[tokio::test]
    async fn an_error_in_the_first_piece_comes_before_the_stream() {
        assert!(collect(source(Some(3), false), 0..LEN as u64).await.is_err());
        assert!(collect(source(None, true), 0..LEN as u64).await.is_err());
    }

    #[tokio::test]
    async fn an_error_later_is_in_the_stream() {
        let at = u64::from(PIECE_BYTES) * 2;
        let pieces = collect(source(Some(at), false), 0..LEN as u64).await.expect("begins");
        assert!(pieces[0].is_ok() && pieces[1].is_ok());
        assert!(matches!(pieces[2], Err(Error::Corrupt(_))));
    }
}

//! The bytes of a frame, before they are compressed.

use bytes::Bytes;

/// Bytes of a frame in pieces, in order, each where it came. Those that are not one piece of memory
/// are put together on the thread that compresses them: so they come into the cache of the core that
/// needs them, and whoever gathers them copies nothing.
#[derive(Debug, Default)]
pub(super) struct RawFrame {
    pieces: Vec<Bytes>,
}

impl RawFrame {
    /// Adds what comes next. If it lies in `archive` right behind the last piece, it becomes a part
    /// of that.
    pub(super) fn push(&mut self, bytes: Bytes, archive: &Bytes) {
        if bytes.is_empty() {
            return;
        }
        if let Some(last) = self.pieces.last_mut()
            && let Some(joined) = join(last, &bytes, archive)
        {
            *last = joined;
        } else {
            self.pieces.push(bytes);
        }
    }

    /// All of them, put together in `buffer` if they are more than one piece.
    pub(super) fn contiguous<'a>(&'a self, buffer: &'a mut Vec<u8>) -> &'a [u8] {
        if let [only] = &self.pieces[..] {
            return only;
        }
        buffer.clear();
        buffer.reserve(self.pieces.iter().map(Bytes::len).sum());
        for piece in &self.pieces {
            buffer.extend_from_slice(piece);
        }
        buffer
    }
}

/// Both pieces as one, if that is how they lie in `archive`.
fn join(first: &Bytes, second: &Bytes, archive: &Bytes) -> Option<Bytes> {
    let start = first.as_ptr().addr().checked_sub(archive.as_ptr().addr())?;
    let middle = start.checked_add(first.len())?;
    let end = middle.checked_add(second.len())?;
    let is_behind = archive.get(middle..end)?.as_ptr() == second.as_ptr();
    is_behind.then(|| archive.slice(start..end))
}

impl From<Bytes> for RawFrame {
    fn from(bytes: Bytes) -> Self {
        Self { pieces: vec![bytes] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_put_together_in_order() {
        let mut frame = RawFrame::default();
        let mut buffer = b"what was there before".to_vec();
        assert_eq!(frame.contiguous(&mut buffer), b"");
        for piece in ["one", "", "two", "three"] {
            frame.push(Bytes::from_static(piece.as_bytes()), &Bytes::new());
        }
        assert_eq!(frame.contiguous(&mut buffer), b"onetwothree");
        assert_eq!(frame.contiguous(&mut buffer), b"onetwothree");
    }

    #[test]
    fn neighbours_in_an_archive_are_not_copied() {
        let archive = Bytes::from(b"one two three four".to_vec());
        let other = Bytes::from(b"one two three four".to_vec());
        for (pieces, is_copied) in [
            (vec![archive.slice(..3), archive.slice(3..8), archive.slice(8..)], false),
            (vec![archive.slice(4..8), archive.slice(8..8), archive.slice(8..9)], false),
            (vec![archive.slice(..3), archive.slice(4..)], true),
            (vec![archive.slice(4..8), archive.slice(..4)], true),
            (vec![archive.slice(..4), other.slice(4..)], true),
            (vec![other.slice(..4), archive.slice(4..)], true),
            (vec![other.slice(..4), other.slice(4..)], true),
            (vec![archive.slice(..4), archive.slice(4..8), other.slice(8..)], true),
        ] {
            let mut frame = RawFrame::default();
            for piece in &pieces {
                frame.push(piece.clone(), &archive);
            }
            let mut buffer = Vec::new();
            assert_eq!(frame.contiguous(&mut buffer), pieces.concat());
            assert_eq!(!buffer.is_empty(), is_copied, "{pieces:?}");
        }
    }

    #[test]
    fn one_piece_is_not_copied() {
        let piece = Bytes::from_static(b"all of it");
        let (frame, mut buffer) = (RawFrame::from(piece.clone()), Vec::new());
        assert_eq!(frame.contiguous(&mut buffer).as_ptr(), piece.as_ptr());
        assert_eq!(buffer, b"");
    }
}

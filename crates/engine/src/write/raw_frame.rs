//! The bytes of a frame, before they are compressed.

use bytes::Bytes;

/// Bytes of a frame in pieces, in order, each where it came. They are put together on the thread
/// that compresses them: so they come into the cache of the core that needs them, and whoever
/// gathers them copies nothing.
#[derive(Debug, Default)]
pub(super) struct RawFrame {
    pieces: Vec<Bytes>,
}

impl RawFrame {
    pub(super) fn with_capacity(pieces: usize) -> Self {
        Self { pieces: Vec::with_capacity(pieces) }
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
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
            frame.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(frame.contiguous(&mut buffer), b"onetwothree");
        assert_eq!(frame.contiguous(&mut buffer), b"onetwothree");
    }

    #[test]
    fn one_piece_is_not_copied() {
        let piece = Bytes::from_static(b"all of it");
        let (frame, mut buffer) = (RawFrame::from(piece.clone()), Vec::new());
        assert_eq!(frame.contiguous(&mut buffer).as_ptr(), piece.as_ptr());
        assert_eq!(buffer, b"");
    }
}

//! Memory of buffers that is used again.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;

/// Gives out buffers of one reader, and gets their memory back when nobody has any of their bytes any
/// more: what one thread takes from the allocator and another gives back is slow to come back to the
/// first.
pub(crate) struct Recycler {
    give_back: SyncSender<Vec<u8>>,
    given_back: Receiver<Vec<u8>>,
}

impl Recycler {
    /// One that keeps so many buffers while nobody uses them.
    pub(crate) fn new(kept: usize) -> Self {
        let (give_back, given_back) = sync_channel(kept);
        Self { give_back, given_back }
    }

    /// A buffer with whatever was in it when it was [frozen](Self::freeze), or a new one.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.given_back.try_recv().unwrap_or_default()
    }

    /// The first `len` of `bytes`, whose memory then comes back.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub(crate) fn freeze(&self, bytes: Vec<u8>, len: usize) -> Bytes {
        Bytes::from_owner(Buffer { bytes, len, give_back: self.give_back.clone() })
    }
}

struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    give_back: SyncSender<Vec<u8>>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Nobody wants it if there are enough, or at the end.
        drop(self.give_back.try_send(std::mem::take(&mut self.bytes)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_when_nobody_has_it() {
        let recycler = Recycler::new(2);
        let buffers: Vec<_> =
            (0..3_u8).map(|number| recycler.freeze(vec![number; 100], 10)).collect();
        let kept = buffers[0].slice(3..5);
        let place = buffers[1].as_ptr();
        drop(buffers);
        assert_eq!(kept, [0, 0][..]);
        let again = recycler.take();
        assert_eq!((again.as_ptr(), &again[..]), (place, &[1; 100][..]));
        assert_eq!(recycler.take(), [2; 100]);
        assert_eq!(recycler.take(), [0; 0], "one is in use");
        drop(kept);
        assert_eq!(recycler.take(), [0; 100]);
    }

    #[test]
    fn no_more_are_kept_than_were_asked_for() {
        let recycler = Recycler::new(1);
        drop((recycler.freeze(vec![1], 1), recycler.freeze(vec![2], 1)));
        assert_eq!(recycler.take(), [1]);
        assert_eq!(recycler.take(), [0; 0]);
    }
}

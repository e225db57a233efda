//! Buffers that are used again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Most bytes of buffers that wait for their next use.
const KEPT_BUFFER_BYTES: usize = 16 << 20;

/// Lengths of buffers are multiples of this, so that one that held a frame has room for most
/// others.
const BUFFER_STEP_BYTES: usize = 128 << 10;

/// Buffers to read into. The one that was used last comes first, since it is the likeliest to be
/// in the processor's cache; and none is zeroed again, which would cost about as much as to read
/// from the page cache.
#[derive(Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// A buffer in use. It goes back when it is dropped.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// How many of them are used.
    len: usize,
    buffers: Buffers,
}

impl Buffers {
    /// A buffer of `len` bytes, which was held against a limit. What is in it is left over from
    /// somebody else: IMPORTANT: whoever hands it on has written every byte of it.
    pub(crate) fn take(&self, len: usize) -> Buffer {
        let mut bytes = self.kept().take();
        if bytes.len() < len {
            // Not to copy what nobody wants.
            bytes.clear();
            bytes.resize(len.next_multiple_of(BUFFER_STEP_BYTES), 0);
        }
        Buffer { bytes, len, buffers: self.clone() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn take(&mut self) -> Vec<u8> {
        let bytes = self.buffers.pop().unwrap_or_default();
        self.bytes -= bytes.len();
        bytes
    }

    fn keep(&mut self, bytes: Vec<u8>) {
        if self.bytes + bytes.len() <= KEPT_BUFFER_BYTES {
            self.bytes += bytes.len();
            self.buffers.push(bytes);
        }
    }
}

impl Buffer {
    /// Its bytes as they are now. It goes back when nobody has any of them.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.buffers.kept().keep(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_nobody_has_it() {
        let buffers = Buffers::default();
        let mut first = buffers.take(300_000);
        first.as_mut().fill(7);
        let place = first.as_ref().as_ptr();
        let bytes = first.freeze();
        let part = bytes.slice(100..200);
        drop(bytes);
        assert_ne!(buffers.take(300_000).as_ref().as_ptr(), place, "somebody has a part of it");
        assert_eq!(part, [7; 100][..]);
        drop(part);
        let again = buffers.take(200_000);
        assert_eq!((again.as_ref().as_ptr(), again.as_ref().len()), (place, 200_000));
    }

    #[test]
    fn a_buffer_is_as_long_as_it_is_wanted() {
        let buffers = Buffers::default();
        for len in [0, 1, BUFFER_STEP_BYTES, BUFFER_STEP_BYTES + 1, 3, 5 * BUFFER_STEP_BYTES] {
            assert_eq!(buffers.take(len).freeze().len(), len);
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers = Buffers::default();
        let used: Vec<_> = (0..40).map(|_| buffers.take(1 << 20)).collect();
        drop(used);
        assert_eq!(buffers.kept().bytes, KEPT_BUFFER_BYTES);
        drop(buffers.take(2 * KEPT_BUFFER_BYTES));
        let kept = buffers.kept();
        assert!(kept.bytes <= KEPT_BUFFER_BYTES);
        assert_eq!(kept.bytes, kept.buffers.iter().map(Vec::len).sum::<usize>());
    }
}

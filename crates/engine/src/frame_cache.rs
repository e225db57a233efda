//! Decompressed frames that are kept for the next one who reads them.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

use crate::{format::ContentsTag, index::Location};

/// Bytes of frames of which somebody wanted but a part: the next read is likely to want another.
const FRAME_CACHE_BYTES: u64 = 8 << 20;

/// Bytes of frames that were read as a whole more than once lately. A NAR has a file as often as it
/// has hard links, and drivers that are one file of 24 MiB under a dozen names are no rarity.
const REPEATED_FRAME_BYTES: u64 = 32 << 20;

/// How many frames that were read as a whole are remembered, to tell which are read again. They are
/// of half a MiB or so, and several bodies are read at a time.
const REMEMBERED_FRAMES: usize = 1024;

/// How many frames the caches are laid out for.
const LAID_OUT_FRAMES: usize = 512;

/// What each frame costs beside its bytes.
const ENTRY_BYTES: u64 = 64;

/// The handle of a pack, and where in it the frame begins.
type Key = (u32, u32);

/// See the module.
pub(crate) struct FrameCache {
    partial: Cache<Key, Bytes, ByLength>,
    repeated: Cache<Key, (ContentsTag, Bytes), ByLength>,
    lately: Mutex<Lately>,
}

impl Default for FrameCache {
    fn default() -> Self {
        Self {
            partial: cache(FRAME_CACHE_BYTES),
            repeated: cache(REPEATED_FRAME_BYTES),
            lately: Mutex::default(),
        }
    }
}

impl FrameCache {
    /// The raw bytes of the frame that an object lies in, if parts of it were read lately.
    pub(crate) fn partial(&self, location: &Location) -> Option<Bytes> {
        self.partial.get(&key(location))
    }

    /// Keeps a frame of which a part was wanted.
    pub(crate) fn keep_partial(&self, location: &Location, raw: &Bytes) {
        self.partial.insert(key(location), raw.clone());
    }

    /// The raw bytes of the frame that an object lies in, if it is kept as one that is read as a
    /// whole, and has that length and tag.
    pub(crate) fn whole(
        &self,
        location: &Location,
        raw_len: u64,
        tag: impl FnOnce() -> ContentsTag,
    ) -> Option<Bytes> {
        let (found, raw) = self.repeated.get(&key(location))?;
        (raw.len() as u64 == raw_len && found == tag()).then_some(raw)
    }

    /// Keeps a frame that was wanted as a whole, if it was before: most are wanted once, and would
    /// only take the room of those.
    pub(crate) fn note_whole(&self, location: &Location, tag: ContentsTag, raw: &Bytes) {
        let key = key(location);
        if self.lately.lock().unwrap_or_else(PoisonError::into_inner).note(key) {
            self.repeated.insert(key, (tag, raw.clone()));
        }
    }

    /// Forgets a frame: what is read next of it comes from the disk.
    pub(crate) fn forget(&self, location: &Location) {
        self.partial.remove(&key(location));
        self.repeated.remove(&key(location));
    }
}

fn key(location: &Location) -> Key {
    (location.pack, location.frame_offset)
}

/// The frames that were read last as a whole.
#[derive(Debug, Default)]
struct Lately {
    order: VecDeque<Key>,
    keys: HashSet<Key>,
}

impl Lately {
    /// Notes a frame, and says whether it was noted before.
    fn note(&mut self, key: Key) -> bool {
        if !self.keys.insert(key) {
            return true;
        }
        if self.order.len() == REMEMBERED_FRAMES
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        self.order.push_back(key);
        false
    }
}

/// A cache in one piece: a part of it would be filled by a few frames.
fn cache<V: Clone>(bytes: u64) -> Cache<Key, V, ByLength>
where
    ByLength: Weighter<Key, V>,
{
    let options = OptionsBuilder::new()
        .shards(1)
        .estimated_items_capacity(LAID_OUT_FRAMES)
        .weight_capacity(bytes)
        .build()
        .expect("all that has no default is set");
    let (hashes, life) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
    Cache::with_options(options, ByLength, hashes, life)
}

#[derive(Clone)]
struct ByLength;

impl Weighter<Key, Bytes> for ByLength {
    fn weight(&self, _key: &Key, raw: &Bytes) -> u64 {
        raw.len() as u64 + ENTRY_BYTES
    }
}

impl Weighter<Key, (ContentsTag, Bytes)> for ByLength {
    fn weight(&self, key: &Key, (_, raw): &(ContentsTag, Bytes)) -> u64 {
        self.weight(key, raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: ContentsTag = [1; 7];

    fn location(frame_offset: u32) -> Location {
        Location { pack: 1, frame_offset, frame_len: 9, offset: 0, len: 9 }
    }

    fn raw(len: usize) -> Bytes {
        vec![7; len].into()
    }

    #[test]
    fn what_is_read_twice_is_kept() {
        let frames = FrameCache::default();
        frames.note_whole(&location(5), TAG, &raw(100));
        assert_eq!(frames.whole(&location(5), 100, || TAG), None, "it was read once");
        frames.note_whole(&location(5), TAG, &raw(100));
        assert_eq!(frames.whole(&location(5), 100, || TAG), Some(raw(100)));
        assert_eq!(frames.whole(&location(5), 99, || TAG), None, "it has another length");
        assert_eq!(frames.whole(&location(5), 100, || [2; 7]), None, "it has other contents");
        assert_eq!(frames.whole(&location(6), 100, || TAG), None);
        assert_eq!(frames.partial(&location(5)), None);
    }

    #[test]
    fn what_is_forgotten_is_not_given() {
        let frames = FrameCache::default();
        frames.keep_partial(&location(5), &raw(10));
        frames.note_whole(&location(5), TAG, &raw(10));
        frames.note_whole(&location(5), TAG, &raw(10));
        assert_eq!(frames.partial(&location(5)), Some(raw(10)));
        frames.forget(&location(5));
        assert_eq!(frames.partial(&location(5)), None);
        assert_eq!(frames.whole(&location(5), 10, || TAG), None);
    }

    /// One file of 24 MiB under many names, read beside much that is read once.
    #[test]
    fn a_file_of_many_names_is_decompressed_twice() {
        let frames = FrameCache::default();
        let (mut once, mut unpacked) = (1_000_000, 0);
        for _ in 0..10 {
            for frame in 0..24 {
                if frames.whole(&location(frame), 1 << 20, || TAG).is_none() {
                    unpacked += 1;
                    frames.note_whole(&location(frame), TAG, &raw(1 << 20));
                }
                for _ in 0..15 {
                    once += 1;
                    frames.note_whole(&location(once), TAG, &raw(1 << 20));
                }
            }
        }
        assert_eq!(unpacked, 2 * 24);
    }

    #[test]
    fn what_is_kept_and_remembered_is_bounded() {
        let frames = FrameCache::default();
        for frame in 0..2_000 {
            frames.note_whole(&location(frame), TAG, &raw(1 << 20));
            frames.note_whole(&location(frame), TAG, &raw(1 << 20));
            frames.keep_partial(&location(frame), &raw(1 << 20));
        }
        assert!(frames.repeated.weight() <= REPEATED_FRAME_BYTES);
        assert!(frames.partial.weight() <= FRAME_CACHE_BYTES);
        let lately = frames.lately.lock().expect("nothing panicked");
        assert_eq!((lately.order.len(), lately.keys.len()), (REMEMBERED_FRAMES, REMEMBERED_FRAMES));
    }
}

//! Narinfos that were rendered lately.

use std::sync::Arc;

use bytes::Bytes;
use granary_nix_formats::StorePathHash;
use granary_store::{Provenance, Store};
use quick_cache::{Weighter, sync::Cache};

/// Most bytes of rendered narinfos that are kept. Those of a few thousand paths fit.
pub const MAX_CACHED_NARINFO_BYTES: u64 = 8 << 20;

/// How many narinfos the cache is laid out for.
const CACHED_NARINFOS: usize = 8 << 10;

/// What a narinfo takes beside its text and provenance: key, value and their place.
const ENTRY_BYTES: usize = 128;

/// The texts of narinfos, each with what it was made of. One that the store would not render
/// the same again is not given out.
///
/// Only what is served is kept, never that something is not. Contents that were damaged or
/// deleted behind the store's back are not its business, no more than they are that of the
/// store once it has the size and hash of a NAR: whoever reads the NAR finds out.
pub(super) struct NarInfoCache(Cache<StorePathHash, Arc<Rendered>, RenderedWeight>);

struct Rendered {
    text: Bytes,
    provenance: Provenance,
}

#[derive(Clone)]
struct RenderedWeight;

impl Weighter<StorePathHash, Arc<Rendered>> for RenderedWeight {
    fn weight(&self, _key: &StorePathHash, rendered: &Arc<Rendered>) -> u64 {
        (ENTRY_BYTES + rendered.text.len() + rendered.provenance.memory_bytes()) as u64
    }
}

impl Default for NarInfoCache {
    fn default() -> Self {
        Self(Cache::with_weighter(CACHED_NARINFOS, MAX_CACHED_NARINFO_BYTES, RenderedWeight))
    }
}

impl NarInfoCache {
    /// The narinfo of that path, if it is kept and `store` would render the same.
    pub(super) fn get(&self, store: &Store, hash: &StorePathHash) -> Option<Bytes> {
        let rendered = self.0.get(hash)?;
        // Noted first: what is used does not go. If it is going all the same, it is looked up.
        let stays = store.note_use(hash);
        (stays && store.is_current(&rendered.provenance)).then(|| rendered.text.clone())
    }

    /// Keeps a narinfo that was rendered of what `provenance` says.
    pub(super) fn insert(&self, hash: StorePathHash, text: Bytes, provenance: Provenance) {
        self.0.insert(hash, Arc::new(Rendered { text, provenance }));
    }
}

#[cfg(test)]
mod tests {
    use granary_castore::{MemoryStore, Node, SymlinkTarget};
    use granary_nix_formats::StorePath;
    use granary_store::{PathInfo, PathInfoService, StoreOptions};

    use super::*;

    fn hash(number: u64) -> StorePathHash {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        StorePathHash::from_bytes(bytes)
    }

    /// A store, and what it serves path 0 on.
    fn store() -> (Store, Provenance) {
        let memory = Arc::new(MemoryStore::default());
        let store = Store::new(memory.clone(), memory, StoreOptions::default());
        let target = SymlinkTarget::new(&b"target"[..]).expect("a target");
        let path_info = PathInfo {
            store_path: StorePath::new(hash(0), "link").expect("a name"),
            node: Node::Symlink { target },
            references: Vec::new(),
            nar: None,
        };
        store.put_path_info(path_info).expect("memory");
        let (_, provenance) =
            store.served_with_provenance(&hash(0)).expect("memory").expect("it is right");
        (store, provenance)
    }

    #[test]
    fn keeps_within_the_limit() {
        let (store, provenance) = store();
        let cache = NarInfoCache::default();
        let text = Bytes::from(vec![b'x'; 10_000]);
        let number = 2 * MAX_CACHED_NARINFO_BYTES / 10_000;
        for number in 0..number {
            cache.insert(hash(number), text.clone(), provenance.clone());
            assert!(cache.0.weight() <= MAX_CACHED_NARINFO_BYTES);
        }
        let kept = (0..number).filter(|number| cache.get(&store, &hash(*number)).is_some());
        let kept = kept.count() as u64;
        assert!(kept > number / 4, "{kept} of {number}");
        // Their number is bounded too.
        for number in 0..200_000 {
            cache.insert(hash(number), Bytes::new(), provenance.clone());
        }
        assert!(cache.0.weight() <= MAX_CACHED_NARINFO_BYTES);
        let most = MAX_CACHED_NARINFO_BYTES / ENTRY_BYTES as u64;
        assert!(cache.0.len() as u64 <= most, "{} over {most}", cache.0.len());
    }

    #[test]
    fn gives_the_newest() {
        let (store, provenance) = store();
        let cache = NarInfoCache::default();
        assert_eq!(cache.get(&store, &hash(0)), None);
        for text in ["older", "newer"] {
            cache.insert(hash(0), Bytes::from(text), provenance.clone());
            assert_eq!(cache.get(&store, &hash(0)), Some(Bytes::from(text)));
        }
    }
}

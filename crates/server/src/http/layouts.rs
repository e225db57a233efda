//! Pieces of NARs that were read lately, so that they need not be cut again.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use granary_store::{NarPiece, NarPlan};
use quick_cache::{Weighter, sync::Cache};

use super::bounded;

/// Most bytes that the pieces take that are kept, and as many those that are being cut. Those of a
/// Linux source tree take a quarter.
const LAYOUT_CACHE_BYTES: u64 = 32 << 20;

/// How many NARs the cache is laid out for.
const LAYOUT_CACHE_ENTRIES: usize = 1024;

/// The pieces of whole NARs.
pub(super) struct Layouts {
    /// By plan.
    kept: Cache<u64, Arc<Layout>, ByMemory>,
    /// Bytes of those that are being cut.
    growing: Arc<AtomicU64>,
}

struct Layout {
    /// That of the blobs before they were cut.
    generation: u64,
    pieces: Vec<Arc<NarPiece>>,
    memory_bytes: u64,
}

#[derive(Clone)]
struct ByMemory;

impl Weighter<u64, Arc<Layout>> for ByMemory {
    fn weight(&self, _plan: &u64, layout: &Arc<Layout>) -> u64 {
        layout.memory_bytes
    }
}

impl Default for Layouts {
    fn default() -> Self {
        let kept = bounded::cache(LAYOUT_CACHE_ENTRIES, LAYOUT_CACHE_BYTES, ByMemory);
        Self { kept, growing: Arc::default() }
    }
}

impl Layouts {
    /// The pieces of a NAR, if they are kept and lie where they did.
    pub(super) fn get(&self, plan: &NarPlan, generation: u64) -> Option<Vec<Arc<NarPiece>>> {
        let id = plan.id()?;
        let layout = self.kept.get(&id)?;
        if layout.generation == generation {
            return Some(layout.pieces.clone());
        }
        self.kept.remove(&id);
        None
    }

    /// Begins to note the pieces of a NAR, unless they are not worth it. `generation` is that of
    /// the blobs now.
    pub(super) fn begin(&self, plan: &Arc<NarPlan>, generation: u64) -> Option<NewLayout> {
        let growing = Arc::clone(&self.growing);
        let layout = Layout { generation, pieces: Vec::new(), memory_bytes: 0 };
        let mut new = NewLayout { id: plan.id()?, layout, growing };
        // A piece keeps the plan, which another cache may have let go of.
        new.grow(plan.memory_bytes() as u64).then_some(new)
    }

    /// Bytes of those that are being cut.
    #[cfg(test)]
    pub(super) fn growing_bytes(&self) -> u64 {
        self.growing.load(Ordering::Relaxed)
    }

    /// Keeps the pieces of a whole NAR.
    pub(super) fn keep(&self, mut new: NewLayout) {
        let layout = Layout { pieces: std::mem::take(&mut new.layout.pieces), ..new.layout };
        self.kept.insert(new.id, Arc::new(layout));
    }
}

/// The pieces of a NAR that is being cut.
pub(super) struct NewLayout {
    id: u64,
    layout: Layout,
    growing: Arc<AtomicU64>,
}

impl NewLayout {
    /// Adds the next pieces; false if there is no room for them, and then it is of no more use.
    #[must_use]
    pub(super) fn extend(&mut self, pieces: &[Arc<NarPiece>]) -> bool {
        self.layout.pieces.extend_from_slice(pieces);
        self.grow(pieces.iter().map(|piece| piece.memory_bytes() as u64).sum())
    }

    /// False if those that are being cut would take more together than those that are kept.
    fn grow(&mut self, bytes: u64) -> bool {
        self.layout.memory_bytes += bytes;
        self.growing.fetch_add(bytes, Ordering::Relaxed) + bytes <= LAYOUT_CACHE_BYTES
    }
}

impl Drop for NewLayout {
    fn drop(&mut self) {
        self.growing.fetch_sub(self.layout.memory_bytes, Ordering::Relaxed);
    }
}

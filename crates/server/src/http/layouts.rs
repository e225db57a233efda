//! Pieces of NARs that were read lately, so that they need not be cut again.

use std::sync::Arc;

use granary_store::{NarPiece, NarPlan};
use quick_cache::{Weighter, sync::Cache};

use super::bounded;

/// Most bytes that the pieces take that are kept. Those of a Linux source tree take a quarter.
const LAYOUT_CACHE_BYTES: u64 = 32 << 20;

/// How many NARs the cache is laid out for.
const LAYOUT_CACHE_ENTRIES: usize = 1024;

/// The pieces of whole NARs.
pub(super) struct Layouts {
    /// By plan.
    kept: Cache<u64, Arc<Layout>, ByMemory>,
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
        Self { kept: bounded::cache(LAYOUT_CACHE_ENTRIES, LAYOUT_CACHE_BYTES, ByMemory) }
    }
}

impl Layouts {
    /// The pieces of a NAR, if they are kept and lie where they did.
    pub(super) fn get(&self, plan: &NarPlan, generation: u64) -> Option<Vec<Arc<NarPiece>>> {
        let layout = self.kept.get(&plan.id())?;
        if layout.generation == generation {
            return Some(layout.pieces.clone());
        }
        self.kept.remove(&plan.id());
        None
    }

    /// Keeps the pieces of a whole NAR, if they are not too many.
    pub(super) fn keep(&self, new: NewLayout) {
        let NewLayout { plan, layout } = new;
        if layout.memory_bytes <= LAYOUT_CACHE_BYTES {
            self.kept.insert(plan.id(), Arc::new(layout));
        }
    }
}

/// The pieces of a NAR that is being cut.
pub(super) struct NewLayout {
    plan: Arc<NarPlan>,
    layout: Layout,
}

impl NewLayout {
    /// Without a piece so far. `generation` is that of the blobs now.
    pub(super) fn new(plan: Arc<NarPlan>, generation: u64) -> Self {
        // A piece keeps the plan, which another cache may have let go of.
        let memory_bytes = plan.memory_bytes() as u64;
        Self { plan, layout: Layout { generation, pieces: Vec::new(), memory_bytes } }
    }

    /// Adds the next pieces. Of too many, none is kept.
    pub(super) fn extend(&mut self, pieces: &[Arc<NarPiece>]) {
        let Self { layout, .. } = self;
        layout.memory_bytes += pieces.iter().map(|piece| piece.memory_bytes() as u64).sum::<u64>();
        if layout.memory_bytes > LAYOUT_CACHE_BYTES {
            layout.pieces = Vec::new();
        } else {
            layout.pieces.extend_from_slice(pieces);
        }
    }
}

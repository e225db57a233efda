//! Blobs that are opened before they are needed, so that the way to a daemon and back is
//! not waited for once per file.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use granary_castore::{BlobDigest, BlobReader, BlobService, BlobStat, ChunkMeta, Error, Result};
use granary_store::{NarPlan, PlannedBlob};

/// Threads that open blobs. They mostly wait.
const OPENERS: usize = 8;

/// Most blobs that are open ahead.
const MAX_AHEAD_BLOBS: usize = 64;

/// Most bytes that the blobs open ahead may have, but for one blob that has more. An open
/// blob may be in memory.
const MAX_AHEAD_BYTES: u64 = 16 << 20;

/// What a blob that was opened ahead came to.
type Opened = Result<Option<Box<dyn BlobReader>>>;

/// Gives `work` the blobs of `plan`, which it opens in the order of the plan, each once.
pub(crate) fn with<T>(
    blobs: &dyn BlobService,
    plan: &NarPlan,
    work: impl FnOnce(&dyn BlobService) -> T,
) -> T {
    let planned: Vec<_> = plan.blobs().copied().collect();
    let ahead = ReadAhead { blobs, planned, state: Mutex::default(), changed: Condvar::new() };
    thread::scope(|scope| {
        // Also when the work panics: the scope would wait for the threads for ever.
        let _stop = Stop(&ahead);
        for _ in 0..OPENERS {
            scope.spawn(|| ahead.open_blobs());
        }
        work(&ahead)
    })
}

struct ReadAhead<'a> {
    blobs: &'a dyn BlobService,
    planned: Vec<PlannedBlob>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Numbers are positions in the plan.
#[derive(Default)]
struct State {
    /// The blob that is opened ahead next.
    next: usize,
    /// The blob that is asked for next.
    wanted: usize,
    /// Bytes of the blobs from `wanted` to `next`.
    ahead_bytes: u64,
    opened: BTreeMap<usize, Opened>,
    is_over: bool,
}

struct Stop<'a, 'b>(&'a ReadAhead<'b>);

impl Drop for Stop<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

impl ReadAhead<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// What each of the threads does.
    fn open_blobs(&self) {
        while let Some((position, blob)) = self.claim() {
            let opened = self.blobs.open(&blob.digest);
            self.lock().opened.insert(position, opened);
            self.changed.notify_all();
        }
    }

    /// The next blob to open, once there is room for it; `None` when all is over.
    fn claim(&self) -> Option<(usize, PlannedBlob)> {
        let mut state = self.lock();
        loop {
            let blob = *self.planned.get(state.next)?;
            if state.is_over {
                return None;
            }
            let ahead = state.next - state.wanted;
            let fits = state.ahead_bytes + blob.size_bytes <= MAX_AHEAD_BYTES;
            if ahead == 0 || ahead < MAX_AHEAD_BLOBS && fits {
                let position = state.next;
                state.next += 1;
                state.ahead_bytes += blob.size_bytes;
                return Some((position, blob));
            }
            state = self.wait(state);
        }
    }
}

impl BlobService for ReadAhead<'_> {
    fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>> {
        self.blobs.stat(digest)
    }

    fn chunks(&self, digest: &BlobDigest, max_chunks: usize) -> Result<Option<Vec<ChunkMeta>>> {
        self.blobs.chunks(digest, max_chunks)
    }

    fn open(&self, digest: &BlobDigest) -> Opened {
        let mut state = self.lock();
        let position = state.wanted;
        let Some(blob) = self.planned.get(position).filter(|blob| blob.digest == *digest) else {
            return Err(Error::invalid(format!("blob {digest} is not the next of the NAR")));
        };
        loop {
            if let Some(opened) = state.opened.remove(&position) {
                state.wanted += 1;
                state.ahead_bytes -= blob.size_bytes;
                self.changed.notify_all();
                return opened;
            }
            state = self.wait(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use granary_castore::{Castore as _, MemoryStore, Node};
    use granary_store::RenderError;
    use granary_testkit::{Random, tree::Tree};

    use super::*;

    /// A tree of files, some of them larger than all that may be open ahead.
    fn tree() -> Tree {
        let mut random = Random::new(3);
        Tree::directory((0..500).map(|number| {
            let len = if number % 200 == 7 { 17 << 20 } else { random.below(5_000) };
            (format!("{number:03}"), Tree::file(random.incompressible(len)))
        }))
    }

    fn stored(tree: &Tree) -> (MemoryStore, Node) {
        let store = MemoryStore::default();
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tree");
        tree.write_to(&path).expect("the disk takes it");
        let mut batch = store.batch().expect("it takes writes");
        let ingested = granary_store::ingest_path(&path, &mut *batch, &()).expect("it is read");
        batch.commit().expect("memory takes it");
        (store, ingested.node)
    }

    #[test]
    fn gives_the_same_nar() {
        let tree = tree();
        let (store, node) = stored(&tree);
        let plan = NarPlan::new(&store, &node).expect("it answers").expect("it is stored");
        let mut nar = Vec::new();
        with(&store, &plan, |blobs| plan.write_to(blobs, &mut nar)).expect("it is written");
        assert!(nar == tree.to_nar());
    }

    /// Takes a few bytes and no more.
    struct Full(usize);

    impl std::io::Write for Full {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(buf.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(buf.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn ends_when_the_work_does() {
        let (store, node) = stored(&tree());
        let plan = NarPlan::new(&store, &node).expect("it answers").expect("it is stored");
        let error = with(&store, &plan, |blobs| plan.write_to(blobs, Full(300_000)));
        assert!(matches!(error, Err(RenderError::Sink(_))), "{error:?}");
    }

    #[test]
    fn a_missing_blob_is_told() {
        let (store, node) = stored(&tree());
        let plan = NarPlan::new(&store, &node).expect("it answers").expect("it is stored");
        let nothing = MemoryStore::default();
        let error = with(&nothing, &plan, |blobs| plan.write_to(blobs, std::io::sink()));
        assert!(matches!(error, Err(RenderError::Store(Error::Corrupt(_)))), "{error:?}");
    }
}

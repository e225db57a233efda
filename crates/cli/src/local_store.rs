//! A store that this process opens itself.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use granary_engine::{Compression, Engine, OpenOptions};
use granary_nix_formats::SigningKey;
use granary_store::{
    GcOptions, LocalRetention, PathInfoService as _, StatsSource, Store, StoreOptions, StoreStats,
};

use crate::{
    error::{CliError, Result},
    progress::Progress,
};

/// How many times as long as it took to make it the sum over all path infos is good for:
/// summing takes at most a twentieth of the time, however large the store is and however
/// often it is asked.
const SUM_VALIDITY_FACTOR: u32 = 20;

/// How the engine is set; the rest is as the engine has it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EngineSettings {
    pub(crate) compression_level: Option<i32>,
    pub(crate) lease: Option<Duration>,
    pub(crate) rebuild_index: bool,
}

/// Opens the store in `data_dir`, making it if there is none, and shows progress where that
/// takes long.
pub(crate) fn open_engine(data_dir: &Path, settings: EngineSettings) -> Result<Engine> {
    let EngineSettings { compression_level, lease, rebuild_index } = settings;
    let message = if rebuild_index { "rebuilding the index" } else { "reading packs" };
    let bar = Progress::bytes_of(message);
    let shown = AtomicU64::new(0);
    let progress = |progress: granary_engine::Progress| {
        if shown.fetch_max(progress.done_bytes, Ordering::Relaxed) < progress.done_bytes {
            bar.set(progress.done_bytes, progress.total_bytes);
        }
    };
    let mut options =
        OpenOptions { rebuild_index, progress: Some(&progress), ..OpenOptions::default() };
    if let Some(level) = compression_level {
        options.compression = Compression::level(level);
    }
    if let Some(lease) = lease {
        options.lease = lease;
    }
    Engine::open(data_dir, &options).map_err(|error| CliError::open(error, data_dir))
}

/// A store over an engine, with the numbers of both.
#[derive(Clone)]
pub(crate) struct LocalStore {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<Store>,
    pub(crate) retention: LocalRetention,
    sums: Arc<Mutex<Option<Sums>>>,
    /// Held by the one verification that may run.
    pub(crate) verifying: Arc<Mutex<()>>,
}

/// Sums over all path infos.
#[derive(Clone, Copy)]
struct Sums {
    path_infos: u64,
    nar_bytes: u64,
    valid_until: Instant,
}

impl LocalStore {
    /// `gc` is what holds for collections where nothing else is said.
    pub(crate) fn new(engine: Engine, signing_key: Option<SigningKey>, gc: GcOptions) -> Self {
        let (castore, records) = (Arc::new(engine.clone()), Arc::new(engine.clone()));
        let store = Arc::new(Store::new(castore, records, StoreOptions { signing_key }));
        let retention = LocalRetention::new(Arc::clone(&store), Arc::new(engine.clone()), gc);
        Self { engine, store, retention, sums: Arc::default(), verifying: Arc::default() }
    }

    /// The sums, which may be a little old: see [`SUM_VALIDITY_FACTOR`].
    fn sums(&self) -> granary_castore::Result<Sums> {
        // Whoever asks meanwhile waits for the same sum rather than make it again.
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sums) = *sums
            && Instant::now() < sums.valid_until
        {
            return Ok(sums);
        }
        let fresh = self.sum()?;
        *sums = Some(fresh);
        Ok(fresh)
    }

    fn sum(&self) -> granary_castore::Result<Sums> {
        let began = Instant::now();
        let (mut path_infos, mut nar_bytes) = (0, 0_u64);
        for path_info in self.store.path_infos() {
            path_infos += 1;
            let nar_size = path_info?.nar.map_or(0, |nar| nar.nar_size);
            nar_bytes = nar_bytes.saturating_add(nar_size);
        }
        let validity: Duration = began.elapsed() * SUM_VALIDITY_FACTOR;
        Ok(Sums { path_infos, nar_bytes, valid_until: Instant::now() + validity })
    }
}

impl StatsSource for LocalStore {
    fn stats(&self) -> granary_castore::Result<StoreStats> {
        let engine = self.engine.stats()?;
        let sums = self.sums()?;
        Ok(StoreStats {
            // A chunk is a blob too: it can be read as one, and most were put as one.
            blobs: engine.chunk_count + engine.patched_chunk_count + engine.divided_blob_count,
            chunks: engine.chunk_count,
            patched_chunks: engine.patched_chunk_count,
            directories: engine.directory_count,
            path_infos: sums.path_infos,
            logical_bytes: sums.nar_bytes,
            unique_bytes: engine.chunk_bytes + engine.directory_bytes,
            stored_bytes: engine.stored_bytes,
            damaged_objects: engine.damaged_count,
            packs: engine.pack_count,
            format_version: granary_engine::FORMAT_VERSION,
        })
    }
}

//! What the daemon does by itself: writes when paths were used last, and collects garbage.

use std::{
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use granary_castore::Chain;
use granary_store::{GcOptions, Retention as _};
use indicatif::BinaryBytes;

use crate::{
    error::{CliError, Result},
    local_store::LocalStore,
};

/// How often last uses are written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(60);

/// After the start the first collection waits for this long, if the interval is not shorter: who
/// starts a daemon has other plans first.
const FIRST_COLLECTION: Duration = Duration::from_secs(10 * 60);

/// When a collection failed, perhaps because another was under way, it is tried again after this
/// long, if the interval is not shorter.
const RETRY: Duration = Duration::from_secs(5 * 60);

/// A thread that goes on until this is dropped.
pub(crate) struct Upkeep {
    /// Dropping it ends the thread, once it does nothing.
    _stop: Sender<()>,
}

impl Upkeep {
    /// Starts the thread. It collects garbage if there is an interval.
    pub(crate) fn start(local: LocalStore, gc_interval: Option<Duration>) -> Result<Self> {
        let (stop, stopped) = mpsc::channel();
        // Nobody waits for it: a collection may take long, and may be cut off at any point.
        thread::Builder::new()
            .name("granary-upkeep".to_owned())
            .spawn(move || {
                let mut next =
                    gc_interval.map(|interval| Instant::now() + interval.min(FIRST_COLLECTION));
                loop {
                    let wait = next.map_or(FLUSH_INTERVAL, |next| {
                        next.saturating_duration_since(Instant::now()).min(FLUSH_INTERVAL)
                    });
                    match stopped.recv_timeout(wait) {
                        Err(RecvTimeoutError::Timeout) => {}
                        Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                    }
                    flush(&local);
                    if let Some(interval) = gc_interval
                        && next.is_some_and(|next| next <= Instant::now())
                    {
                        let again = if collect(&local) { interval } else { interval.min(RETRY) };
                        next = Some(Instant::now() + again);
                    }
                }
            })
            .map_err(CliError::system("start a thread"))?;
        Ok(Self { _stop: stop })
    }
}

/// Writes when paths were used last.
pub(crate) fn flush(local: &LocalStore) {
    if let Err(error) = local.store.flush_uses() {
        tracing::warn!(error = %Chain(&error), "cannot write when paths were used last");
    }
}

/// Whether it came to its end.
fn collect(local: &LocalStore) -> bool {
    let began = Instant::now();
    let collected = local.retention.collect_garbage(&GcOptions::default(), &());
    let is_done = collected.is_ok();
    match collected {
        Ok(report) => tracing::info!(
            kept_paths = report.kept_paths,
            removed_paths = report.removed_paths,
            stored_before = %BinaryBytes(report.stored_bytes_before),
            stored_after = %BinaryBytes(report.stored_bytes_after),
            seconds = began.elapsed().as_secs(),
            "collected garbage"
        ),
        Err(error) => tracing::error!(error = %Chain(&error), "garbage could not be collected"),
    }
    is_done
}

//! The scrub: a thread of the daemon that reads all packs, again and again and slowly, so that
//! damage is found before somebody needs what it hit.

use std::{
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use granary_castore::Chain;
use granary_engine::{Engine, PackId, Progress, VerifyObserver};
use serde::{Deserialize, Serialize};

use crate::error::{CliError, Result};

/// Bytes in a second that are read, unless told otherwise: little enough for nobody to notice, and
/// a terabyte in three days.
pub(crate) const DEFAULT_MIB_PER_S: u64 = 4;

/// From the beginning of one pass to that of the next at least.
const PASS_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long it waits when the store does not answer.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// The note of how far it is, in the data directory.
const FILE_NAME: &str = "scrub.json";

/// How far a pass is. Packs are gone through in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Position {
    /// When the pass began, in seconds since 1970.
    began_unix_s: u64,
    /// The pack that was read last; none if the pass is over.
    last_pack: Option<String>,
}

impl Position {
    fn time_to_next_pass(&self) -> Duration {
        if self.last_pack.is_some() {
            return Duration::ZERO;
        }
        // A clock that was set back does not put it off for longer.
        let age = Duration::from_secs(unix_now_s().saturating_sub(self.began_unix_s));
        PASS_INTERVAL.saturating_sub(age)
    }
}

/// A scrub that goes on until this is dropped.
pub(crate) struct Scrub {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Scrub {
    /// Begins where the last one was; `None` if the rate is 0.
    pub(crate) fn start(engine: Engine, data_dir: &Path, mib_per_s: u64) -> Result<Option<Self>> {
        if mib_per_s == 0 {
            return Ok(None);
        }
        let stop = Arc::<Stop>::default();
        let scrubber = Scrubber {
            engine,
            file: data_dir.join(FILE_NAME),
            bytes_per_s: mib_per_s.saturating_mul(1 << 20),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name("granary-scrub".to_owned())
            .spawn(move || scrubber.run())
            .map_err(CliError::system("start the thread of the scrub"))?;
        Ok(Some(Self { stop, thread: Some(thread) }))
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the scrub panicked");
        }
    }
}

/// Whether it is to end.
#[derive(Debug, Default)]
struct Stop {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    /// Waits, but not longer than until it is set. Whether it is.
    fn wait(&self, time: Duration) -> bool {
        let is_set = self.lock();
        let waited = self.changed.wait_timeout_while(is_set, time, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

struct Scrubber {
    engine: Engine,
    file: PathBuf,
    bytes_per_s: u64,
    stop: Arc<Stop>,
}

impl Scrubber {
    fn run(&self) {
        let mut position = self.read_position();
        while !self.stop.wait(position.time_to_next_pass()) {
            if position.last_pack.is_none() {
                position.began_unix_s = unix_now_s();
            }
            if let Err(error) = self.pass(&mut position) {
                if *self.stop.lock() {
                    return;
                }
                tracing::warn!(error = %Chain(&error), "the scrub cannot go on; it tries again");
                if self.stop.wait(RETRY_INTERVAL) {
                    return;
                }
            }
        }
    }

    /// Goes through the packs behind the last one to the end.
    fn pass(&self, position: &mut Position) -> granary_castore::Result<()> {
        let (mut packs, mut damaged) = (0_u64, 0_u64);
        while let Some(pack) = self.next_pack(position)? {
            let throttle = Throttle { scrubber: self, began: Instant::now() };
            if let Some(report) = self.engine.verify_pack(pack, &throttle)? {
                packs += 1;
                damaged += u64::from(report.error_count > 0);
            }
            position.last_pack = Some(pack.to_string());
            self.write_position(position);
        }
        position.last_pack = None;
        self.write_position(position);
        if damaged > 0 {
            tracing::error!(packs, damaged, "the scrub went through all packs and found damage");
        } else {
            tracing::info!(packs, "the scrub went through all packs");
        }
        Ok(())
    }

    fn next_pack(&self, position: &Position) -> granary_castore::Result<Option<PackId>> {
        let packs = self.engine.pack_ids()?;
        Ok(match &position.last_pack {
            None => packs.first().copied(),
            Some(last) => packs.into_iter().find(|pack| pack.to_string() > *last),
        })
    }

    /// Without a note, or with one that cannot be read, it begins anew.
    fn read_position(&self) -> Position {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn write_position(&self, position: &Position) {
        let new = self.file.with_extension("json.new");
        let written = serde_json::to_vec(position)
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, &self.file));
        if let Err(error) = written {
            tracing::warn!(%error, "cannot note how far the scrub is; it may read packs twice");
        }
    }
}

/// Slows the reading of a pack down.
struct Throttle<'a> {
    scrubber: &'a Scrubber,
    began: Instant,
}

impl VerifyObserver for Throttle<'_> {
    fn progress(&self, progress: Progress) -> ControlFlow<()> {
        let Scrubber { bytes_per_s, stop, .. } = self.scrubber;
        let due = due(progress.done_bytes, *bytes_per_s).saturating_sub(self.began.elapsed());
        if stop.wait(due) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// How long reading so many bytes takes at a rate.
fn due(bytes: u64, bytes_per_s: u64) -> Duration {
    let micros = u128::from(bytes) * 1_000_000 / u128::from(bytes_per_s.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

fn unix_now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use granary_castore::Castore as _;
    use granary_engine::OpenOptions;
    use granary_testkit::Random;

    use super::*;

    #[test]
    fn a_rate_takes_its_time() {
        assert_eq!(due(0, 5), Duration::ZERO);
        assert_eq!(due(10, 5), Duration::from_secs(2));
        assert_eq!(due(u64::MAX, 0), Duration::from_micros(u64::MAX));
    }

    /// A store of a few packs, and what scrubs it.
    fn scrubber(data_dir: &Path, rate: u64) -> Scrubber {
        let options = OpenOptions { pack_bytes: 50_000, ..OpenOptions::default() };
        let engine = Engine::open(data_dir, &options).expect("a new store");
        let mut random = Random::new(4);
        for _ in 0..3 {
            let mut batch = engine.batch().expect("it takes writes");
            batch.put_blob(random.incompressible(60_000).into()).expect("taken");
            batch.commit().expect("stored");
        }
        let (file, stop) = (data_dir.join(FILE_NAME), Arc::default());
        Scrubber { engine, file, bytes_per_s: rate, stop }
    }

    #[test]
    fn goes_on_where_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let scrubber = scrubber(dir.path(), u64::MAX);
        let packs = scrubber.engine.pack_ids().expect("known");
        assert_eq!(packs.len(), 3);
        let mut position = Position { began_unix_s: 7, last_pack: Some(packs[1].to_string()) };
        scrubber.write_position(&position);
        assert_eq!(scrubber.read_position(), position);
        assert_eq!(scrubber.next_pack(&position).expect("known"), Some(packs[2]));
        assert_eq!(position.time_to_next_pass(), Duration::ZERO);
        scrubber.pass(&mut position).expect("it is read");
        assert_eq!(position, Position { began_unix_s: 7, last_pack: None });
        assert_eq!(scrubber.read_position(), position);
        // The pass began long ago.
        assert_eq!(position.time_to_next_pass(), Duration::ZERO);
        position.began_unix_s = unix_now_s();
        assert!(position.time_to_next_pass() > PASS_INTERVAL / 2);
        fs::write(&scrubber.file, "{").expect("the disk takes it");
        assert_eq!(scrubber.read_position(), Position::default());
    }

    #[test]
    fn ends_when_it_is_told_to() {
        let dir = tempfile::tempdir().expect("a directory");
        // A byte a second: only by being stopped does it end.
        let scrubber = scrubber(dir.path(), 1);
        let stop = Arc::clone(&scrubber.stop);
        let thread = std::thread::spawn(move || scrubber.run());
        stop.set();
        thread.join().expect("no panic");
    }
}

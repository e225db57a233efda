//! A disk in memory that fails where it is told to, and forgets what was not synced.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use granary_engine::{Disk, DiskError, DiskFile, DiskResult};

use crate::Random;

/// Bytes that a real disk writes as one: a torn write is torn between them.
const SECTOR_BYTES: usize = 512;

/// What happens when the counted operation comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Power fails: it and everything after it fails, and what was not synced may be gone.
    Crash,
    /// It fails once with an I/O error. A write may have written a part.
    IoError,
    /// It fails once because the disk is full. A write has written a part.
    DiskFull,
}

/// A disk in memory. Operations that change something are counted, and so are reads, apart, and
/// a fault can be set for one of them. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct CrashDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Arc<Mutex<Contents>>>,
    /// Names as a crash would leave them.
    durable_names: BTreeMap<String, Arc<Mutex<Contents>>>,
    operations: usize,
    fault: Option<(usize, Fault)>,
    /// From this operation on there is no space.
    full_from: Option<usize>,
    reads: usize,
    failing_read: Option<usize>,
    crashed: bool,
}

#[derive(Debug, Default, Clone)]
struct Contents {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync.
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Truncate(usize),
}

impl CrashDisk {
    /// How many operations changed something so far.
    pub fn operations(&self) -> usize {
        self.lock().operations
    }

    /// Makes the operation with this number (the first is 0) fail.
    pub fn set_fault(&self, operation: usize, fault: Fault) {
        self.lock().fault = Some((operation, fault));
    }

    /// Whether a fault was set and has come.
    pub fn fault_has_come(&self) -> bool {
        let state = self.lock();
        state.fault.is_some_and(|(at, _)| state.operations > at)
    }

    /// From the operation with this number on the disk is full: what takes space fails.
    pub fn fill_from(&self, operation: usize) {
        self.lock().full_from = Some(operation);
    }

    /// There is space again.
    pub fn free(&self) {
        self.lock().full_from = None;
    }

    /// How often something was read so far: a part of a file, its length, a directory, or
    /// whether a file is there.
    pub fn reads(&self) -> usize {
        self.lock().reads
    }

    /// Makes the read with this number (the first is 0) fail once, with an I/O error.
    pub fn set_failing_read(&self, read: usize) {
        self.lock().failing_read = Some(read);
    }

    /// Whether a read was to fail and has.
    pub fn read_has_failed(&self) -> bool {
        let state = self.lock();
        state.failing_read.is_some_and(|at| state.reads > at)
    }

    /// Another disk as a crash at this moment may leave it: of what was not synced, some
    /// is there, some is not, some is torn.
    #[must_use]
    pub fn after_crash(&self, random: &mut Random) -> Self {
        let state = self.lock();
        let mut files = BTreeMap::new();
        for (name, contents) in &state.durable_names {
            files.insert(name.clone(), lock(contents).after_crash(random));
        }
        for (name, contents) in &state.files {
            // A name that was not synced may have become durable all the same.
            if !files.contains_key(name) && random.one_in(2) {
                files.insert(name.clone(), lock(contents).after_crash(random));
            }
        }
        let files: BTreeMap<_, _> = files
            .into_iter()
            .map(|(name, bytes)| {
                let contents =
                    Contents { current: bytes.clone(), durable: bytes, changes: Vec::new() };
                (name, Arc::new(Mutex::new(contents)))
            })
            .collect();
        let state = State { durable_names: files.clone(), files, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Another disk with the same files, all of them durable, and no faults.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.lock();
        let files = state.files.iter().map(|(name, contents)| {
            let current = lock(contents).current.clone();
            let contents = Contents { durable: current.clone(), current, changes: Vec::new() };
            (name.clone(), Arc::new(Mutex::new(contents)))
        });
        let files: BTreeMap<_, _> = files.collect();
        let state = State { durable_names: files.clone(), files, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The bytes of all files, by name.
    pub fn all_contents(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.lock();
        let files = state.files.iter();
        files.map(|(name, contents)| (name.clone(), lock(contents).current.clone())).collect()
    }

    /// The bytes of a file, for a test to look at.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().files.get(name).map(|contents| lock(contents).current.clone())
    }

    /// Changes the bytes of a file behind the store's back, durably.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let state = self.lock();
        let mut contents = lock(state.files.get(name).expect("the file to tamper with is there"));
        change(&mut contents.current);
        let current = contents.current.clone();
        contents.durable = current;
        contents.changes.clear();
    }

    /// Names of all files.
    pub fn names(&self) -> Vec<String> {
        self.lock().files.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Counts an operation; the fault, if it is its turn.
    fn count(&self, operation: &'static str, name: &str) -> Result<(), (Fault, DiskError)> {
        let mut state = self.lock();
        if state.crashed {
            return Err((Fault::Crash, failed(operation, name, io::ErrorKind::Other)));
        }
        let number = state.operations;
        state.operations += 1;
        let takes_space = matches!(operation, "create" | "write");
        let fault = if takes_space && state.full_from.is_some_and(|from| number >= from) {
            Some((number, Fault::DiskFull))
        } else {
            state.fault
        };
        match fault {
            Some((at, fault)) if at == number => {
                state.crashed = fault == Fault::Crash;
                let kind = match fault {
                    Fault::DiskFull => io::ErrorKind::StorageFull,
                    Fault::Crash | Fault::IoError => io::ErrorKind::Other,
                };
                Err((fault, failed(operation, name, kind)))
            }
            _ => Ok(()),
        }
    }

    /// Counts a read, and fails if it is its turn.
    fn count_read(&self, operation: &'static str, name: &str) -> DiskResult<()> {
        let mut state = self.lock();
        let number = state.reads;
        state.reads += 1;
        if state.failing_read == Some(number) {
            return Err(failed(operation, name, io::ErrorKind::Other));
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(operation: &'static str, name: &str, kind: io::ErrorKind) -> DiskError {
    DiskError { operation, name: name.to_owned(), cause: io::Error::new(kind, "injected") }
}

impl Contents {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.changes.push(change);
    }

    fn after_crash(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in &self.changes {
            match change {
                Change::Truncate(_) if random.one_in(2) => change.apply(&mut bytes),
                Change::Truncate(_) => {}
                Change::Write { offset, data } => {
                    // Nothing, all, or some sectors of it.
                    let mode = random.below(3);
                    for (number, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                        if mode == 1 || mode == 2 && random.one_in(2) {
                            let offset = offset + number * SECTOR_BYTES;
                            Change::Write { offset, data: sector.to_vec() }.apply(&mut bytes);
                        }
                    }
                }
            }
        }
        bytes
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Truncate(len) => bytes.truncate(*len),
            Self::Write { offset, data } => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
        }
    }
}

impl Disk for CrashDisk {
    fn create_dir(&self, _name: &str) -> DiskResult<()> {
        Ok(())
    }

    fn list(&self, dir: &str) -> DiskResult<Vec<String>> {
        self.count_read("list the directory", dir)?;
        let prefix = format!("{dir}/");
        let state = self.lock();
        let names = state.files.keys().filter_map(|name| name.strip_prefix(&prefix));
        Ok(names.map(str::to_owned).collect())
    }

    fn create(&self, name: &str) -> DiskResult<Arc<dyn DiskFile>> {
        self.count("create", name).map_err(|(_, error)| error)?;
        let contents = Arc::<Mutex<Contents>>::default();
        let older = self.lock().files.insert(name.to_owned(), Arc::clone(&contents));
        if older.is_some() {
            return Err(failed("create", name, io::ErrorKind::AlreadyExists));
        }
        Ok(Arc::new(CrashFile { disk: self.clone(), name: name.to_owned(), contents }))
    }

    fn open(&self, name: &str) -> DiskResult<Option<Arc<dyn DiskFile>>> {
        self.count_read("open", name)?;
        let contents = self.lock().files.get(name).cloned();
        Ok(contents.map(|contents| {
            Arc::new(CrashFile { disk: self.clone(), name: name.to_owned(), contents }) as _
        }))
    }

    fn rename(&self, from: &str, to: &str) -> DiskResult<()> {
        self.count("rename", from).map_err(|(_, error)| error)?;
        let mut state = self.lock();
        let Some(contents) = state.files.remove(from) else {
            return Err(failed("rename", from, io::ErrorKind::NotFound));
        };
        state.files.insert(to.to_owned(), contents);
        Ok(())
    }

    fn remove(&self, name: &str) -> DiskResult<()> {
        self.count("remove", name).map_err(|(_, error)| error)?;
        let removed = self.lock().files.remove(name);
        removed.map(drop).ok_or_else(|| failed("remove", name, io::ErrorKind::NotFound))
    }

    fn sync_dir(&self, dir: &str) -> DiskResult<()> {
        self.count("sync", dir).map_err(|(_, error)| error)?;
        let mut state = self.lock();
        let inside = |name: &str| {
            let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
            parent == dir
        };
        let State { files, durable_names, .. } = &mut *state;
        durable_names.retain(|name, _| !inside(name));
        for (name, contents) in files.iter().filter(|(name, _)| inside(name)) {
            durable_names.insert(name.clone(), Arc::clone(contents));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct CrashFile {
    disk: CrashDisk,
    name: String,
    contents: Arc<Mutex<Contents>>,
}

impl CrashFile {
    fn bytes_at(&self, offset: u64, len: usize) -> Vec<u8> {
        let contents = lock(&self.contents);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(contents.current.len());
        let end = start.saturating_add(len).min(contents.current.len());
        contents.current[start..end].to_vec()
    }
}

impl DiskFile for CrashFile {
    fn len(&self) -> DiskResult<u64> {
        self.disk.count_read("measure", &self.name)?;
        Ok(lock(&self.contents).current.len() as u64)
    }

    fn read_at(&self, offset: u64, len: usize) -> DiskResult<Vec<u8>> {
        self.disk.count_read("read", &self.name)?;
        Ok(self.bytes_at(offset, len))
    }

    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> DiskResult<bool> {
        // No disk is asked that could fail.
        let bytes = self.bytes_at(offset, buffer.len());
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len() == buffer.len())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> DiskResult<()> {
        let was_dead = self.disk.lock().crashed;
        let counted = self.disk.count("write", &self.name);
        let written = match &counted {
            _ if was_dead => 0,
            // What of it survives the crash is drawn later.
            Ok(()) | Err((Fault::Crash, _)) => data.len(),
            Err((Fault::IoError | Fault::DiskFull, _)) => data.len() / 2,
        };
        let offset = usize::try_from(offset).expect("a test writes little");
        let data = data[..written].to_vec();
        lock(&self.contents).change(Change::Write { offset, data });
        counted.map_err(|(_, error)| error)
    }

    fn sync(&self) -> DiskResult<()> {
        self.disk.count("sync", &self.name).map_err(|(_, error)| error)?;
        let mut contents = lock(&self.contents);
        let current = contents.current.clone();
        contents.durable = current;
        contents.changes.clear();
        Ok(())
    }

    fn truncate(&self, len: u64) -> DiskResult<()> {
        self.disk.count("truncate", &self.name).map_err(|(_, error)| error)?;
        let len = usize::try_from(len).expect("a test writes little");
        lock(&self.contents).change(Change::Truncate(len));
        Ok(())
    }
}

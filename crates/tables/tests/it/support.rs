//! What the tests share.

use std::path::{Path, PathBuf};

use granary_tables::Tables;
use tempfile::TempDir;

pub(crate) type Key = Vec<u8>;
pub(crate) type Value = Vec<u8>;

/// A place for tables that is not there yet.
pub(crate) fn place() -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("a temporary directory");
    let tables = dir.path().join("tables");
    (dir, tables)
}

pub(crate) fn open(dir: &Path) -> Tables {
    Tables::open(dir).expect("whole tables")
}

/// Adds entries, whose keys ascend.
pub(crate) fn add<'a>(
    tables: &Tables,
    entries: impl IntoIterator<Item = (&'a Key, &'a Option<Value>)>,
) {
    let entries: Vec<_> = entries.into_iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
    tables.add(entries.into_iter()).expect("written");
}

pub(crate) fn get(tables: &Tables, key: &[u8]) -> Option<Value> {
    tables.get(key, <[u8]>::to_vec).expect("readable")
}

pub(crate) fn all(tables: &Tables) -> Vec<(Key, Value)> {
    tables.range(b"", b"").collect::<Result<_, _>>().expect("readable")
}

/// Files in `dir`, sorted.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

//! What the scenarios share.

use std::{fs, path::Path};

use bytes::Bytes;
use granary_castore::{
    BlobDigest, BlobService, Castore, Directory, DirectoryDigest, DirectoryService, Node, NodeName,
    RecordKind, RecordStore, RecordWrite, Result, SymlinkTarget,
};
use granary_engine::{Engine, OpenError, OpenOptions};

pub(crate) const KIND: RecordKind = RecordKind(7);

/// Opens the store in `dir`.
pub(crate) fn open(dir: &Path) -> Result<Engine, OpenError> {
    Engine::open(dir, &OpenOptions::default())
}

/// Puts a blob by itself.
pub(crate) fn put_blob(engine: &Engine, contents: &[u8]) -> Result<BlobDigest> {
    let mut batch = engine.batch()?;
    let digest = batch.put_blob(Bytes::copy_from_slice(contents))?;
    batch.commit()?;
    Ok(digest)
}

/// Reads a whole blob; `None` if it is not there.
pub(crate) fn read_blob(engine: &Engine, digest: &BlobDigest) -> Result<Option<Vec<u8>>> {
    let Some(mut reader) = BlobService::open(engine, digest)? else { return Ok(None) };
    let mut contents = Vec::new();
    loop {
        let piece = reader.read_at(contents.len() as u64, 1 << 20)?;
        if piece.is_empty() {
            assert_eq!(contents.len() as u64, reader.size_bytes());
            return Ok(Some(contents));
        }
        contents.extend_from_slice(&piece);
    }
}

/// A directory with one symlink in it.
pub(crate) fn directory(target: &str) -> Directory {
    let name = NodeName::new(&b"link"[..]).expect("a valid name");
    let target = SymlinkTarget::new(target.as_bytes().to_vec()).expect("a valid target");
    Directory::new(vec![(name, Node::Symlink { target })]).expect("one entry")
}

/// Puts a directory by itself.
pub(crate) fn put_directory(engine: &Engine, directory: &Directory) -> Result<DirectoryDigest> {
    let mut batch = engine.batch()?;
    let digest = batch.put_directory(directory)?;
    batch.commit()?;
    assert_eq!(engine.directory(&digest)?.as_ref(), Some(directory));
    Ok(digest)
}

/// Writes or deletes one record.
pub(crate) fn write_record(engine: &Engine, key: &[u8], value: Option<&[u8]>) -> Result<()> {
    engine.write_records(vec![RecordWrite {
        kind: KIND,
        key: Bytes::copy_from_slice(key),
        value: value.map(Bytes::copy_from_slice),
    }])
}

/// How many packs lie in `dir`.
pub(crate) fn pack_count(dir: &Path) -> usize {
    fs::read_dir(dir.join("packs")).expect("a store has packs").count()
}

/// Copies a directory with all that is in it.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the disk takes it");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("readable");
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_dir(&path, &copy);
        } else {
            fs::copy(path, copy).expect("the disk takes it");
        }
    }
}

//! A small store with some of everything in it, to be damaged: made once, and the same each
//! time, its ids included.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use granary_castore::{
    BlobDigest, BlobService, Castore, Directory, DirectoryDigest, DirectoryService, Error,
    NextBlob, Node, NodeName, RecordKind, RecordStore, RecordWrite, SymlinkTarget,
};
use granary_engine::{Disk, Engine, OpenError, OpenOptions};
use granary_testkit::{CrashDisk, Random};
use tempfile::TempDir;

use crate::pack_bytes::{self, StoreId};

pub(crate) const STORE_ID: StoreId = [0x51; 16];
const WRITER: u64 = 7;

/// Kind of the store's records.
pub(crate) const KIND: RecordKind = RecordKind(7);

/// Chunks as small as they can be, so that there are many of them.
const AVERAGE_CHUNK_BYTES: u32 = 4 << 10;

/// Length at which a pack is sealed: there are to be several.
const PACK_BYTES: u64 = 2 << 10;

/// What stands between two blobs that follow each other.
const LITERALS: &[u8] = b"literals";

/// Files and what is in them.
pub(crate) struct EngineStore {
    /// By name: the header of the store, then the packs.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Files of an index that fits, by their path in its directory.
    pub(crate) index: Vec<(PathBuf, Vec<u8>)>,
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) directories: Vec<Directory>,
    /// Keys and values; `None` was deleted.
    pub(crate) records: Vec<(&'static [u8], Option<Vec<u8>>)>,
}

/// The store.
pub(crate) fn engine_store() -> &'static EngineStore {
    static STORE: OnceLock<EngineStore> = OnceLock::new();
    STORE.get_or_init(EngineStore::make)
}

/// How much of it can be read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) right: usize,
    pub(crate) refused: usize,
    pub(crate) absent: usize,
}

/// What the frames of a store are held to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frames {
    /// Damage shows in the checksums.
    Genuine,
    /// Checksums were made right for other bytes. A frame that is handed out as it is stored is
    /// held against its checksum alone, and so is the list of chunks of a blob: it is the chunks
    /// that have digests. Who receives either will have to tell.
    Forged,
}

/// Opens what lies on a disk and in a directory of the index.
pub(crate) fn open(disk: &CrashDisk, index: &Path, rebuild: bool) -> Result<Engine, OpenError> {
    let options = OpenOptions {
        average_chunk_bytes: AVERAGE_CHUNK_BYTES,
        pack_bytes: PACK_BYTES,
        rebuild_index: rebuild,
        ..OpenOptions::default()
    };
    Engine::open_on(Arc::new(disk.clone()), &index.join("index"), &options)
}

/// A disk with these files.
pub(crate) fn disk_with(files: &[(String, Vec<u8>)]) -> CrashDisk {
    let disk = CrashDisk::default();
    for (name, bytes) in files {
        let file = disk.create(name).expect("names differ");
        file.write_at(bytes, 0).and_then(|()| file.sync()).expect("memory takes it");
    }
    for dir in ["", "packs"] {
        disk.sync_dir(dir).expect("memory takes it");
    }
    disk
}

/// A directory for an index, with the files of one.
pub(crate) fn index_with(files: &[(PathBuf, Vec<u8>)]) -> TempDir {
    let dir = TempDir::new().expect("a temporary directory");
    for (path, bytes) in files {
        let path = dir.path().join("index").join(path);
        let parent = path.parent().expect("it lies in the directory");
        fs::create_dir_all(parent).expect("the temporary directory takes files");
        fs::write(path, bytes).expect("the temporary directory takes files");
    }
    dir
}

impl EngineStore {
    fn make() -> Self {
        let mut this = Self {
            files: Vec::new(),
            index: Vec::new(),
            blobs: blobs(),
            directories: directories(),
            records: vec![
                (b"first", Some(b"value".to_vec())),
                (b"empty", Some(Vec::new())),
                (b"gone", None),
                (b"replaced", Some(b"second value".to_vec())),
            ],
        };
        let (disk, index) = (CrashDisk::default(), index_with(&[]));
        let engine = open(&disk, index.path(), false).expect("a new store");
        this.write(&engine).expect("memory takes it");
        drop(engine);
        this.take_files(&disk);

        let (disk, index) = (disk_with(&this.files), index_with(&[]));
        let engine = open(&disk, index.path(), true).expect("a store with other ids");
        let read = this.read_all(&engine);
        assert_eq!((read.refused, read.absent), (0, 0), "{read:?}");
        engine.close().expect("the index can be written");
        drop(engine);
        let root = index.path().join("index");
        take_tree(&root, Path::new(""), &mut this.index);
        this
    }

    fn write(&self, engine: &Engine) -> Result<(), Error> {
        let write = |key: &'static [u8], value: Option<&[u8]>| {
            let value = value.map(Bytes::copy_from_slice);
            engine.write_records(vec![RecordWrite {
                kind: KIND,
                key: Bytes::from_static(key),
                value,
            }])
        };
        write(b"gone", Some(b"for now"))?;
        write(b"replaced", Some(b"first value"))?;
        for blobs in self.blobs.chunks(2) {
            let mut batch = engine.batch()?;
            for blob in blobs {
                batch.put_blob(blob.clone().into())?;
                batch.put_literals(LITERALS)?;
            }
            batch.commit()?;
        }
        let mut batch = engine.batch()?;
        for directory in &self.directories {
            batch.put_directory(directory)?;
        }
        batch.commit()?;
        self.records.iter().try_for_each(|(key, value)| write(key, value.as_deref()))
    }

    /// Takes the files, with ids that are always the same in the place of random ones.
    fn take_files(&mut self, disk: &CrashDisk) {
        let contents = |name: &str| disk.contents(name).expect("it is there");
        let mut header = contents("store");
        header[24..40].copy_from_slice(&STORE_ID);
        header[40..48].copy_from_slice(&WRITER.to_le_bytes());
        pack_bytes::seal_store_header(&mut header);
        self.files = vec![("store".to_owned(), header)];
        let mut packs: Vec<_> = disk.names();
        packs.retain(|name| name.starts_with("packs/"));
        // By the sequence of the first segment.
        packs.sort_by_key(|name| contents(name)[64 + 20..64 + 28].to_vec());
        for (number, name) in (1..).zip(packs) {
            let mut pack = contents(&name);
            pack_bytes::set_ids(&mut pack, [number; 16], &STORE_ID, WRITER);
            pack_bytes::seal(&mut pack, &STORE_ID);
            self.files.push((format!("packs/{}.pack", format!("{number:02x}").repeat(16)), pack));
        }
        assert!(self.files.len() > 3, "there are several packs");
    }

    /// Reads everything.
    ///
    /// # Panics
    ///
    /// If something else is served than what was put, or refused for another reason than
    /// that it is damaged.
    pub(crate) fn read_all(&self, engine: &Engine) -> Read {
        let mut read = self.read_objects(engine, Frames::Genuine);
        for (key, value) in &self.records {
            match engine.record(KIND, key) {
                Ok(found) if found.as_deref() == value.as_deref() => read.right += 1,
                // An older value, if the newest was lost with its segment.
                Ok(_) => read.absent += 1,
                Err(error) => read.refuse(&error),
            }
        }
        read
    }

    /// Reads the blobs and directories, by extents too.
    ///
    /// # Panics
    ///
    /// As for [`read_all`](Self::read_all).
    pub(crate) fn read_objects(&self, engine: &Engine, frames: Frames) -> Read {
        let mut read = Read::default();
        for (number, blob) in self.blobs.iter().enumerate() {
            match read_blob(engine, &BlobDigest::of(blob)) {
                Ok(Some(found)) => {
                    let is_right = found == *blob;
                    let is_checked = frames == Frames::Genuine || is_one_chunk(engine, blob);
                    assert!(is_right || !is_checked, "other bytes were served for blob {number}");
                    read.right += usize::from(is_right);
                }
                Ok(None) => read.absent += 1,
                Err(error) => read.refuse(&error),
            }
            self.read_extent(engine, number, frames);
        }
        for directory in &self.directories {
            match engine.directory(&directory.digest()) {
                Ok(Some(found)) => {
                    assert_eq!(found, *directory);
                    read.right += 1;
                }
                Ok(None) => read.absent += 1,
                Err(error) => read.refuse(&error),
            }
        }
        read
    }

    /// Reads a blob, and what lies behind it, by an extent.
    fn read_extent(&self, engine: &Engine, number: usize, frames: Frames) {
        let blob = &self.blobs[number];
        let behind = self.blobs[number + 1..].iter().map(|next| NextBlob {
            literals: Bytes::from_static(LITERALS),
            digest: BlobDigest::of(next),
            size_bytes: next.len() as u64,
        });
        let mut expected = blob.clone();
        for next in &self.blobs[number + 1..] {
            expected.extend_from_slice(LITERALS);
            expected.extend_from_slice(next);
        }
        let Ok(Some(mut reader)) = BlobService::open(engine, &BlobDigest::of(blob)) else { return };
        let mut behind = behind;
        let Ok(Some(found)) = reader.extent_at(0, &mut behind) else { return };
        let now = found.extent.read_now();
        let bytes = found.extent.read();
        if let Some(now) = now {
            assert!(bytes.as_ref().is_ok_and(|bytes| *bytes == now), "at once, it was another");
        }
        if let Ok(bytes) = bytes
            && (frames == Frames::Genuine || is_one_chunk(engine, blob))
        {
            assert_eq!((found.start, bytes.len() as u64), (0, found.extent.size_bytes()));
            let bytes = &bytes[..bytes.len().min(blob.len())];
            assert!(expected.starts_with(bytes), "other bytes were served for extent {number}");
        }
        let stored = [found.extent.read_zstd_now(), found.extent.read_zstd().ok().flatten()];
        for stored in stored.into_iter().flatten().filter(|_| frames == Frames::Genuine) {
            let bytes = zstd::decode_all(&stored[..]).expect("what is handed out is a zstd frame");
            assert!(expected.starts_with(&bytes), "other bytes were served for frame {number}");
        }
    }
}

impl Read {
    fn refuse(&mut self, error: &Error) {
        assert!(matches!(error, Error::Corrupt(_)), "{error}");
        self.refused += 1;
    }
}

/// A whole blob.
pub(crate) fn read_blob(engine: &Engine, digest: &BlobDigest) -> Result<Option<Vec<u8>>, Error> {
    let Some(mut reader) = BlobService::open(engine, digest)? else { return Ok(None) };
    let mut contents = Vec::new();
    while (contents.len() as u64) < reader.size_bytes() {
        let piece = reader.read_at(contents.len() as u64, 1 << 20)?;
        assert!(!piece.is_empty(), "a blob ends too early");
        contents.extend_from_slice(&piece);
    }
    Ok(Some(contents))
}

/// Whether a blob is stored as one chunk, which is checked as a whole.
fn is_one_chunk(engine: &Engine, blob: &[u8]) -> bool {
    let chunks = engine.chunks(&BlobDigest::of(blob), usize::MAX);
    chunks.is_ok_and(|chunks| chunks.is_some_and(|chunks| chunks.is_empty()))
}

/// What is written to an open store is there, now and after it was opened again, with its index
/// and with one that is built anew.
///
/// # Panics
///
/// If it is not.
pub(crate) fn check_writing(engine: Engine, disk: &CrashDisk, index: &Path, frames: Frames) {
    // Nobody can have stored it before: its digest depends on all that is there.
    let mut hasher = blake3::Hasher::new();
    for name in disk.names() {
        hasher.update(&disk.contents(&name).unwrap_or_default());
    }
    let blob = hasher.finalize().to_hex().repeat(3).into_bytes();
    let digest = BlobDigest::of(&blob);
    let key = Bytes::copy_from_slice(&blob[..64]);
    write_new(&engine, &blob, &key).expect("it takes writes");
    let check = |engine: &Engine| {
        let found = read_blob(engine, &digest).expect("what was just written is not damaged");
        assert!(found.as_ref() == Some(&blob), "what was acknowledged is there");
        let found = engine.record(KIND, &key).expect("readable");
        assert!(found.as_ref() == Some(&key), "what was acknowledged is there");
    };
    check(&engine);
    drop(engine);
    for rebuild in [false, true] {
        match open(disk, index, rebuild) {
            Ok(engine) => check(&engine),
            // Whoever forges stamps may use up the numbers of segments.
            Err(OpenError::Failed(_)) if frames == Frames::Forged => return,
            Err(error) => panic!("what could be opened once opens again: {error}"),
        }
    }
}

fn write_new(engine: &Engine, blob: &[u8], key: &Bytes) -> Result<(), Error> {
    let mut batch = engine.batch()?;
    batch.put_blob(Bytes::copy_from_slice(blob))?;
    batch.commit()?;
    let value = Some(key.clone());
    engine.write_records(vec![RecordWrite { kind: KIND, key: key.clone(), value }])
}

/// Small ones and divided ones, some that share a frame with what is between, and some that
/// differ in references only.
fn blobs() -> Vec<Vec<u8>> {
    let mut random = Random::new(11);
    let sparse: Vec<u8> = (0..80_000_u32).map(|at| (at / 5_000).to_le_bytes()[0]).collect();
    vec![
        sparse,
        b"behind it".to_vec(),
        random.incompressible(700),
        random.compressible(9_000),
        Random::new(1).with_references(5_000, 4, 900, 10),
        Random::new(1).with_references(5_000, 4, 900, 11),
        Vec::new(),
    ]
}

fn directories() -> Vec<Directory> {
    let name = |name: &'static str| NodeName::new(name.as_bytes()).expect("a valid name");
    let target = SymlinkTarget::new(&b"file"[..]).expect("a valid target");
    let link = Node::Symlink { target };
    let leaf = Directory::new(vec![(name("link"), link)]).expect("one entry");
    let below = Node::Directory { digest: DirectoryDigest::of(&leaf.encode()), size: leaf.size() };
    let blob = b"behind it";
    let file = Node::File {
        digest: BlobDigest::of(blob),
        size_bytes: blob.len() as u64,
        executable: true,
    };
    let root = Directory::new(vec![(name("dir"), below), (name("file"), file)]);
    vec![Directory::default(), leaf, root.expect("two names")]
}

fn take_tree(root: &Path, below: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    let entries = fs::read_dir(root.join(below)).expect("the index can be read");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("the index can be read").file_name()).collect();
    names.sort();
    for name in names {
        let path = below.join(name);
        if root.join(&path).is_dir() {
            take_tree(root, &path, files);
        } else {
            files.push((path.clone(), fs::read(root.join(path)).expect("the index can be read")));
        }
    }
}

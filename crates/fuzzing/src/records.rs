//! Records of a segment that is valid but for what they say: whatever the index is told, no
//! object is served that does not have its digest.

use granary_castore::{
    BlobDigest, BlobService, DirectoryDigest, DirectoryService, RecordKind, RecordStore,
};
use granary_engine::{Engine, OpenError};

use crate::{
    engine_store::{Frames, STORE_ID, check_writing, disk_with, engine_store, index_with, open},
    pack_bytes::{self, BLOB_RECORD, FRAME_RECORD, VALUE_RECORD},
};

/// Longest part of a blob that is read: a record may claim any length.
const MAX_READ_BYTES: usize = 1 << 20;

/// Most keys of one input that are looked up.
const MAX_LOOK_UPS: usize = 64;

/// Behind the records are the frames of the first segment of this pack: patches and their bases.
const PACK: usize = 2;

/// Opens a store with a segment that has `data` as its records.
///
/// # Panics
///
/// If an object is served that does not have its digest, or the store loses what is written
/// afterwards.
pub fn check(data: &[u8]) {
    let store = engine_store();
    let (name, pack) = &store.files[PACK];
    let (frames, _) = pack_bytes::first_segment(pack).expect("a pack with a segment");
    let mut forged = pack_bytes::of_one_segment(pack, frames, data);
    pack_bytes::seal(&mut forged, &STORE_ID);
    let mut files = store.files.clone();
    files[PACK] = (name.clone(), forged);
    let (disk, index) = (disk_with(&files), index_with(&[]));
    let engine = match open(&disk, index.path(), false) {
        Ok(engine) => engine,
        Err(OpenError::Failed(error)) => panic!("records are no reason not to open: {error}"),
        Err(error) => panic!("{error}"),
    };
    store.read_objects(&engine, Frames::Forged);
    Records::new(&engine, data).look_up();
    engine.stats().expect("counted");
    check_writing(engine, &disk, index.path(), Frames::Genuine);
}

/// The records of an input, as far as they can be told apart.
struct Records<'a> {
    engine: &'a Engine,
    bodies: Vec<(u8, &'a [u8])>,
}

impl<'a> Records<'a> {
    fn new(engine: &'a Engine, data: &'a [u8]) -> Self {
        let bodies = pack_bytes::bodies(data).into_iter().take(MAX_LOOK_UPS);
        Self { engine, bodies: bodies.map(|(kind, range)| (kind, &data[range])).collect() }
    }

    /// Looks up what they tell of.
    fn look_up(&self) {
        for (kind, body) in &self.bodies {
            match *kind {
                FRAME_RECORD => {
                    let objects = body.get(8..).unwrap_or_default().chunks_exact(39);
                    for object in objects.take(MAX_LOOK_UPS) {
                        self.read(object[1..33].try_into().expect("32 bytes"));
                    }
                }
                BLOB_RECORD => {
                    if let Some(digest) = body.first_chunk() {
                        self.read(*digest);
                    }
                }
                VALUE_RECORD => self.read_value(body),
                _ => {}
            }
        }
    }

    /// Reads whatever has that digest.
    fn read(&self, digest: [u8; 32]) {
        let directory = DirectoryDigest::from_bytes(digest);
        if let Ok(Some(found)) = self.engine.directory(&directory) {
            assert_eq!(found.digest(), directory);
        }
        let digest = BlobDigest::from_bytes(digest);
        self.engine.stat(&digest).ok();
        self.engine.chunks(&digest, MAX_LOOK_UPS).ok();
        let Ok(Some(mut reader)) = BlobService::open(self.engine, &digest) else { return };
        if let Ok(Some(found)) = reader.extent_at(0, &mut std::iter::empty()) {
            found.extent.read_now();
            found.extent.read().ok();
            found.extent.read_zstd_now();
            found.extent.read_zstd().ok();
        }
        let size_bytes = reader.size_bytes();
        let mut contents = Vec::new();
        while (contents.len() as u64) < size_bytes {
            match reader.read_at(contents.len() as u64, MAX_READ_BYTES) {
                Ok(piece) => {
                    assert!(!piece.is_empty(), "a blob ends too early");
                    contents.extend_from_slice(&piece);
                }
                Err(_) => return,
            }
            if contents.len() > MAX_READ_BYTES {
                return;
            }
        }
        assert_eq!(contents.len() as u64, size_bytes);
        // Of a blob that is divided, it is the chunks that are checked.
        if !self.is_divided(&digest) {
            assert_eq!(BlobDigest::of(&contents), digest, "other bytes were served");
        }
    }

    /// Whether a record says that this blob has several chunks.
    fn is_divided(&self, digest: &BlobDigest) -> bool {
        let mut blobs = self.bodies.iter().filter(|(kind, _)| *kind == BLOB_RECORD);
        blobs.any(|(_, body)| body.starts_with(digest.as_bytes()))
    }

    fn read_value(&self, body: &[u8]) {
        let (Some(kind), Some(len), Some(key)) = (body.get(20), body.get(22..26), body.get(26..))
        else {
            return;
        };
        let kind = RecordKind(*kind);
        let len = u32::from_le_bytes(len.try_into().expect("4 bytes"));
        let key = &key[..usize::try_from(len).unwrap_or(usize::MAX).min(key.len())];
        let found = self.engine.record(kind, key).expect("readable");
        let listed = self.engine.scan_records(kind, None, MAX_LOOK_UPS).expect("readable");
        if listed.len() < MAX_LOOK_UPS {
            let listed = listed.into_iter().find(|(listed, _)| listed == key);
            assert_eq!(listed.map(|(_, value)| value), found, "of {key:?}");
        }
    }
}

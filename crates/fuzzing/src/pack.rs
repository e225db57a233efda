//! Packs that are not what was written: what is left of them is right, the rest is refused,
//! and the store goes on.
//!
//! The first byte says how, the second which file of a small store is changed, the rest is a
//! script of edits or the new file.

use granary_engine::OpenError;

use crate::{
    edit::Script,
    engine_store::{Frames, STORE_ID, check_writing, disk_with, engine_store, index_with, open},
    pack_bytes,
};

/// The index that fits is there.
const WITH_INDEX: u8 = 1;
/// Checksums are made right again.
const SEALED: u8 = 2;
/// The file is replaced, not edited.
const REPLACED: u8 = 4;
/// The store is written to, and opened again.
const WRITTEN: u8 = 8;

/// Bytes of the header of a pack or a store.
const HEADER_BYTES: usize = 64;

/// Opens a store with one file changed.
///
/// # Panics
///
/// If the store serves what was never put into it, does not tell that something is lost, or
/// loses what is written afterwards.
pub fn check(data: &[u8]) {
    let store = engine_store();
    let mut script = Script::new(data);
    let flags = script.u8();
    let mut files = store.files.clone();
    let number = usize::from(script.u8()) % files.len();
    let (name, bytes) = &mut files[number];
    let original = bytes.clone();
    if flags & REPLACED == 0 {
        script.edit(bytes);
    } else {
        *bytes = script.rest().to_vec();
    }
    if flags & SEALED != 0 {
        if name == "store" {
            pack_bytes::seal_store_header(bytes);
        } else {
            pack_bytes::seal(bytes, &STORE_ID);
        }
    }
    let is_forged = flags & SEALED != 0;
    let same_header = original.get(..HEADER_BYTES) == bytes.get(..HEADER_BYTES);
    let disk = disk_with(&files);
    let with_index = flags & WITH_INDEX != 0;
    let index = index_with(if with_index { &store.index } else { &[] });
    let engine = match open(&disk, index.path(), false) {
        Ok(engine) => engine,
        Err(OpenError::InUse { .. }) => panic!("nobody else uses it"),
        // Whoever forges headers can make packs of other stores and versions.
        Err(error @ (OpenError::Incompatible { .. } | OpenError::Failed(_))) => {
            assert!(is_forged || !same_header, "damage is no reason not to open: {error}");
            return;
        }
    };
    engine.stats().expect("counted");
    if is_forged {
        store.read_objects(&engine, Frames::Forged);
    } else {
        let read = store.read_all(&engine);
        let report = engine.report();
        if with_index && !report.rebuilt_index {
            assert_eq!(read.absent, 0, "what the index knows is there or damaged: {report:?}");
        }
        let told = !report.damage.is_empty() || !report.cut_tails.is_empty();
        if original.len() == files[number].1.len() && !told {
            assert_eq!(read.absent, 0, "nothing is missing that was not told: {report:?}");
        }
    }
    if flags & WRITTEN != 0 {
        let frames = if is_forged { Frames::Forged } else { Frames::Genuine };
        check_writing(engine, &disk, index.path(), frames);
    }
}

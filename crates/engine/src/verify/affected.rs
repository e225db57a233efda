//! What cannot be read because something else cannot.

use std::collections::{HashMap, HashSet};

use granary_castore::{BlobDigest, Error, ObjectName, ObjectType, Result};

use super::{list_entries, report::VerifyReport};
use crate::{
    engine::Inner,
    format::{ObjectKind, Patches},
    index::Located,
};

pub(super) type Blobs = HashMap<BlobDigest, Vec<ObjectName>>;

/// Adds to the report the chunks that are based on what is unreadable, and then all blobs that
/// cannot be read.
pub(super) fn find(engine: &Inner, report: &mut VerifyReport) -> Result<()> {
    if report.unreadable.is_empty() {
        return Ok(());
    }
    let found =
        chunks(engine, &mut report.unreadable).and_then(|()| blobs(engine, &report.unreadable));
    match found {
        Ok(blobs) => report.unreadable_blobs = blobs,
        // That the index is damaged was reported.
        Err(Error::Corrupt(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn of(kind: ObjectType, digest: [u8; 32]) -> ObjectName {
    ObjectName { kind, digest }
}

/// Adds chunks whose base is unreadable.
pub(super) fn chunks(engine: &Inner, unreadable: &mut HashSet<ObjectName>) -> Result<()> {
    if !unreadable.iter().any(|object| object.kind == ObjectType::Base) {
        return Ok(());
    }
    let mut start = None;
    loop {
        let (page, next) = engine.index.scan_objects(ObjectKind::Chunk, start.as_deref())?;
        for chunk in page {
            let Located::Patched(location) = chunk.located else { continue };
            // What is wrong with the patch itself was found where it lies.
            let Ok(bytes) = engine.packs.read(&location) else { continue };
            if let Ok(patches) = Patches::decode(&bytes)
                && unreadable.contains(&of(ObjectType::Base, patches.base))
            {
                unreadable.insert(of(ObjectType::Chunk, chunk.digest));
            }
        }
        if next.is_none() {
            return Ok(());
        }
        start = next;
    }
}

/// All blobs that cannot be read in whole, and why.
pub(super) fn blobs(engine: &Inner, unreadable: &HashSet<ObjectName>) -> Result<Blobs> {
    let mut blobs = Blobs::new();
    for object in unreadable {
        // A chunk is a blob as well.
        if matches!(object.kind, ObjectType::Chunk | ObjectType::Blob) {
            blobs.entry(BlobDigest::from_bytes(object.digest)).or_default().push(*object);
        }
    }
    let mut start = None;
    loop {
        let (page, next) = engine.index.scan_blobs(start.as_deref())?;
        for blob in page {
            let mut pieces = Vec::new();
            for entry in &blob.entries {
                if blob.lists {
                    pieces.push(of(ObjectType::ChunkList, entry.digest));
                    let chunks = list_entries(engine, &entry.digest);
                    pieces.extend(chunks.iter().map(|chunk| of(ObjectType::Chunk, chunk.digest)));
                } else {
                    pieces.push(of(ObjectType::Chunk, entry.digest));
                }
            }
            pieces.retain(|piece| unreadable.contains(piece));
            if !pieces.is_empty() {
                blobs.entry(BlobDigest::from_bytes(blob.digest)).or_default().extend(pieces);
            }
        }
        if next.is_none() {
            return Ok(blobs);
        }
        start = next;
    }
}

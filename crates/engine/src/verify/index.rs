//! Going through the index: what it says must have been found in the packs.

use granary_castore::{Chain, Error, ObjectName, Result, Severity};

use super::{
    Snapshot, blob_name, list_entries, object_name, of_index,
    packs::{FrameSeen, PackSeen},
    report::{Collector, Effect, VerifyFinding},
};
use crate::{
    engine::Inner,
    format::ObjectKind,
    index::{IndexedObject, Located, Location},
    object_key::ObjectKey,
};

/// Most objects in one finding.
const MAX_FINDING_OBJECTS: usize = 10_000;

/// Holds all entries of the index against what was seen in the packs.
pub(super) fn check(
    engine: &Inner,
    snapshot: &Snapshot,
    mut seen: Vec<PackSeen>,
    collector: &Collector,
) -> Result<()> {
    seen.sort_unstable_by_key(|pack| pack.handle);
    // What is still in memory has no order.
    engine.index.sync().map_err(Error::from)?;
    let mut doubts = Doubts { engine, collector, missing: Vec::new(), unrecorded: Vec::new() };
    let walked = objects(engine, |object| {
        match place(&mut seen, snapshot, object.location()) {
            Place::Recorded(frame) => frame.indexed = frame.indexed.wrapping_sub(1),
            Place::Later => {}
            Place::Nowhere(problem) => doubts.look(&object, problem),
        }
        Ok(())
    });
    if !told(walked, collector)? {
        return Ok(());
    }
    // A frame of which more is indexed than its records say, or has moved meanwhile.
    if seen.iter().any(|pack| pack.frames.iter().any(|frame| frame.indexed != 0)) {
        let walked = objects(engine, |object| {
            if let Place::Recorded(frame) = place(&mut seen, snapshot, object.location())
                && frame.indexed != 0
            {
                doubts.look(&object, "the index says that it lies where it does not");
            }
            Ok(())
        });
        if !told(walked, collector)? {
            return Ok(());
        }
    }
    doubts.report(&seen);
    told(blobs(engine, collector), collector).map(drop)
}

/// What the packs say of a place.
enum Place<'a> {
    /// There is such a frame, with room for it.
    Recorded(&'a mut FrameSeen),
    /// It came after the verification began.
    Later,
    Nowhere(&'static str),
}

fn place<'a>(seen: &'a mut [PackSeen], snapshot: &Snapshot, location: Location) -> Place<'a> {
    let Ok(position) = seen.binary_search_by_key(&location.pack, |pack| pack.handle) else {
        let newest = snapshot.packs.iter().map(|pack| pack.handle).max();
        return if newest.is_none_or(|newest| location.pack > newest) {
            Place::Later
        } else {
            Place::Nowhere("the index says that it lies in a pack that does not exist")
        };
    };
    let pack = &mut seen[position];
    if pack.end.is_some_and(|end| u64::from(location.frame_offset) >= end) {
        return Place::Later;
    }
    if pack.is_missing {
        return Place::Nowhere("its pack is missing");
    }
    let found = pack.frames.binary_search_by_key(&location.frame_offset, |frame| frame.offset);
    let Ok(found) = found else { return Place::Nowhere("no valid record tells of its place") };
    let frame = &mut pack.frames[found];
    let end = u64::from(location.offset) + u64::from(location.len);
    if frame.frame_len == location.frame_len && end <= u64::from(frame.raw_len) {
        Place::Recorded(frame)
    } else {
        Place::Nowhere("the index says that it lies where it does not")
    }
}

/// Objects that lie where no record tells of them.
struct Doubts<'a> {
    engine: &'a Inner,
    collector: &'a Collector,
    missing: Vec<(u32, ObjectName)>,
    unrecorded: Vec<(u32, ObjectName)>,
}

impl Doubts<'_> {
    /// Looks at an object again, by reading it.
    fn look(&mut self, object: &IndexedObject, problem: &'static str) {
        let Some(name) = object_name(object.kind, &object.digest) else { return };
        let location = object.location();
        match self.engine.try_object(object.kind, &object.digest) {
            // It was given up meanwhile.
            Ok(None) => {}
            Ok(Some(_)) => {
                let now = self.engine.index.located(object.kind, &object.digest);
                // Or it has moved.
                let is_there = now.is_ok_and(|now| now == Some(object.located));
                if is_there && problem != "the index says that it lies where it does not" {
                    self.unrecorded.push((location.pack, name));
                }
            }
            Err(_) if problem == "its pack is missing" => self.missing.push((location.pack, name)),
            Err(error) => self.collector.add(VerifyFinding {
                severity: Severity::Error,
                pack: self.engine.packs.known_id(location.pack),
                offset: location.frame_offset.into(),
                problem: format!("{problem}: {}", Chain(&error)),
                effect: Effect::Unreadable,
                objects: vec![name],
            }),
        }
    }

    /// Reports for each pack what it concerns.
    fn report(mut self, seen: &[PackSeen]) {
        for (objects, effect, problem) in [
            (std::mem::take(&mut self.missing), Effect::Unreadable, "this lay in the missing pack"),
            (
                std::mem::take(&mut self.unrecorded),
                Effect::Unrecorded,
                "no valid record tells of this: it will be lost with the index",
            ),
        ] {
            for pack in seen {
                let of_pack = objects.iter().filter(|(handle, _)| *handle == pack.handle);
                let objects: Vec<_> = of_pack.map(|(_, name)| *name).collect();
                for objects in objects.chunks(MAX_FINDING_OBJECTS) {
                    self.collector.add(VerifyFinding {
                        severity: Severity::Error,
                        pack: Some(pack.id),
                        offset: 0,
                        problem: problem.to_owned(),
                        effect,
                        objects: objects.to_vec(),
                    });
                }
            }
        }
    }
}

/// Goes through all objects in the index.
fn objects(engine: &Inner, mut on_object: impl FnMut(IndexedObject) -> Result<()>) -> Result<()> {
    for kind in [ObjectKind::Chunk, ObjectKind::Base, ObjectKind::Directory, ObjectKind::ChunkList]
    {
        let mut start = None;
        loop {
            let (page, next) = engine.index.scan_objects(kind, start.as_deref())?;
            page.into_iter().try_for_each(&mut on_object)?;
            if next.is_none() {
                break;
            }
            start = next;
        }
    }
    Ok(())
}

/// Checks that the pieces of all blobs are there.
fn blobs(engine: &Inner, collector: &Collector) -> Result<()> {
    let mut start = None;
    loop {
        let (page, next) = engine.index.scan_blobs(start.as_deref())?;
        for blob in page {
            let kind = if blob.lists { ObjectKind::ChunkList } else { ObjectKind::Chunk };
            let mut problem = None;
            for entry in &blob.entries {
                if !engine.index.contains(kind, &entry.digest)? {
                    problem = Some("a piece of the blob is missing");
                } else if blob.lists {
                    for entry in list_entries(engine, &entry.digest) {
                        if !engine.index.contains(ObjectKind::Chunk, &entry.digest)? {
                            problem = Some("a chunk of the blob is missing");
                        }
                    }
                }
            }
            // It may have been given up meanwhile.
            if let Some(problem) = problem
                && engine.index.pack_of(&ObjectKey::Blob(blob.digest))?.is_some()
            {
                collector.add(VerifyFinding {
                    severity: Severity::Error,
                    pack: None,
                    offset: 0,
                    problem: problem.to_owned(),
                    effect: Effect::Unreadable,
                    objects: vec![blob_name(&blob.digest)],
                });
            }
        }
        if next.is_none() {
            return Ok(());
        }
        start = next;
    }
}

/// Whether it could be gone through; that it is damaged is a finding.
fn told(walked: Result<()>, collector: &Collector) -> Result<bool> {
    match walked {
        Ok(()) => Ok(true),
        Err(error @ Error::Corrupt(_)) => {
            collector.add(of_index(&error));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

impl IndexedObject {
    fn location(&self) -> Location {
        match self.located {
            Located::Frame(location) | Located::Patched(location) => location,
        }
    }
}

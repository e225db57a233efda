//! Checking one frame.

use bytes::Bytes;
use granary_castore::{Chain, Directory, Error, ObjectName, Result, Severity};

use super::{
    object_name,
    report::{Collector, Effect, VerifyFinding},
};
use crate::{
    engine::Inner,
    format::{BlobEntry, Object, ObjectKind, PackedFrame, Patches},
    index::Located,
    object_key::ObjectKey,
    packs::PackId,
};

/// An object that a record says lies in a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameObject {
    pub(super) object: Object,
    /// Whether the index says that this is where it is read from.
    pub(super) is_live: bool,
}

/// A frame to be checked.
#[derive(Debug)]
pub(super) struct FrameJob {
    pub(super) handle: u32,
    pub(super) pack: PackId,
    pub(super) offset: u64,
    pub(super) objects: Vec<FrameObject>,
    /// Whether all objects are held against their digests, or only what refers to others is
    /// looked at.
    pub(super) with_data: bool,
    /// What was read at its place.
    pub(super) stored: Result<Vec<u8>>,
}

impl FrameJob {
    pub(super) fn run(mut self, engine: &Inner, collector: &Collector) {
        let stored = std::mem::replace(&mut self.stored, Ok(Vec::new()));
        let (frame, raw) = match stored.and_then(unpack) {
            Ok(unpacked) => unpacked,
            Err(error) => {
                let all: Vec<_> = self.objects.iter().collect();
                self.report(engine, collector, &Chain(&error).to_string(), &all);
                return;
            }
        };
        if self.with_data {
            collector.lock().checked_bytes += frame.stored_len();
        }
        let len_in_raw = |of_frame: &FrameObject| {
            usize::from(of_frame.object.literals_len) + of_frame.object.len as usize
        };
        if self.objects.iter().map(len_in_raw).sum::<usize>() != raw.len() {
            let all: Vec<_> = self.objects.iter().collect();
            self.report(
                engine,
                collector,
                "the frame has another length than what lies in it",
                &all,
            );
            return;
        }
        let mut offset = 0;
        for of_frame in &self.objects {
            let object = &of_frame.object;
            let at = offset + usize::from(object.literals_len);
            offset = at + object.len as usize;
            let bytes = raw.slice(at..offset);
            if let Err(problem) = self.check(engine, object, &bytes) {
                self.report(engine, collector, &Chain(&problem).to_string(), &[of_frame]);
            }
        }
        let objects: Vec<_> = self.objects.iter().map(|of_frame| of_frame.object).collect();
        if self.with_data && !frame.is_tagged(&raw, &objects) {
            let problem = "the tag of the frame is not that of what lies in it";
            collector.add(self.finding(Severity::Warning, problem, Effect::None, Vec::new()));
        }
    }

    /// Checks the bytes of one object.
    fn check(&self, engine: &Inner, object: &Object, bytes: &Bytes) -> Result<()> {
        match object.kind {
            ObjectKind::Duplicate => return Ok(()),
            ObjectKind::Patch => return check_patch(engine, object, bytes, self.with_data),
            ObjectKind::ChunkList => check_list(engine, bytes)?,
            ObjectKind::Directory if self.with_data => {
                Directory::decode(bytes)
                    .map_err(|problem| Error::corrupt("it is malformed").because(problem))?;
            }
            ObjectKind::Directory | ObjectKind::Chunk | ObjectKind::Base => {}
        }
        if self.with_data && blake3::hash(bytes) != object.digest {
            return Err(Error::corrupt("its bytes have another digest"));
        }
        Ok(())
    }

    /// Reports what cannot be read of `harmed`. If nobody would read it here, it is no damage:
    /// it was stored anew elsewhere, or given up.
    fn report(
        &self,
        engine: &Inner,
        collector: &Collector,
        problem: &str,
        harmed: &[&FrameObject],
    ) {
        // It may have moved since, or been given up.
        let is_live = |of_frame: &&&FrameObject| {
            let key = ObjectKey::of(&of_frame.object);
            of_frame.is_live
                && engine.index.pack_of(&key).is_ok_and(|pack| pack == Some(self.handle))
        };
        let live = harmed.iter().filter(is_live);
        let names: Vec<ObjectName> = live
            .filter_map(|FrameObject { object, .. }| object_name(object.kind, &object.digest))
            .collect();
        let finding = if names.is_empty() {
            let problem = format!("{problem}; nothing is read from here any more");
            self.finding(Severity::Info, &problem, Effect::None, names)
        } else {
            self.finding(Severity::Error, problem, Effect::Unreadable, names)
        };
        collector.add(finding);
    }

    fn finding(
        &self,
        severity: Severity,
        problem: &str,
        effect: Effect,
        objects: Vec<ObjectName>,
    ) -> VerifyFinding {
        let (pack, offset, problem) = (Some(self.pack), self.offset, problem.to_owned());
        VerifyFinding { severity, pack, offset, problem, effect, objects }
    }
}

fn unpack(stored: Vec<u8>) -> Result<(PackedFrame, Bytes)> {
    let damaged = |problem| Error::corrupt("the frame is damaged").because(problem);
    let frame = PackedFrame::check(stored.into()).map_err(damaged)?;
    let raw = frame.unpack().map_err(damaged)?;
    Ok((frame, raw))
}

/// Checks that the base is there, and that the chunk comes out.
fn check_patch(engine: &Inner, object: &Object, bytes: &Bytes, with_data: bool) -> Result<()> {
    let patches = Patches::decode(bytes)
        .map_err(|problem| Error::corrupt("its patches are malformed").because(problem))?;
    let mut chunk = loop {
        let removals = engine.packs.removals();
        let located = engine.index.located(ObjectKind::Base, &patches.base)?;
        let Some(Located::Frame(base)) = located else {
            return Err(Error::corrupt("what it is based on is missing"));
        };
        if !with_data {
            return Ok(());
        }
        match engine.packs.read(&base) {
            Ok(base) => break base.to_vec(),
            // It may have been moved between the look-up and the reading.
            Err(_) if engine.packs.removals() != removals => {}
            Err(error) => return Err(error.while_doing("reading what it is based on")),
        }
    };
    patches
        .apply(&mut chunk)
        .map_err(|problem| Error::corrupt("its patches do not fit").because(problem))?;
    if blake3::hash(&chunk) == object.digest {
        Ok(())
    } else {
        Err(Error::corrupt("with its base it gives another digest"))
    }
}

/// Checks that the chunks of a list are there.
fn check_list(engine: &Inner, bytes: &[u8]) -> Result<()> {
    let entries = BlobEntry::decode_all(bytes)
        .map_err(|problem| Error::corrupt("the list is malformed").because(problem))?;
    for entry in entries {
        if !engine.index.contains(ObjectKind::Chunk, &entry.digest)? {
            return Err(Error::corrupt("a chunk of the list is missing"));
        }
    }
    Ok(())
}

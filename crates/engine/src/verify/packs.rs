//! Going through the packs.

use std::{
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use granary_castore::{Chain, Error, Result, Severity};

use super::{
    PackSnapshot, VerifyObserver, VerifyOptions,
    frame::{FrameJob, FrameObject},
    object_name, observe,
    report::{Collector, Effect, VerifyFinding},
};
use crate::{
    dead::{DeadList, Unusable},
    disk::DiskFile,
    engine::Inner,
    format::{
        BlobRecord, FRAME_HEADER_BYTES, FrameObjects, MAX_FRAME_RAW_BYTES, ObjectKind,
        PACK_HEADER_BYTES, PackHeader, Record, SEGMENT_HEADER_BYTES, SegmentHeader, ValueRecord,
    },
    gc::lease::LEASE_KIND,
    index::{IndexError, Located, Location},
    object_key::ObjectKey,
    open::{Progress, Scanner},
    packs::PackId,
};

/// Frames that wait to be checked, for each thread that checks.
const QUEUED_FRAMES_PER_THREAD: usize = 2;

/// What was found of one pack.
#[derive(Debug)]
pub(super) struct PackSeen {
    pub(super) handle: u32,
    pub(super) id: PackId,
    /// What lies behind came later.
    pub(super) end: Option<u64>,
    pub(super) is_missing: bool,
    /// In the order of their offsets.
    pub(super) frames: Vec<FrameSeen>,
}

/// A frame that a valid record tells of.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameSeen {
    pub(super) offset: u32,
    pub(super) frame_len: u32,
    pub(super) raw_len: u32,
    /// How many of its objects the index knows to lie here.
    pub(super) indexed: u32,
}

/// Goes through packs, one behind the other.
pub(super) struct PackWalk<'a> {
    engine: &'a Inner,
    options: VerifyOptions,
    collector: &'a Collector,
    observer: &'a dyn VerifyObserver,
    dead: Dead,
    seen: Vec<PackSeen>,
    progress: Progress,
    /// The index did not answer, which was reported.
    index_is_broken: bool,
}

/// The list of dead objects, as it was read last.
#[derive(Default)]
struct Dead {
    /// `None` if it was not read yet.
    generation: Option<u64>,
    list: DeadList,
    is_unusable: bool,
}

impl Dead {
    fn is_listed(&self, pack: PackId, key: &ObjectKey) -> bool {
        self.list.packs.get(&pack).is_some_and(|keys| keys.contains(key))
    }
}

/// A pack that is being gone through.
struct OpenPack<'a> {
    handle: u32,
    id: PackId,
    file: &'a dyn DiskFile,
    jobs: &'a SyncSender<FrameJob>,
    frames: Vec<FrameSeen>,
}

impl<'a> PackWalk<'a> {
    pub(super) fn new(
        engine: &'a Inner,
        options: VerifyOptions,
        collector: &'a Collector,
        observer: &'a dyn VerifyObserver,
    ) -> Self {
        Self {
            engine,
            options,
            collector,
            observer,
            dead: Dead::default(),
            seen: Vec::new(),
            progress: Progress { done_bytes: 0, total_bytes: 0 },
            index_is_broken: false,
        }
    }

    pub(super) fn into_seen(self) -> Vec<PackSeen> {
        self.seen
    }

    pub(super) fn run(&mut self, packs: &[PackSnapshot]) -> Result<()> {
        for pack in packs {
            self.progress.total_bytes += self.len(pack);
        }
        let threads = self.options.threads.get();
        let (jobs, queue) = sync_channel(QUEUED_FRAMES_PER_THREAD * threads);
        let queue = Mutex::new(queue);
        let (engine, collector) = (self.engine, self.collector);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| work(&queue, engine, collector));
            }
            // It ends with the last job, or the threads would wait for more.
            let jobs = jobs;
            packs.iter().try_for_each(|pack| self.pack(*pack, &jobs))
        })
    }

    fn len(&self, pack: &PackSnapshot) -> u64 {
        let file = self.engine.disk.open(&pack.id.file_name());
        let len = file.ok().flatten().and_then(|file| file.len().ok()).unwrap_or_default();
        pack.end.map_or(len, |end| end.min(len))
    }

    fn pack(&mut self, pack: PackSnapshot, jobs: &SyncSender<FrameJob>) -> Result<()> {
        let PackSnapshot { handle, id, end, .. } = pack;
        let opened = self.engine.disk.open(&id.file_name());
        let Some(file) = opened? else {
            if self.engine.packs.is_known(handle) {
                self.error(id, 0, "the pack is missing");
            }
            let seen = PackSeen { handle, id, end, is_missing: true, frames: Vec::new() };
            self.seen.push(seen);
            return Ok(());
        };
        let mut open = OpenPack { handle, id, file: &*file, jobs, frames: Vec::new() };
        match self.segments(&mut open, pack) {
            // The observer, or the index.
            Err(error @ Error::Unavailable(_)) if !is_of_disk(&error) => return Err(error),
            Err(error) => self.error(id, 0, &format!("it cannot be read: {}", Chain(&error))),
            Ok(()) => self.collector.lock().pack_count += 1,
        }
        let mut frames = open.frames;
        frames.sort_unstable_by_key(|frame| frame.offset);
        frames.shrink_to_fit();
        self.seen.push(PackSeen { handle, id, end, is_missing: false, frames });
        Ok(())
    }

    fn segments(&mut self, open: &mut OpenPack<'_>, pack: PackSnapshot) -> Result<()> {
        let header = open.file.read_at(0, PACK_HEADER_BYTES)?;
        match PackHeader::decode(&header) {
            Ok(header)
                if header.store_id == self.engine.store_id && header.pack_id == open.id.0 => {}
            Ok(_) => self.error(open.id, 0, "its header is that of another pack"),
            Err(problem) => self.error(open.id, 0, &format!("its header: {problem}")),
        }
        let scanner =
            Scanner::up_to(open.file, self.engine.store_id, pack.end.unwrap_or(u64::MAX))?;
        if pack.end.is_some_and(|end| scanner.limit() < end) {
            self.error(open.id, scanner.limit(), "the pack is cut off");
        }
        if pack.end.is_none() && pack.is_sealed && scanner.footer_offsets().is_none() {
            let problem = "the pack has no valid footer, which only slows rebuilding the index";
            self.find(Severity::Warning, open.id, scanner.limit(), problem);
        }
        let mut offset = PACK_HEADER_BYTES as u64;
        while offset < scanner.limit() {
            let begin = offset;
            match scanner.records(offset)? {
                Ok((header, records)) => {
                    self.segment(open, offset, &header, records)?;
                    offset += header.segment_len();
                }
                Err(problem) => {
                    self.error(open.id, offset, &problem.to_string());
                    offset = next_segment(&scanner, offset)?;
                }
            }
            if !self.options.data {
                self.went_through(offset - begin)?;
            }
        }
        Ok(())
    }

    fn segment(
        &mut self,
        open: &mut OpenPack<'_>,
        offset: u64,
        header: &SegmentHeader,
        records: Vec<Record>,
    ) -> Result<()> {
        let frames_at = offset + SEGMENT_HEADER_BYTES as u64;
        let mut frames = Vec::new();
        {
            let mut report = self.collector.lock();
            report.segment_count += 1;
            report.checked_bytes += SEGMENT_HEADER_BYTES as u64 + u64::from(header.records_len);
        }
        for record in records {
            match record {
                Record::Frame(frame) => frames.push(frame),
                Record::Blob(blob) => self.blob(open, offset, &blob)?,
                Record::Value(value) => self.value(open, offset, &value)?,
            }
        }
        frames.sort_unstable_by_key(|frame| frame.offset);
        let mut end = 0_u64;
        for frame in frames {
            if u64::from(frame.offset) != end {
                let problem = "no record tells what lies here in the segment";
                self.error(open.id, frames_at + end, problem);
            }
            end = u64::from(frame.offset) + u64::from(frame.frame_len);
            self.frame(open, frames_at + u64::from(frame.offset), frame)?;
        }
        if end != u64::from(header.frames_len) {
            self.error(open.id, frames_at + end, "no record tells what lies here in the segment");
        }
        if self.options.data {
            self.went_through(u64::from(header.records_len) + SEGMENT_HEADER_BYTES as u64)?;
        }
        Ok(())
    }

    /// Holds the objects of a frame against the index, and has the frame checked if that is
    /// wanted.
    fn frame(&mut self, open: &mut OpenPack<'_>, offset: u64, frame: FrameObjects) -> Result<()> {
        let Ok(frame_offset) = u32::try_from(offset) else {
            self.error(open.id, offset, "the pack is larger than packs may be");
            return Ok(());
        };
        let frame_len = frame.frame_len;
        let (mut raw_len, mut indexed, mut unindexed) = (0_u32, 0, Vec::new());
        let mut objects = Vec::with_capacity(frame.objects.len());
        for object in frame.objects {
            // Their sum was held against the limit of frames when the record was read.
            let at = raw_len + u32::from(object.literals_len);
            raw_len = at + object.len;
            let mut is_live = false;
            if object.kind != ObjectKind::Duplicate {
                let location = Location {
                    pack: open.handle,
                    frame_offset,
                    frame_len,
                    offset: at,
                    len: object.len,
                };
                let located = self.engine.index.located(object.kind, &object.digest);
                match self.answered(located)? {
                    Some(Some(Located::Frame(found) | Located::Patched(found))) => {
                        is_live = found == location;
                    }
                    Some(None) if !self.is_given_up(open, &ObjectKey::of(&object))? => {
                        unindexed.extend(object_name(object.kind, &object.digest));
                    }
                    Some(None) | None => {}
                }
            }
            indexed += u32::from(is_live);
            objects.push(FrameObject { object, is_live });
        }
        self.collector.lock().object_count += objects.len() as u64;
        if !unindexed.is_empty() {
            self.collector.add(VerifyFinding {
                severity: Severity::Error,
                pack: Some(open.id),
                offset,
                problem: "the index does not know of what lies here".to_owned(),
                effect: Effect::Unindexed,
                objects: unindexed,
            });
        }
        open.frames.push(FrameSeen { offset: frame_offset, frame_len, raw_len, indexed });
        self.read_frame(open, offset, frame_len, objects)
    }

    fn read_frame(
        &mut self,
        open: &OpenPack<'_>,
        offset: u64,
        frame_len: u32,
        objects: Vec<FrameObject>,
    ) -> Result<()> {
        // What refers to other objects is looked at in any case.
        let refers = |object: &FrameObject| {
            matches!(object.object.kind, ObjectKind::Patch | ObjectKind::ChunkList)
        };
        if !self.options.data && !objects.iter().any(refers) {
            return Ok(());
        }
        let job = FrameJob {
            handle: open.handle,
            pack: open.id,
            offset,
            objects,
            with_data: self.options.data,
            stored: if frame_len as usize <= MAX_FRAME_RAW_BYTES + FRAME_HEADER_BYTES {
                open.file.read_at(offset, frame_len as usize).map_err(Error::from)
            } else {
                Err(Error::corrupt("the frame is larger than frames may be"))
            },
        };
        open.jobs
            .send(job)
            .map_err(|_| Error::unavailable("a thread of the verification ended"))?;
        if self.options.data {
            self.went_through(frame_len.into())?;
        }
        Ok(())
    }

    fn blob(&mut self, open: &OpenPack<'_>, offset: u64, blob: &BlobRecord) -> Result<()> {
        self.collector.lock().record_count += 1;
        let found = self.engine.index.blob(&blob.digest);
        let problem = match self.answered(found)? {
            Some(Some(found)) if found != *blob => "the index has other pieces of a blob",
            Some(None) if !self.is_given_up(open, &ObjectKey::Blob(blob.digest))? => {
                "the index does not know of a blob"
            }
            _ => return Ok(()),
        };
        self.collector.add(VerifyFinding {
            severity: Severity::Error,
            pack: Some(open.id),
            offset,
            problem: problem.to_owned(),
            effect: Effect::Unindexed,
            objects: vec![super::blob_name(&blob.digest)],
        });
        Ok(())
    }

    fn value(&mut self, open: &OpenPack<'_>, offset: u64, value: &ValueRecord) -> Result<()> {
        self.collector.lock().record_count += 1;
        let found = self.engine.index.value(value.kind, &value.key);
        let pack = open.id;
        match self.answered(found)? {
            // A tombstone goes when there is nothing left that it keeps away.
            Some(None)
                if value.value.is_some()
                    // One that is over is forgotten before the pack is.
                    && value.kind != LEASE_KIND.0
                    && self.engine.packs.is_known(open.handle) =>
            {
                self.error(pack, offset, "the index does not know of a record");
            }
            Some(Some((place, _))) if place < value.place => {
                self.error(pack, offset, "the index has an older value of a record");
            }
            Some(Some((place, found))) if place == value.place && found != value.value => {
                self.error(pack, offset, "the index has another value of a record");
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether what the index does not know was given up, and is garbage or was damaged.
    fn is_given_up(&mut self, open: &OpenPack<'_>, key: &ObjectKey) -> Result<bool> {
        // With the pack, everything in it was given up or moved.
        if !self.engine.packs.is_known(open.handle) || self.dead.is_listed(open.id, key) {
            return Ok(true);
        }
        let newest = *self.engine.lock_dead_generation();
        if self.dead.generation == Some(newest) {
            return Ok(self.dead.is_unusable);
        }
        // What the index knows no more was listed before it was removed.
        self.dead.generation = Some(newest);
        match DeadList::read(&*self.engine.disk, self.engine.store_id) {
            Ok(list) => self.dead.list = list,
            Err(Unusable::Unread(error)) => return Err(error),
            Err(Unusable::Damaged(problem)) => {
                if !std::mem::replace(&mut self.dead.is_unusable, true) {
                    self.collector.add(VerifyFinding {
                        severity: Severity::Error,
                        pack: None,
                        offset: 0,
                        problem: format!("the list of dead objects is damaged: {problem}"),
                        effect: Effect::None,
                        objects: Vec::new(),
                    });
                }
            }
        }
        Ok(self.dead.is_unusable || self.dead.is_listed(open.id, key))
    }

    /// What the index answered; `None` if it is damaged, which is reported once.
    fn answered<T>(&mut self, answer: Result<T, IndexError>) -> Result<Option<T>> {
        match answer.map_err(Error::from) {
            Ok(answer) => Ok(Some(answer)),
            Err(error @ Error::Corrupt(_)) => {
                if !std::mem::replace(&mut self.index_is_broken, true) {
                    self.collector.add(super::of_index(&error));
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn went_through(&mut self, bytes: u64) -> Result<()> {
        self.progress.done_bytes = self.progress.done_bytes.saturating_add(bytes);
        observe(self.observer, self.progress)
    }

    fn error(&self, pack: PackId, offset: u64, problem: &str) {
        self.find(Severity::Error, pack, offset, problem);
    }

    fn find(&self, severity: Severity, pack: PackId, offset: u64, problem: &str) {
        self.collector.add(VerifyFinding {
            severity,
            pack: Some(pack),
            offset,
            problem: problem.to_owned(),
            effect: Effect::None,
            objects: Vec::new(),
        });
    }
}

/// Whether it was the disk that failed.
fn is_of_disk(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// Where to go on behind what is no segment: by the footer if there is one.
pub(super) fn next_segment(scanner: &Scanner<'_>, offset: u64) -> Result<u64> {
    if let Some(offsets) = scanner.footer_offsets()
        && let Some(next) = offsets.iter().find(|next| **next > offset)
    {
        return Ok(*next);
    }
    Ok(scanner.find_records(offset + 1)?.unwrap_or(scanner.limit()))
}

/// What each thread does.
fn work(queue: &Mutex<Receiver<FrameJob>>, engine: &Inner, collector: &Collector) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        job.run(engine, collector);
    }
}

//! The thread itself.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread::JoinHandle,
};

use granary_castore::{Error, RecordWrite, Result};

use super::{
    pending::Pending,
    request::{LooseObject, Part, Request},
    tail::Tail,
};
use crate::{
    compression::{Compression, Compressor},
    disk::Disk,
    format::{
        BlobRecord, MAX_FRAME_RAW_BYTES, Object, ObjectKind, Place, SegmentBuilder, StoredFrame,
        ValueRecord,
    },
    gc::Guard,
    index::{Index, Novelty, PackEntry, State, Totals, Update, Watermark},
    object_key::ObjectKey,
    packs::Packs,
};

/// Requests that may wait in the queue. Each carries at most a frame.
const QUEUE_REQUESTS: usize = 16;

/// Bytes of frames and records at which a segment is closed although nobody waits for it.
const SEGMENT_BYTES: usize = 8 << 20;

/// Records and objects at which a segment is closed although nobody waits for it: they are
/// kept until it is synced, and then go into the index together.
const SEGMENT_ENTRIES: usize = 20_000;

/// What opening found, for the log to go on from.
pub(crate) struct LogStart {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) index: Arc<Index>,
    pub(crate) packs: Arc<Packs>,
    pub(crate) guard: Arc<Guard>,
    /// Generation of the newest list of dead objects.
    pub(crate) dead_generation: u64,
    /// The pack to go on with, if there is one.
    pub(crate) tail: Option<Tail>,
    pub(crate) next_handle: u32,
    /// The state that the index has now.
    pub(crate) state: State,
    pub(crate) epoch: u32,
    pub(crate) writer: u64,
    pub(crate) compression: Compression,
    /// Raw bytes at which a frame of small objects is closed.
    pub(crate) group_bytes: usize,
    /// Length at which a pack is sealed.
    pub(crate) pack_bytes: u64,
}

/// The log of an open store. Dropping it ends the thread after what was sent is durable.
#[derive(Debug)]
pub(crate) struct Log {
    sender: SyncSender<Request>,
    shared: Arc<Shared>,
    thread: Mutex<Thread>,
}

#[derive(Debug)]
enum Thread {
    Running(JoinHandle<()>),
    /// How its end went, for whoever closes again.
    Ended(Result<()>),
}

#[derive(Debug, Default)]
struct Shared {
    pending: Pending,
    /// How many segments were lost to failed writes.
    losses: AtomicU64,
    /// Why the last one was.
    last_loss: Mutex<Option<Error>>,
}

impl Shared {
    /// An error with its reason, if a segment was lost since the count was `losses`.
    fn check_losses(&self, losses: u64) -> Result<()> {
        if self.losses.load(Ordering::Acquire) == losses {
            return Ok(());
        }
        let error = Error::unavailable("a write failed and took a part of this batch with it");
        let reason = self.last_loss.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Err(match reason {
            Some(reason) => error.because(reason),
            None => error,
        })
    }
}

impl Log {
    /// Starts the thread.
    pub(crate) fn start(start: LogStart) -> Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE_REQUESTS);
        let shared = Arc::<Shared>::default();
        let mut thread = Appender::new(start, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new()
            .name("granary-log".to_owned())
            .spawn(move || thread.run(&receiver))
            .map_err(|cause| Error::unavailable("cannot start a thread").because(cause))?;
        Ok(Self { sender, shared, thread: Mutex::new(Thread::Running(thread)) })
    }

    pub(crate) fn pending(&self) -> &Pending {
        &self.shared.pending
    }

    /// To be noted when a batch starts, and given when it commits.
    pub(crate) fn losses(&self) -> u64 {
        self.shared.losses.load(Ordering::Acquire)
    }

    /// Fails if a segment was lost since the count was `losses`: then a batch that began at
    /// that count can only fail, and need not go on.
    pub(crate) fn check_losses(&self, losses: u64) -> Result<()> {
        self.shared.check_losses(losses)
    }

    /// Sends a request that has no answer. Waits while the queue is full.
    pub(crate) fn send(&self, request: Request) -> Result<()> {
        self.sender.send(request).map_err(|_| closed())
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask<T>(
        &self,
        request: impl FnOnce(SyncSender<Result<T>>) -> Request,
    ) -> Result<T> {
        let (answer, answered) = sync_channel(1);
        self.send(request(answer))?;
        answered.recv().map_err(|_| closed())?
    }

    /// Makes what was sent durable and ends the thread. Later requests fail.
    pub(crate) fn close(&self) -> Result<()> {
        // Held until the thread has ended: nobody hears that it has before it has.
        let mut state = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Thread::Ended(result) = &*state {
            return result.clone();
        }
        let result = self.ask(|answer| Request::Close { answer });
        let ended = std::mem::replace(&mut *state, Thread::Ended(result.clone()));
        if let Thread::Running(thread) = ended
            && thread.join().is_err()
        {
            let result = Err(Error::unavailable("the log thread panicked"));
            *state = Thread::Ended(result.clone());
            return result;
        }
        result
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store did not close cleanly");
        }
    }
}

fn closed() -> Error {
    Error::unavailable("the store is closed")
}

/// State of the thread.
pub(super) struct Appender {
    disk: Arc<dyn Disk>,
    pub(super) index: Arc<Index>,
    packs: Arc<Packs>,
    guard: Arc<Guard>,
    shared: Arc<Shared>,
    pub(super) tail: Option<Tail>,
    pub(super) next_handle: u32,
    /// The state that the index has once `update` is applied.
    pub(super) state: State,
    epoch: u32,
    writer: u64,
    pack_bytes: u64,
    group_bytes: usize,
    compressor: Compressor,

    pub(super) segment: SegmentBuilder,
    /// What the index has of objects in `segment` already, which it no longer has once that is
    /// applied.
    pub(super) replaced: Totals,
    loose: Vec<LooseObject>,
    loose_bytes: usize,
    /// What is in `segment` and `loose`.
    segment_keys: Vec<ObjectKey>,

    /// Written but not synced.
    pub(super) update: Update,
    is_unsynced: bool,
    unsynced_keys: Vec<ObjectKey>,

    waiting: Vec<(u64, SyncSender<Result<()>>)>,
    /// Set by a failed sync.
    poison: Option<Error>,
}

impl Appender {
    fn new(start: LogStart, shared: Arc<Shared>) -> Result<Self> {
        Ok(Self {
            disk: start.disk,
            index: start.index,
            packs: start.packs,
            guard: start.guard,
            shared,
            tail: start.tail,
            next_handle: start.next_handle,
            state: start.state,
            epoch: start.epoch,
            writer: start.writer,
            pack_bytes: start.pack_bytes,
            group_bytes: start.group_bytes,
            compressor: Compressor::new(start.compression)?,
            segment: SegmentBuilder::default(),
            replaced: Totals::default(),
            loose: Vec::new(),
            loose_bytes: 0,
            segment_keys: Vec::new(),
            update: Update::default(),
            is_unsynced: false,
            unsynced_keys: Vec::new(),
            waiting: Vec::new(),
            poison: None,
        })
    }

    fn run(&mut self, requests: &Receiver<Request>) {
        loop {
            let request = if self.waiting.is_empty() {
                // Everybody who could send is gone.
                let Ok(request) = requests.recv() else { return self.commit() };
                request
            } else {
                // One sync for all who wait: take what is there first.
                match requests.try_recv() {
                    Ok(request) => request,
                    Err(TryRecvError::Empty) => {
                        self.commit();
                        continue;
                    }
                    Err(TryRecvError::Disconnected) => return self.commit(),
                }
            };
            if let Request::Close { answer } = request {
                self.waiting.push((self.shared.losses.load(Ordering::Acquire), answer));
                return self.commit();
            }
            self.take(request);
            if self.segment.len() + self.loose_bytes >= SEGMENT_BYTES
                || self.segment.record_count() + self.segment_keys.len() >= SEGMENT_ENTRIES
            {
                // IMPORTANT: each segment is synced before the next is written. Were two
                // unsynced, a crash could keep the second and tear the first, and opening
                // could not tell that from damage.
                self.commit();
            }
        }
    }

    fn take(&mut self, request: Request) {
        if let Some(poison) = &self.poison {
            return refuse(request, poison);
        }
        match request {
            Request::Append { losses, part } => {
                // IMPORTANT: a blob whose chunk was lost must not become visible, even
                // though its batch will fail: the next batch would take it for stored.
                if losses == self.shared.losses.load(Ordering::Acquire) {
                    self.take_part(part);
                }
            }
            Request::Values { writes, answer } => {
                self.take_values(writes);
                self.waiting.push((self.shared.losses.load(Ordering::Acquire), answer));
            }
            Request::Commit { losses, answer } => self.waiting.push((losses, answer)),
            Request::Maintain(maintenance) => self.maintain(maintenance),
            Request::Barrier { answer } | Request::Close { answer } => reply(&answer, Ok(())),
        }
    }

    fn take_part(&mut self, part: Part) {
        match part {
            Part::Frame { frame, objects } => self.take_frame(frame, objects),
            Part::Loose(objects) => {
                for object in objects {
                    self.take_loose(object);
                }
            }
            Part::Blob(blob) => self.take_blob(blob),
            Part::Values(writes) => self.take_values(writes),
        }
    }

    /// Whether an object must be written: nobody else has brought it meanwhile, and it is not
    /// condemned where it lies.
    fn is_new(&mut self, key: ObjectKey) -> bool {
        // If the index does not answer, writing the object again is right, if wasteful.
        let pack = self.index.pack_of(&key).unwrap_or(None);
        if pack.is_some_and(|pack| !self.guard.lock().is_condemned(&key, pack))
            || !self.shared.pending.insert(key)
        {
            return false;
        }
        if pack.is_some() {
            self.note_replaced(&key);
        }
        self.segment_keys.push(key);
        true
    }

    /// Notes that the segment brings an object anew, which the index has elsewhere.
    pub(super) fn note_replaced(&mut self, key: &ObjectKey) {
        // The sums are for people. If the index does not answer, they are a little too large.
        if let Ok(Some(totals)) = self.index.totals_of(key) {
            self.replaced.add_all(&totals);
        }
    }

    fn take_frame(&mut self, frame: StoredFrame, mut objects: Vec<Object>) {
        // Between the look-up of whoever made the frame and now, another may have brought
        // the same. A frame is kept if anything in it is new.
        for object in &mut objects {
            if !self.is_new(ObjectKey::of(object)) {
                object.kind = ObjectKind::Duplicate;
            }
        }
        if objects.iter().any(|object| object.kind != ObjectKind::Duplicate) {
            self.segment.push_frame(frame, objects);
        }
    }

    fn take_loose(&mut self, loose: LooseObject) {
        if !self.is_new(ObjectKey::of(&loose.object)) {
            return;
        }
        if self.loose_bytes + loose.bytes.len() > MAX_FRAME_RAW_BYTES {
            self.close_frame();
        }
        self.loose_bytes += loose.bytes.len();
        self.loose.push(loose);
        if self.loose_bytes >= self.group_bytes {
            self.close_frame();
        }
    }

    fn take_blob(&mut self, blob: BlobRecord) {
        if self.is_new(ObjectKey::Blob(blob.digest)) {
            self.segment.push_blob(blob);
        }
    }

    fn take_values(&mut self, writes: Vec<RecordWrite>) {
        let place = self.next_place();
        for RecordWrite { kind, key, value } in writes {
            let key = key.to_vec();
            let value = value.map(|value| value.to_vec());
            self.segment.set_value(ValueRecord { place, kind: kind.0, key, value });
        }
    }

    /// The place of the segment being put together.
    fn next_place(&self) -> Place {
        // Opening made sure that there are numbers left.
        let sequence = self.state.watermark.stamp.sequence.saturating_add(1);
        Place { epoch: self.epoch, writer: self.writer, sequence }
    }

    fn close_frame(&mut self) {
        if self.loose.is_empty() {
            return;
        }
        let mut raw = Vec::with_capacity(self.loose_bytes);
        let mut objects = Vec::with_capacity(self.loose.len());
        for loose in self.loose.drain(..) {
            raw.extend_from_slice(&loose.bytes);
            objects.push(loose.object);
        }
        self.loose_bytes = 0;
        let frame = StoredFrame::compress(&raw, &objects, &mut self.compressor);
        self.segment.push_frame(frame, objects);
    }

    /// Closes the segment and appends it to the pack. On failure the segment is lost, and
    /// whoever may have relied on it learns of it when it commits.
    fn write_segment(&mut self) {
        self.close_frame();
        if self.segment.is_empty() {
            return;
        }
        let segment = std::mem::take(&mut self.segment);
        let replaced = std::mem::take(&mut self.replaced);
        let keys = std::mem::take(&mut self.segment_keys);
        match self.append(segment, &replaced) {
            Ok(()) => self.unsynced_keys.extend(keys),
            Err(error) => {
                tracing::error!(error = %granary_castore::Chain(&error), "a write was lost");
                // IMPORTANT: in this order. A batch that begins now must either not see the
                // lost objects any more, or fail for having begun before the loss.
                self.shared.pending.remove(keys);
                *self.shared.last_loss.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(error.clone());
                self.shared.losses.fetch_add(1, Ordering::AcqRel);
                for (_, answer) in self.waiting.drain(..) {
                    reply(&answer, Err(error.clone()));
                }
            }
        }
    }

    fn append(&mut self, segment: SegmentBuilder, replaced: &Totals) -> Result<()> {
        if self.tail.as_ref().is_some_and(|tail| tail.len() >= self.pack_bytes) {
            self.seal()?;
        }
        // IMPORTANT: before it is written. A segment in the packs must come into the index; as
        // long as that takes nothing, because the disk is full, nothing is lost by refusing it.
        self.index.make_room()?;
        let stamp = self.next_place();
        let (segment, records) = segment.finish(stamp, self.state.store_id);
        if self.tail.is_none() {
            self.tail = Some(self.create_pack()?);
        }
        let tail = self.tail.as_mut().expect("it was made above if there was none");
        let offset = tail.append(&segment)?;
        drop(segment);
        self.state.watermark = Watermark { pack: tail.handle, offset: tail.len(), stamp };
        self.is_unsynced = true;
        let handle = tail.handle;
        let totals = &mut self.state.totals;
        self.update
            .add_segment(&self.index, Novelty::New, handle, offset, &records, totals)
            .map_err(Error::from)?;
        totals.subtract(replaced);
        Ok(())
    }

    fn create_pack(&mut self) -> Result<Tail> {
        let tail = Tail::create(&*self.disk, self.state.store_id, self.next_handle)?;
        self.next_handle += 1;
        self.packs.add(tail.handle, tail.id);
        self.update.set_pack(tail.handle, PackEntry { id: tail.id.0, sealed: false });
        Ok(tail)
    }

    /// Seals the full pack; everything in it is made durable first.
    pub(super) fn seal(&mut self) -> Result<()> {
        self.sync()?;
        self.index.make_room()?;
        if let Some(tail) = &self.tail {
            tail.write_footer(self.state.store_id)?;
            let (handle, id) = (tail.handle, tail.id);
            self.is_unsynced = true;
            self.update.set_pack(handle, PackEntry { id: id.0, sealed: true });
            self.sync()?;
            self.tail = None;
        }
        Ok(())
    }

    /// Why nothing more is written, if so.
    pub(super) fn poison(&self) -> Option<Error> {
        self.poison.clone()
    }

    /// Fails if a segment was lost since the count was `losses`.
    pub(super) fn check_losses(&self, losses: u64) -> Result<()> {
        self.shared.check_losses(losses)
    }

    /// Makes everything durable and visible, and answers all who wait.
    pub(super) fn commit(&mut self) {
        self.write_segment();
        let result = match &self.poison {
            Some(poison) => Err(poison.clone()),
            None => self.sync(),
        };
        for (losses, answer) in self.waiting.drain(..) {
            let result = result.clone().and_then(|()| self.shared.check_losses(losses));
            reply(&answer, result);
        }
    }

    /// Syncs what was written and puts it into the index. A failure poisons the log.
    pub(super) fn sync(&mut self) -> Result<()> {
        if !self.is_unsynced && self.update.is_empty() {
            return Ok(());
        }
        if !self.is_unsynced {
            // What is to be applied stands in no segment that was written, and can wait.
            self.index.make_room()?;
        }
        let result = self.sync_and_index();
        if let Err(error) = &result {
            tracing::error!(
                error = %granary_castore::Chain(error),
                "the store takes no more writes until it is opened anew"
            );
            self.poison = Some(
                Error::unavailable("an earlier sync failed; restart to write again")
                    .because(error.clone()),
            );
        }
        self.shared.pending.remove(self.unsynced_keys.drain(..));
        result
    }

    fn sync_and_index(&mut self) -> Result<()> {
        if self.is_unsynced
            && let Some(tail) = &self.tail
        {
            tail.sync()?;
        }
        self.is_unsynced = false;
        // IMPORTANT: only now. An index that is ahead of the packs would point to bytes
        // that a crash takes away.
        let mut update = std::mem::take(&mut self.update);
        update.set_state(&self.state);
        Ok(self.index.apply(update)?)
    }
}

fn refuse(request: Request, poison: &Error) {
    match request {
        Request::Values { answer, .. }
        | Request::Commit { answer, .. }
        | Request::Barrier { answer }
        | Request::Close { answer } => reply(&answer, Err(poison.clone())),
        // It has no answer of its own: the commit behind it gets it.
        Request::Append { .. } => {}
        Request::Maintain(maintenance) => maintenance.refuse(poison),
    }
}

pub(super) fn reply<T>(answer: &SyncSender<Result<T>>, result: Result<T>) {
    // Whoever asked may have gone away.
    drop(answer.try_send(result));
}

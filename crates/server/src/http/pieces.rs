//! Bodies in pieces: read ahead by other threads, in order, without holding one while the client is
//! slow. What is in memory is read when it is sent instead, by the thread that sends it: always if it
//! goes out as it is stored, and if it is to be decompressed while no core is idle.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use granary_castore::{Chain, Error, Result};
use granary_store::{NarPiece, NarPieces, NarPlan, Store};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::{JoinError, JoinHandle, yield_now},
};

use super::{
    busy::Busy,
    layouts::{Layouts, NewLayout},
    reader_threads::{ReaderThreads, Wanted},
};
use crate::event_loops;

/// Most pieces of one body that are read before they are needed.
const PIECES_AHEAD: usize = 12;

/// Most bytes of pieces that are read before they are needed, over all connections. Beside
/// these, a connection costs the piece that it sends, of half a MiB to one and three quarters as a
/// rule.
const READ_AHEAD_BYTES: usize = 32 << 20;

/// Most threads that read pieces for the connections of one event loop. There are as many as cores, and
/// two in any case, since one may wait for the disk.
const MAX_READERS_PER_LOOP: usize = 4;

/// How many pieces of a body are read by other threads once one could not be had without waiting: what
/// is behind it is likely to lie on the disk too.
const PIECES_ELSEWHERE: usize = 64;

/// How many pieces are cut at a time, so that not each costs a way to another thread.
const PIECES_CUT: usize = 4;

/// Reads the bodies of all connections.
pub(super) struct Readers {
    store: Arc<Store>,
    layouts: Layouts,
    /// One permit for each byte that may still be read ahead.
    budget: Arc<Semaphore>,
    /// Those of each event loop.
    threads: Vec<ReaderThreads>,
    busy: Busy,
}

/// The buffers of a piece.
pub(super) type Buffers = Vec<Bytes>;

/// What becomes of a piece.
pub(super) trait Form: Send + Sync {
    /// Reads a piece, which may take a while.
    fn read(&self, piece: &NarPiece, later: Later) -> Result<Buffers>;

    /// The same, if it takes no waiting.
    fn read_now(&self, piece: &NarPiece) -> Option<Buffers>;

    /// Whether [`read_now`](Self::read_now) takes work that is worth another thread if a core is idle.
    fn is_work(&self) -> bool;
}

/// The bytes as they are.
struct Plain;

impl Form for Plain {
    fn read(&self, piece: &NarPiece, _later: Later) -> Result<Buffers> {
        piece.read()
    }

    fn read_now(&self, piece: &NarPiece) -> Option<Buffers> {
        piece.read_now()
    }

    fn is_work(&self) -> bool {
        true
    }
}

/// What will become of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Later {
    /// It is kept, or will be, and may be asked for again.
    Kept,
    Gone,
}

impl Readers {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            layouts: Layouts::default(),
            budget: Arc::new(Semaphore::new(READ_AHEAD_BYTES)),
            threads: (0..event_loops::count())
                .map(|_| ReaderThreads::new(event_loops::count().clamp(2, MAX_READERS_PER_LOOP)))
                .collect(),
            busy: Busy::new(event_loops::count()),
        }
    }

    /// Those that read for the event loop that this is called on.
    fn threads(&self) -> &ReaderThreads {
        &self.threads[event_loops::here()]
    }

    /// The bytes `range` of what is planned, piece by piece.
    pub(super) async fn plain(
        self: &Arc<Self>,
        plan: Arc<NarPlan>,
        range: Range<u64>,
    ) -> Result<impl Stream<Item = Result<Buffers>> + Send + use<>> {
        self.pieces(plan, range, Arc::new(Plain)).await
    }

    /// The bytes `range` of what is planned, piece by piece, each in `form`.
    ///
    /// The first piece is read before this returns, so that what is wrong from the start
    /// still gets a proper answer. An error later is an item of the stream, and its end.
    pub(super) async fn pieces(
        self: &Arc<Self>,
        plan: Arc<NarPlan>,
        range: Range<u64>,
        form: Arc<dyn Form>,
    ) -> Result<impl Stream<Item = Result<Buffers>> + Send + use<>> {
        let generation = self.store.blobs().layout_generation();
        let is_whole = range == (0..plan.nar_size());
        let kept = is_whole.then(|| self.layouts.get(&plan, generation)).flatten();
        let was_kept = kept.is_some();
        let (cut, cutting, new_layout) = if let Some(layout) = kept {
            (layout.into(), Cutting::Over(None), None)
        } else {
            let new_layout = is_whole.then(|| self.layouts.begin(&plan, generation)).flatten();
            (VecDeque::new(), Cutting::Idle(NarPieces::new(plan, range)), new_layout)
        };
        let is_kept = was_kept || new_layout.is_some();
        let later = if is_kept { Later::Kept } else { Later::Gone };
        let mut pieces = Pieces {
            readers: Arc::clone(self),
            form,
            cutting,
            cut,
            was_kept,
            later,
            new_layout,
            reading: VecDeque::new(),
            ahead_bytes: 0,
            sent: None,
            was_read_now: false,
            left_elsewhere: 0,
        };
        let first = pieces.next().await?;
        let rest = stream::try_unfold(pieces, |mut pieces| async move {
            Ok(pieces.next().await?.map(|piece| (piece, pieces)))
        });
        Ok(stream::iter(first.map(Ok)).chain(rest).inspect(|piece| {
            if let Err(error) = piece {
                // The client only sees its connection break.
                tracing::error!("a body breaks off: {}", Chain(error));
            }
        }))
    }

    /// Reads a piece from where it lies now.
    fn read_anew(&self, piece: &NarPiece, form: &dyn Form) -> Result<Buffers> {
        let (mut pieces, mut buffers) = (piece.anew(), Vec::new());
        while let Some(piece) = pieces.next(self.store.blobs())? {
            buffers.extend(form.read(&piece, Later::Gone)?);
        }
        Ok(buffers)
    }
}

fn not_read(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::unavailable("a piece could not be read").because(error)
}

/// A body on its way.
struct Pieces {
    readers: Arc<Readers>,
    form: Arc<dyn Form>,
    cutting: Cutting,
    /// Pieces that wait to be read.
    cut: VecDeque<Arc<NarPiece>>,
    /// Whether they were kept from another time.
    was_kept: bool,
    later: Later,
    /// All pieces so far, if they will be kept.
    new_layout: Option<NewLayout>,
    /// Pieces that are being read, or have been, in order.
    reading: VecDeque<Reading>,
    /// Permits that this body has, for what it reads and what it sends.
    ahead_bytes: usize,
    /// What is held for the piece that is being sent.
    sent: Option<OwnedSemaphorePermit>,
    /// Whether the last piece was read here and now.
    was_read_now: bool,
    /// How many pieces are still to be read by other threads, whoever is busy.
    left_elsewhere: usize,
}

/// Where the next pieces come from.
enum Cutting {
    Idle(NarPieces),
    Busy(JoinHandle<(NarPieces, CutPieces)>),
    /// All were cut, or an error comes behind them.
    Over(Option<Error>),
}

/// Pieces in order, then the end or an error if there was one.
struct CutPieces {
    pieces: Vec<Arc<NarPiece>>,
    end: Option<Result<()>>,
}

/// A piece on its way.
struct Reading {
    read: oneshot::Receiver<Result<Buffers>>,
    budget: Option<OwnedSemaphorePermit>,
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Buffers>> {
        self.give_back(None);
        self.readers.busy.note(event_loops::here());
        loop {
            self.take_cut();
            if let Some(buffers) = self.read_now().await {
                return Ok(Some(buffers));
            }
            if self.reading.is_empty()
                && let Some(piece) = self.cut.pop_front()
            {
                // Whoever is waited for needs no budget, or those who are slow to take what
                // was read for them could hold up all others.
                let read = self.start(piece, Wanted::Now);
                self.reading.push_back(Reading { read, budget: None });
            }
            self.read_ahead();
            if let Some(first) = self.reading.front_mut() {
                let buffers = (&mut first.read).await.map_err(not_read)??;
                let read = self.reading.pop_front();
                self.left_elsewhere = self.left_elsewhere.saturating_sub(1);
                self.give_back(read.and_then(|read| read.budget));
                // While this one is sent, the next ones are read.
                self.take_cut();
                self.read_ahead();
                return Ok(Some(buffers));
            }
            match &mut self.cutting {
                Cutting::Busy(task) => {
                    let cut = task.await;
                    self.add_cut(cut);
                }
                Cutting::Over(error) => return error.take().map_or(Ok(None), Err),
                Cutting::Idle(_) => self.cut_more(),
            }
        }
    }

    /// The next piece, if it can be had here and now: the way to another thread and back costs
    /// about as much as to read what is in memory, and to decompress it where it is sent leaves it in the
    /// cache of this core. Not if some are read elsewhere already.
    async fn read_now(&mut self) -> Option<Buffers> {
        let is_here = self.reading.is_empty()
            && !self.is_ahead()
            && (self.cut.front()?.is_quick() || !self.form.is_work());
        if !is_here {
            return None;
        }
        if std::mem::take(&mut self.was_read_now) {
            // A client that takes whatever comes would keep the others of this thread waiting.
            yield_now().await;
        }
        let Some(buffers) = self.form.read_now(self.cut.front()?) else {
            self.left_elsewhere = PIECES_ELSEWHERE;
            return None;
        };
        self.cut.pop_front();
        self.was_read_now = true;
        if self.cut.len() < PIECES_CUT {
            self.cut_more();
        }
        Some(buffers)
    }

    /// Whether other threads read ahead for this body: it lies on a disk, or another core has the time.
    fn is_ahead(&self) -> bool {
        let is_spread = || self.form.is_work() && !self.readers.busy.is_every_loop();
        self.left_elsewhere > 0 || is_spread()
    }

    /// Has a piece read.
    fn start(&self, piece: Arc<NarPiece>, wanted: Wanted) -> oneshot::Receiver<Result<Buffers>> {
        let (readers, form) = (Arc::clone(&self.readers), Arc::clone(&self.form));
        let (was_kept, later) = (self.was_kept, self.later);
        let event_loop = event_loops::here();
        self.readers.threads().read(wanted, move || {
            let read = match form.read(&piece, later) {
                // What it is made of may have been stored anew since.
                Err(_) if was_kept => readers.read_anew(&piece, &*form),
                read => read,
            };
            readers.busy.note(event_loop);
            read
        })
    }

    /// Gives back what the piece before held, and holds what this one does.
    fn give_back(&mut self, sent: Option<OwnedSemaphorePermit>) {
        if let Some(before) = std::mem::replace(&mut self.sent, sent) {
            self.ahead_bytes -= before.num_permits();
        }
    }

    /// Starts to read what is cut, as far as that is allowed.
    fn read_ahead(&mut self) {
        let is_ahead = self.is_ahead();
        while is_ahead
            && self.reading.len() < PIECES_AHEAD
            && let Some(piece) = self.cut.front()
            && let Some(budget) = self.budget(piece.size_bytes())
            && let Some(piece) = self.cut.pop_front()
        {
            self.ahead_bytes += budget.num_permits();
            let read = self.start(piece, Wanted::Later);
            self.reading.push_back(Reading { read, budget: Some(budget) });
        }
        if self.cut.len() < PIECES_CUT {
            self.cut_more();
        }
    }

    /// What reading that many bytes ahead takes, if it is to be had. A body gets as much as
    /// is left for others, so that there is always something left for the next.
    fn budget(&self, size_bytes: u64) -> Option<OwnedSemaphorePermit> {
        let budget = &self.readers.budget;
        let bytes = usize::try_from(size_bytes).ok()?;
        if self.ahead_bytes.checked_add(bytes)? > budget.available_permits() {
            return None;
        }
        Arc::clone(budget).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }

    /// Starts to cut the next pieces, unless that is going on, or over.
    fn cut_more(&mut self) {
        self.cutting = match std::mem::replace(&mut self.cutting, Cutting::Over(None)) {
            Cutting::Idle(mut pieces) => {
                let store = Arc::clone(&self.readers.store);
                Cutting::Busy(event_loops::spawn_blocking(move || {
                    let cut = cut(&store, &mut pieces);
                    (pieces, cut)
                }))
            }
            other => other,
        };
    }

    /// Takes what was cut, if that is done.
    fn take_cut(&mut self) {
        if let Cutting::Busy(task) = &mut self.cutting
            && let Some(cut) = task.now_or_never()
        {
            self.add_cut(cut);
        }
    }

    fn add_cut(&mut self, cut: Result<(NarPieces, CutPieces), JoinError>) {
        self.cutting = match cut {
            Ok((rest, cut)) => {
                if self.new_layout.as_mut().is_some_and(|layout| !layout.extend(&cut.pieces)) {
                    (self.new_layout, self.later) = (None, Later::Gone);
                }
                if matches!(cut.end, Some(Ok(())))
                    && let Some(layout) = self.new_layout.take()
                {
                    self.readers.layouts.keep(layout);
                }
                self.cut.extend(cut.pieces);
                match cut.end {
                    None => Cutting::Idle(rest),
                    Some(end) => Cutting::Over(end.err()),
                }
            }
            Err(error) => Cutting::Over(Some(not_read(error))),
        };
    }
}

/// Cuts the next pieces.
fn cut(store: &Store, rest: &mut NarPieces) -> CutPieces {
    let mut pieces = Vec::with_capacity(PIECES_CUT);
    while pieces.len() < PIECES_CUT {
        match rest.next(store.blobs()) {
            Ok(Some(piece)) => pieces.push(Arc::new(piece)),
            Ok(None) => return CutPieces { pieces, end: Some(Ok(())) },
            Err(error) => return CutPieces { pieces, end: Some(Err(error)) },
        }
    }
    CutPieces { pieces, end: None }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::TryStreamExt as _;
    use granary_castore::{Castore as _, Error};
    use granary_store::{PIECE_BYTES, StoreOptions};
    use granary_testkit::{FramedStore, Random};

    use super::*;
    use crate::http::frames::Framer;

    /// Several pieces.
    const LEN: usize = (8 << 20) + 7;

    struct Fixture {
        castore: FramedStore,
        readers: Arc<Readers>,
        contents: Vec<u8>,
        plan: Arc<NarPlan>,
    }

    impl Fixture {
        fn new() -> Self {
            Self::with_extents(300_000)
        }

        fn with_extents(max_extent_bytes: usize) -> Self {
            let castore = FramedStore::new(max_extent_bytes);
            let contents = Random::new(1).compressible(LEN);
            let mut batch = castore.batch().expect("memory");
            let digest = batch.put_blob(contents.clone().into()).expect("memory");
            batch.commit().expect("memory");
            let records = Arc::new(castore.memory().clone());
            let store = Store::new(Arc::new(castore.clone()), records, StoreOptions::default());
            // However many cores there are.
            let readers = Readers { busy: Busy::new(2), ..Readers::new(Arc::new(store)) };
            let readers = Arc::new(readers);
            let plan = Arc::new(NarPlan::of_blob(digest, LEN as u64));
            Self { castore, readers, contents, plan }
        }

        async fn begin(
            &self,
            range: Range<u64>,
        ) -> Result<impl Stream<Item = Result<Buffers>> + Send + use<>> {
            self.readers.plain(Arc::clone(&self.plan), range).await
        }

        async fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
            let pieces: Vec<Buffers> = self.begin(range).await?.try_collect().await?;
            Ok(pieces.into_iter().flatten().flatten().collect())
        }

        /// Has all event loops busy for an hour.
        fn keep_busy(&self) {
            self.readers.busy.keep_all();
        }

        /// How many extents were read here and now, and how many in all.
        fn extents(&self) -> (usize, usize) {
            let counts = self.castore.counts();
            let extents = counts.values().map(|counts| (counts.now, counts.read.values().sum()));
            extents.fold((0, 0), |sum, counts: (usize, usize)| (sum.0 + counts.0, sum.1 + counts.1))
        }

        fn is_idle(&self) -> bool {
            self.readers.budget.available_permits() == READ_AHEAD_BYTES
                && self.readers.layouts.growing_bytes() == 0
        }
    }

    #[tokio::test]
    async fn gives_any_range() {
        let fixture = Fixture::new();
        let len = LEN as u64;
        for range in [0..len, 0..1, 5..6, PIECE_BYTES - 1..PIECE_BYTES + 1, 7..len, 9..9] {
            let bytes = fixture.read(range.clone()).await.expect("whole");
            let expected = usize::try_from(range.start).expect("small")
                ..usize::try_from(range.end).expect("small");
            assert!(bytes == fixture.contents[expected], "{range:?}");
            assert!(fixture.is_idle());
        }
    }

    #[tokio::test]
    async fn an_error_in_the_first_piece_comes_before_the_stream() {
        let fixture = Fixture::new();
        fixture.castore.fail_from(0, Error::corrupt("damaged"));
        assert!(matches!(fixture.begin(0..9).await.err(), Some(Error::Corrupt(_))));
    }

    #[tokio::test]
    async fn an_error_later_comes_behind_all_that_is_whole() {
        let fixture = Fixture::new();
        fixture.castore.fail_from(5 * PIECE_BYTES, Error::corrupt("damaged"));
        let pieces = fixture.begin(0..LEN as u64).await.expect("it begins well");
        let mut pieces = Box::pin(pieces);
        let mut read = Vec::new();
        let error = loop {
            match pieces.next().await.expect("it does not end well") {
                Ok(buffers) => read.extend(buffers.concat()),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Corrupt(_)));
        assert!(read.len() as u64 > 3 * PIECE_BYTES && fixture.contents.starts_with(&read));
        assert!(pieces.next().await.is_none());
    }

    #[tokio::test]
    async fn who_is_slow_stops_nobody_and_memory_is_bounded() {
        let fixture = Fixture::new();
        let mut slow = Vec::new();
        for number in 0..100 {
            slow.push(Box::pin(fixture.begin(0..LEN as u64).await.expect("whole")));
            if number == 0 {
                let taken = READ_AHEAD_BYTES - fixture.readers.budget.available_permits();
                assert!(taken as u64 > PIECE_BYTES, "nothing is read ahead");
            }
            assert!(fixture.readers.budget.available_permits() > 0, "nothing is left for others");
        }
        assert!(fixture.read(0..LEN as u64).await.expect("whole") == fixture.contents);
        for pieces in &mut slow {
            pieces.next().await.expect("a second piece").expect("whole");
        }
        drop(slow);
        // What was begun is given back when it is done, which its threads do in their time.
        while !fixture.is_idle() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_was_cut_once_is_not_cut_again() {
        let fixture = Fixture::new();
        let opened =
            || fixture.castore.counts().values().map(|counts| counts.opened).sum::<usize>();
        for range in [0..LEN as u64, 0..LEN as u64, 0..5] {
            let bytes = fixture.read(range.clone()).await.expect("whole");
            assert!(bytes == fixture.contents[..usize::try_from(range.end).expect("small")]);
        }
        assert_eq!(opened(), 2, "for the whole and for the part");
    }

    #[tokio::test]
    async fn what_is_read_once_is_not_kept() {
        let mut fixture = Fixture::new();
        let [digest] = fixture.plan.blobs().map(|blob| blob.digest).collect::<Vec<_>>()[..] else {
            panic!("it is one blob");
        };
        fixture.plan = Arc::new(NarPlan::of_blob(digest, LEN as u64).for_once());
        for times in 1..3 {
            assert!(fixture.read(0..LEN as u64).await.expect("whole") == fixture.contents);
            assert_eq!(fixture.castore.counts()[&digest].opened, times);
        }
    }

    #[tokio::test]
    async fn what_is_moved_is_found() {
        let fixture = Fixture::new();
        for is_told in [false, true, true, false] {
            assert!(fixture.read(0..LEN as u64).await.expect("whole") == fixture.contents);
            fixture.castore.move_all(is_told);
        }
        // It lies elsewhere and is damaged there.
        fixture.castore.fail_from(0, Error::corrupt("damaged"));
        assert!(matches!(fixture.read(0..LEN as u64).await, Err(Error::Corrupt(_))));
    }

    #[tokio::test]
    async fn work_is_done_here_while_no_core_is_idle() {
        let fixture = Fixture::new();
        fixture.castore.keep_in_memory(u64::MAX);
        fixture.keep_busy();
        let _occupied = fixture.readers.threads().occupy();
        let read = tokio::time::timeout(Duration::from_secs(60), fixture.read(0..LEN as u64));
        let bytes = read.await.expect("it waits for no thread").expect("whole");
        assert!(bytes == fixture.contents);
        let (now, all) = fixture.extents();
        assert!(now > 10 && now == all, "{now} of {all}");
        assert!(fixture.is_idle());
    }

    #[tokio::test]
    async fn work_is_left_to_a_core_that_is_idle() {
        let fixture = Fixture::new();
        fixture.castore.keep_in_memory(u64::MAX);
        assert!(fixture.read(0..LEN as u64).await.expect("whole") == fixture.contents);
        assert_eq!(fixture.extents().0, 0);
    }

    #[tokio::test]
    async fn what_takes_long_is_left_to_others_though_no_core_is_idle() {
        let fixture = Fixture::with_extents(20_000);
        fixture.castore.keep_in_memory(u64::MAX);
        fixture.keep_busy();
        assert!(fixture.read(0..LEN as u64).await.expect("whole") == fixture.contents);
        let (now, all) = fixture.extents();
        assert!(all > 500 && now < all / 10, "{now} of {all}");
    }

    #[tokio::test]
    async fn what_was_begun_elsewhere_is_taken_before_work_is_done_here() {
        let fixture = Fixture::new();
        fixture.castore.keep_in_memory(u64::MAX);
        let mut pieces = Box::pin(fixture.begin(0..LEN as u64).await.expect("whole"));
        let mut read = Vec::new();
        while let Some(piece) = pieces.try_next().await.expect("whole") {
            read.extend(piece.into_iter().flatten());
            fixture.keep_busy();
        }
        assert!(read == fixture.contents);
        let (now, all) = fixture.extents();
        assert!(0 < now && now < all, "{now} of {all}");
        assert!(fixture.is_idle());
    }

    #[tokio::test]
    async fn what_lies_on_a_disk_is_read_ahead_though_no_core_is_idle() {
        let fixture = Fixture::new();
        fixture.castore.keep_in_memory(LEN as u64 / 2);
        fixture.keep_busy();
        let mut pieces = Box::pin(fixture.begin(0..LEN as u64).await.expect("whole"));
        let (mut read, mut taken) = (Vec::new(), 0);
        while let Some(piece) = pieces.try_next().await.expect("whole") {
            read.extend(piece.into_iter().flatten());
            taken = taken.max(READ_AHEAD_BYTES - fixture.readers.budget.available_permits());
        }
        assert!(read == fixture.contents);
        assert!(taken as u64 > PIECE_BYTES, "nothing is read ahead");
        let (now, all) = fixture.extents();
        assert!(0 < now && now < all, "{now} of {all}");
    }

    /// Between two pieces that are read here and now others have a turn.
    async fn gives_way(pieces: impl Stream<Item = Result<Buffers>>) {
        let mut pieces = Box::pin(pieces);
        assert!(futures::poll!(pieces.next()).is_ready(), "it was read before this began");
        for _ in 0..3 {
            assert!(futures::poll!(pieces.next()).is_pending(), "others have had no turn");
            assert!(matches!(futures::poll!(pieces.next()), std::task::Poll::Ready(Some(Ok(_)))));
        }
    }

    #[tokio::test]
    async fn who_works_gives_way_to_others() {
        let fixture = Fixture::new();
        fixture.castore.keep_in_memory(u64::MAX);
        // So that all of it is cut.
        assert!(fixture.read(0..LEN as u64).await.expect("whole") == fixture.contents);
        fixture.keep_busy();
        gives_way(fixture.begin(0..LEN as u64).await.expect("whole")).await;
    }

    #[tokio::test]
    async fn damage_is_found_here_as_elsewhere() {
        let fixture = Fixture::new();
        fixture.castore.keep_in_memory(u64::MAX);
        fixture.castore.fail_from(5 * PIECE_BYTES, Error::corrupt("damaged"));
        fixture.keep_busy();
        let mut pieces = Box::pin(fixture.begin(0..LEN as u64).await.expect("it begins well"));
        let mut read = Vec::new();
        let error = loop {
            match pieces.next().await.expect("an error comes first") {
                Ok(piece) => read.extend(piece.into_iter().flatten()),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Corrupt(_)));
        assert!(read.len() as u64 > 3 * PIECE_BYTES && fixture.contents.starts_with(&read));
        assert!(fixture.extents().0 > 0);
    }

    /// Bodies of frames, which were made once before.
    struct Framed {
        fixture: Fixture,
        framer: Arc<Framer>,
    }

    impl Framed {
        async fn new() -> Self {
            let framed = Self { fixture: Fixture::new(), framer: Arc::default() };
            assert!(framed.read().await.expect("whole") == framed.fixture.contents);
            assert_eq!(framed.frames_now(), 0);
            framed
        }

        async fn begin(&self) -> Result<impl Stream<Item = Result<Buffers>> + Send + use<>> {
            let Fixture { readers, plan, .. } = &self.fixture;
            let framer = Arc::clone(&self.framer);
            readers.pieces(Arc::clone(plan), 0..LEN as u64, framer).await
        }

        /// What comes before the end or an error, and that.
        async fn read_up_to_error(&self) -> (Vec<u8>, Result<()>) {
            let mut decoded = Vec::new();
            let read = async {
                let mut pieces = Box::pin(self.begin().await?);
                while let Some(frames) = pieces.try_next().await? {
                    for frame in frames {
                        decoded.extend(zstd::decode_all(&frame[..]).expect("a frame of zstd"));
                    }
                }
                Ok(())
            };
            let end = read.await;
            (decoded, end)
        }

        async fn read(&self) -> Result<Vec<u8>> {
            let (decoded, end) = self.read_up_to_error().await;
            end.map(|()| decoded)
        }

        /// How many frames were read here and now, and how many in all.
        fn frames(&self) -> (usize, usize) {
            let counts = self.fixture.castore.counts();
            let frames = counts.values().map(|counts| (counts.frames_now, counts.frames));
            frames.fold((0, 0), |sum, frames| (sum.0 + frames.0, sum.1 + frames.1))
        }

        fn frames_now(&self) -> usize {
            self.frames().0
        }
    }

    #[tokio::test]
    async fn what_is_in_memory_is_read_on_no_other_thread() {
        let framed = Framed::new().await;
        let (_, stored) = framed.frames();
        framed.fixture.castore.keep_in_memory(u64::MAX);
        let _occupied = framed.fixture.readers.threads().occupy();
        let read = tokio::time::timeout(Duration::from_secs(60), framed.read());
        let bytes = read.await.expect("it waits for no thread").expect("whole");
        assert!(bytes == framed.fixture.contents);
        assert_eq!(framed.frames(), (stored, 2 * stored));
        assert!(framed.fixture.is_idle());
    }

    #[tokio::test]
    async fn what_is_not_in_memory_is_waited_for() {
        let framed = Framed::new().await;
        let (_, stored) = framed.frames();
        framed.fixture.castore.keep_in_memory(LEN as u64 / 2);
        assert!(framed.read().await.expect("whole") == framed.fixture.contents);
        assert!((1..stored).contains(&framed.frames_now()), "{:?}", framed.frames());
        assert!(framed.fixture.is_idle());
    }

    #[tokio::test]
    async fn what_is_damaged_in_memory_breaks_the_body_off() {
        let framed = Framed::new().await;
        framed.fixture.castore.keep_in_memory(u64::MAX);
        framed.fixture.castore.fail_from(5 * PIECE_BYTES, Error::corrupt("damaged"));
        let (read, end) = framed.read_up_to_error().await;
        assert!(matches!(end, Err(Error::Corrupt(_))));
        assert!(framed.frames_now() > 0);
        let is_prefix = framed.fixture.contents.starts_with(&read);
        assert!(is_prefix && read.len() as u64 > 3 * PIECE_BYTES, "{}", read.len());
    }

    #[tokio::test]
    async fn who_reads_from_memory_gives_way_to_others() {
        let framed = Framed::new().await;
        framed.fixture.castore.keep_in_memory(u64::MAX);
        gives_way(framed.begin().await.expect("whole")).await;
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_read() {
        let fixture = Fixture::new();
        let occupied = fixture.readers.threads().occupy();
        let mut waiting = Box::pin(fixture.begin(0..LEN as u64));
        while fixture.readers.budget.available_permits() == READ_AHEAD_BYTES {
            assert!(futures::poll!(&mut waiting).is_pending(), "no thread is free");
            tokio::task::yield_now().await;
        }
        drop(waiting);
        while !fixture.is_idle() {
            tokio::task::yield_now().await;
        }
        drop(occupied);
        while !fixture.readers.threads().are_idle() {
            tokio::task::yield_now().await;
        }
        let counts = fixture.castore.counts();
        assert!(counts.values().all(|counts| counts.read.is_empty()), "{counts:?}");
    }
}

//! The stages of an import, and the threads that take turns at them.
//!
//! To walk, to hash the NAR and to give contents to the batch are three stages: one thread at a time
//! is at each, and they get packets in order. What the batch [leaves to others](WriteBatch::helpers), any number
//! can do beside that. No thread has a stage of its own. Each does what is to be done next, so that none
//! waits while there is work; and first of all what comes next for what it has read itself, whose bytes are likelier
//! than others in the cache of its core.

use std::{
    collections::VecDeque,
    panic,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use granary_castore::{BatchHelper, Error, WriteBatch};

use super::{
    ImportError, ImportObserver, consumer::Consumer, nar_hash::NarHasher, step::Packet,
    walker::Walker,
};
use crate::IngestedNar;

/// While fewer packets wait for a stage, the walk goes on before anything else is done that another thread has read: so
/// there is something to do for all whenever one is at it.
const MIN_WAITING_PACKETS: usize = 2;

/// Packets that may wait for a stage.
const MAX_WAITING_PACKETS: usize = 4;

/// Fewest threads: on one core, one works while the other waits for the disk.
const MIN_THREADS: usize = 2;

/// Most threads. The longest stage, of which one at a time does something, takes about a sixth of all the work, so that
/// more would wait.
const MAX_THREADS: usize = 8;

/// Most threads if nothing is left to helpers: one for each stage.
const STAGES: usize = 3;

/// Imports the tree at `path` into `batch`.
pub(super) fn run(
    path: &Path,
    batch: &mut dyn WriteBatch,
    observer: &dyn ImportObserver,
) -> Result<IngestedNar, ImportError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.clamp(MIN_THREADS, MAX_THREADS);
    let helpers = batch.helpers(threads)?;
    let threads = if helpers.is_empty() { threads.min(STAGES) } else { threads };
    let mut helpers = helpers.into_iter();
    let pipeline = Pipeline {
        plan: Mutex::new(Plan::new(threads)),
        changed: Condvar::new(),
        walker: Mutex::new(Walker::new(path, threads)?),
        hasher: Mutex::default(),
        consumer: Mutex::new(Consumer::new(batch, observer)),
    };
    thread::scope(|scope| {
        let pipeline = &pipeline;
        let first = Worker { pipeline, number: 0, helper: helpers.next() };
        let others: Vec<_> = (1..threads)
            .map(|number| {
                let worker = Worker { pipeline, number, helper: helpers.next() };
                thread::Builder::new()
                    .name("granary-import".to_owned())
                    .spawn_scoped(scope, move || worker.run())
            })
            .collect();
        first.run();
        // This one could do all alone: what could not be started is not missed.
        for other in others.into_iter().flatten() {
            if let Err(panic) = other.join() {
                panic::resume_unwind(panic);
            }
        }
    });
    let Pipeline { plan, hasher, consumer, .. } = pipeline;
    if let Some(failure) = into_inner(plan).failure {
        return Err(failure);
    }
    let nar = into_inner(hasher).finish();
    Ok(IngestedNar { node: into_inner(consumer).finish()?, nar })
}

struct Pipeline<'a> {
    plan: Mutex<Plan>,
    /// There may be something to do, or nothing ever again.
    changed: Condvar,
    walker: Mutex<Walker<'a>>,
    hasher: Mutex<NarHasher>,
    consumer: Mutex<Consumer<'a>>,
}

impl Pipeline<'_> {
    fn fail(&self, error: ImportError) {
        lock(&self.plan).failure.get_or_insert(error);
        self.changed.notify_all();
    }
}

/// What is to be done.
#[derive(Debug)]
struct Plan {
    /// How many threads there are.
    threads: usize,
    walk: Stage,
    hash: Stage,
    store: Stage,
    is_walked: bool,
    /// How many threads wait for a change.
    idle: usize,
    failure: Option<ImportError>,
}

/// A stage, and what waits for it; for the walk, nothing does.
#[derive(Debug, Default)]
struct Stage {
    waiting: VecDeque<Arc<Packet>>,
    /// Whether a thread is at it.
    is_taken: bool,
}

impl Stage {
    /// The next packet, if it is one that may be taken now.
    fn take(&mut self, may_be_taken: impl FnOnce(&Packet) -> bool) -> Option<Arc<Packet>> {
        if self.is_taken || !may_be_taken(self.waiting.front()?) {
            return None;
        }
        self.is_taken = true;
        self.waiting.pop_front()
    }

    fn is_done(&self) -> bool {
        !self.is_taken && self.waiting.is_empty()
    }
}

/// What a thread does next.
#[derive(Debug)]
enum Task {
    Walk,
    Hash(Arc<Packet>),
    Store(Arc<Packet>),
    /// What the batch left.
    Help,
    Wait,
    End,
}

impl Plan {
    fn new(threads: usize) -> Self {
        let [walk, hash, store] = [(); 3].map(|()| Stage::default());
        Self { threads, walk, hash, store, is_walked: false, idle: 0, failure: None }
    }

    /// What thread `number` does next, when the batch has left so many parts of its work.
    fn next(&mut self, number: usize, left: usize) -> Task {
        // What is left then, others do when it is waited for.
        if self.failure.is_some() || self.is_done() {
            return Task::End;
        }
        let is_own = |packet: &Packet| packet.read_by == number;
        if let Some(packet) = self.store.take(is_own) {
            return Task::Store(packet);
        }
        if let Some(packet) = self.hash.take(is_own) {
            return Task::Hash(packet);
        }
        // Enough for all: memory first.
        if left >= self.threads {
            return Task::Help;
        }
        let waiting = self.hash.waiting.len().max(self.store.waiting.len());
        if waiting < MIN_WAITING_PACKETS && self.begin_walk() {
            return Task::Walk;
        }
        if let Some(packet) = self.store.take(|_| true) {
            return Task::Store(packet);
        }
        if let Some(packet) = self.hash.take(|_| true) {
            return Task::Hash(packet);
        }
        if waiting < MAX_WAITING_PACKETS && self.begin_walk() {
            return Task::Walk;
        }
        if left > 0 { Task::Help } else { Task::Wait }
    }

    fn begin_walk(&mut self) -> bool {
        let begins = !self.walk.is_taken && !self.is_walked;
        self.walk.is_taken |= begins;
        begins
    }

    fn is_done(&self) -> bool {
        self.is_walked && self.hash.is_done() && self.store.is_done()
    }
}

/// One of the threads.
struct Worker<'p, 'a> {
    pipeline: &'p Pipeline<'a>,
    number: usize,
    helper: Option<Box<dyn BatchHelper>>,
}

impl Worker<'_, '_> {
    fn run(mut self) {
        let _panic = FailOnPanic(self.pipeline);
        let mut plan = lock(&self.pipeline.plan);
        loop {
            let left = self.helper.as_ref().map_or(0, |helper| helper.waiting());
            let task = plan.next(self.number, left);
            plan = match task {
                Task::End => return,
                Task::Wait => self.wait(plan),
                task => {
                    drop(plan);
                    if let Err(error) = self.work(task) {
                        return self.pipeline.fail(error);
                    }
                    lock(&self.pipeline.plan)
                }
            };
        }
    }

    fn wait<'plan>(&self, mut plan: MutexGuard<'plan, Plan>) -> MutexGuard<'plan, Plan> {
        plan.idle += 1;
        plan = self.pipeline.changed.wait(plan).unwrap_or_else(PoisonError::into_inner);
        plan.idle -= 1;
        plan
    }

    fn work(&mut self, task: Task) -> Result<(), ImportError> {
        let Pipeline { walker, hasher, consumer, .. } = self.pipeline;
        match task {
            Task::Walk => {
                let packet = lock(walker).packet(self.number)?;
                self.change(|plan| {
                    plan.walk.is_taken = false;
                    plan.is_walked = packet.is_none();
                    plan.hash.waiting.extend(packet.clone());
                    plan.store.waiting.extend(packet);
                });
            }
            Task::Hash(packet) => {
                lock(hasher).packet(&packet);
                self.change(|plan| plan.hash.is_taken = false);
            }
            Task::Store(packet) => {
                lock(consumer).packet(&packet)?;
                self.change(|plan| plan.store.is_taken = false);
            }
            Task::Help | Task::Wait | Task::End => {
                if let Some(helper) = &mut self.helper {
                    helper.help();
                }
            }
        }
        Ok(())
    }

    /// Changes the plan, and wakes whoever waits for that.
    fn change(&self, change: impl FnOnce(&mut Plan)) {
        let mut plan = lock(&self.pipeline.plan);
        change(&mut plan);
        if plan.idle > 0 {
            self.pipeline.changed.notify_all();
        }
    }
}

/// Has the other threads end too when one panics.
struct FailOnPanic<'p, 'a>(&'p Pipeline<'a>);

impl Drop for FailOnPanic<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(Error::unavailable("an importing thread panicked").into());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn packet(read_by: usize) -> Arc<Packet> {
        Arc::new(Packet { read_by, nar: Bytes::new(), steps: Vec::new() })
    }

    /// A plan for two threads with such packets before its stages, each as who read it.
    fn plan(hash: &[usize], store: &[usize]) -> Plan {
        let mut plan = Plan::new(2);
        plan.hash.waiting.extend(hash.iter().map(|&read_by| packet(read_by)));
        plan.store.waiting.extend(store.iter().map(|&read_by| packet(read_by)));
        plan
    }

    fn name(task: &Task) -> &'static str {
        match task {
            Task::Walk => "walk",
            Task::Hash(_) => "hash",
            Task::Store(_) => "store",
            Task::Help => "help",
            Task::Wait => "wait",
            Task::End => "end",
        }
    }

    /// What thread 0 is given, again and again, when the batch has left so much.
    fn tasks<const N: usize>(mut plan: Plan, left: usize) -> [&'static str; N] {
        [(); N].map(|()| name(&plan.next(0, left)))
    }

    #[test]
    fn no_stage_is_taken_twice() {
        assert_eq!(tasks(plan(&[], &[]), 0), ["walk", "wait"]);
        assert_eq!(tasks(plan(&[1, 1], &[1, 1]), 0), ["store", "hash", "walk", "wait"]);
        assert_eq!(tasks(plan(&[1, 1], &[1, 1]), 1), ["store", "hash", "walk", "help", "help"]);
    }

    #[test]
    fn a_thread_begins_with_what_it_has_read() {
        assert_eq!(tasks(plan(&[0], &[0]), 2), ["store", "hash", "help"]);
        assert_eq!(tasks(plan(&[0], &[1]), 0), ["hash", "walk", "store"]);
        assert_eq!(tasks(plan(&[1], &[0]), 2), ["store", "help", "help"]);
        // Only what comes next can be taken.
        assert_eq!(tasks(plan(&[1, 0], &[1, 0]), 2), ["help", "help"]);
    }

    #[test]
    fn what_is_left_comes_before_what_makes_more_of_it() {
        assert_eq!(tasks(plan(&[1], &[1]), 2), ["help", "help"]);
        assert_eq!(tasks(plan(&[], &[]), 1), ["walk", "help"]);
    }

    #[test]
    fn the_walk_goes_no_further_than_packets_may_wait() {
        for (waiting, expected) in
            [(MAX_WAITING_PACKETS - 1, "walk"), (MAX_WAITING_PACKETS, "wait")]
        {
            let waiting = vec![1; waiting];
            for (hash, store) in [(&waiting[..], &[][..]), (&[], &waiting)] {
                let mut plan = plan(hash, store);
                (plan.hash.is_taken, plan.store.is_taken) = (true, true);
                assert_eq!(tasks(plan, 0), [expected]);
            }
        }
    }

    #[test]
    fn it_ends_when_all_is_done_or_something_failed() {
        let walked =
            |hash: &[usize], store: &[usize]| Plan { is_walked: true, ..plan(hash, store) };
        assert_eq!(tasks(walked(&[], &[]), 0), ["end"]);
        assert_eq!(tasks(walked(&[], &[]), 1), ["end"]);
        // Another thread may be at what this one began.
        assert_eq!(tasks(walked(&[1], &[]), 0), ["hash", "wait"]);
        assert_eq!(tasks(walked(&[], &[1]), 0), ["store", "wait"]);
        let mut failed = plan(&[0], &[0]);
        failed.failure = Some(Error::unavailable("the disk is full").into());
        assert_eq!(tasks(failed, 1), ["end"]);
    }
}

//! The tasks of all connections, and how they learn that it is time to end.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use hyper::rt::Executor;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tracing::error;

use super::request::panic_message;

/// How far the shutdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// There is none.
    Serving,
    /// Requests that have begun may end; no new ones.
    Ending,
    /// Everything is dropped as it is.
    Over,
}

/// Starts tasks that end by themselves or when [`Phase::Over`] is reached.
///
/// It is also the executor of the HTTP/2 connections, whose streams are tasks of their own
/// that would otherwise outlive their connection.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    phases: watch::Receiver<Phase>,
    /// Dropped with the task that holds it, by which the other end sees when all have ended.
    _alive: mpsc::Sender<()>,
}

/// The other end of [`Tasks`]. Dropping it cuts them all.
pub(super) struct Control {
    phases: watch::Sender<Phase>,
    ended: mpsc::Receiver<()>,
}

/// A pair of both ends.
pub(super) fn tasks() -> (Control, Tasks) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    let (alive, ended) = mpsc::channel(1);
    (Control { phases: sender, ended }, Tasks { phases: receiver, _alive: alive })
}

impl Control {
    pub(super) fn enter(&self, phase: Phase) {
        self.phases.send_replace(phase);
    }

    /// Resolves when no task and no [`Tasks`] is left.
    pub(super) async fn ended(&mut self) {
        // Nobody sends: this returns when the last sender is gone.
        let _: Option<()> = self.ended.recv().await;
    }
}

impl Tasks {
    /// Starts one on the event loop that this is called on.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(&Handle::current(), work);
    }

    /// Starts one on that event loop.
    pub(super) fn spawn_on(
        &self,
        event_loop: &Handle,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut tasks = self.clone();
        event_loop.spawn(async move {
            let work = AssertUnwindSafe(work).catch_unwind();
            tokio::select! {
                ended = work => if let Err(panic) = ended {
                    error!(message = panic_message(&*panic), "a connection's task panicked");
                },
                () = tasks.reached(Phase::Over) => {}
            }
        });
    }

    /// Resolves when the shutdown is as far as `phase`.
    pub(super) async fn reached(&mut self, phase: Phase) {
        // An error means that the other end was dropped, which is the end as well.
        let _: Result<_, watch::error::RecvError> = self.phases.wait_for(|now| *now >= phase).await;
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, work: F) {
        self.spawn(work);
    }
}

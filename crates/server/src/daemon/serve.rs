//! Accepting connections, and shutting down.

use std::{
    convert::Infallible, future::poll_fn, io, net::SocketAddr, sync::Arc, task::Poll,
    time::Duration,
};

use axum::Router;
use rustix::net::sockopt;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tracing::{debug, error, warn};

use super::{
    ListenError, Listener, ServeOptions,
    connection::Connections,
    listener::Accepted,
    open_files,
    peer::Peer,
    tasks::{Control, Phase, Tasks, tasks},
};
use crate::event_loops::EventLoops;

/// Pause after a failed accept. What makes one fail, usually a lack of file descriptors,
/// passes only when other connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the kernel may hold that was sent to a peer on this machine. To others it is for the kernel to
/// find out how much is under way at a time. Between two processes nothing is: what a fast sender
/// piles up has only left the cache when the peer comes to read it. Linux takes no more of it than
/// `net.core.wmem_max`, often 208 KiB, and doubles that.
const SEND_BUFFER_ON_THIS_MACHINE_BYTES: usize = 512 << 10;

/// Time that tasks have to end after they were told to drop everything. They need none but
/// for what they are doing that moment.
const ABORT_WAIT: Duration = Duration::from_secs(2);

/// A server that has all that it needs, and serves nobody yet.
pub struct Server {
    acceptor: Acceptor,
    control: Control,
    options: ServeOptions,
}

impl Server {
    /// Starts the threads that will serve `router` on `listeners`.
    ///
    /// # Errors
    ///
    /// If there are no listeners, or no threads to be had.
    pub fn start(
        listeners: Vec<Listener>,
        router: Router,
        options: ServeOptions,
    ) -> Result<Self, ListenError> {
        if listeners.is_empty() {
            return Err(ListenError::NoListeners);
        }
        open_files::raise_limit();
        let (control, tasks) = tasks();
        let event_loops = EventLoops::start(options.blocking_threads)
            .map_err(|source| ListenError::Threads { source })?;
        let acceptor = Acceptor::new(listeners, router, tasks, event_loops, &options);
        Ok(Self { acceptor, control, options })
    }

    /// Serves until `shutdown` resolves. Then it stops to accept, lets the requests that have begun
    /// end for [`ServeOptions::grace`], and cuts what is left. What goes wrong concerns single
    /// connections.
    ///
    /// What handlers do on threads that may block has [`ServeOptions::blocking_grace`] to end after
    /// that; those that read pieces of NARs hold the store until they are done with the piece.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { acceptor, mut control, options } = self;
        tokio::select! {
            biased;
            () = shutdown => {}
            never = acceptor.accept_forever() => match never {},
        }
        let event_loops = acceptor.close();
        control.enter(Phase::Ending);
        if timeout(options.grace, control.ended()).await.is_err() {
            warn!(grace = ?options.grace, "cutting the transfers that are still open");
            control.enter(Phase::Over);
            if timeout(ABORT_WAIT, control.ended()).await.is_err() {
                warn!("some connections did not end");
            }
        }
        event_loops.stop(options.blocking_grace).await;
    }
}

/// [Starts](Server::start) a server, and [serves](Server::serve).
///
/// # Errors
///
/// As [`Server::start`].
pub async fn serve(
    listeners: Vec<Listener>,
    router: Router,
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ListenError> {
    Server::start(listeners, router, options)?.serve(shutdown).await;
    Ok(())
}

struct Acceptor {
    listeners: Vec<Listener>,
    connections: Arc<Connections>,
    tasks: Tasks,
    event_loops: EventLoops,
    /// One permit for each further connection.
    slots: Arc<Semaphore>,
}

impl Acceptor {
    fn new(
        listeners: Vec<Listener>,
        router: Router,
        tasks: Tasks,
        event_loops: EventLoops,
        options: &ServeOptions,
    ) -> Self {
        let connections = Arc::new(Connections::new(router, tasks.clone(), options));
        let slots = Arc::new(Semaphore::new(options.max_connections.max(1)));
        Self { listeners, connections, tasks, event_loops, slots }
    }

    /// Closes the listeners, so that nobody connects any more.
    fn close(self) -> EventLoops {
        self.event_loops
    }

    async fn accept_forever(&self) -> Infallible {
        let mut turn = 0;
        // A lasting trouble is told once, not ten times in a second.
        let mut told = false;
        loop {
            let slot = self.slot().await;
            match self.accept(&mut turn).await {
                Ok(accepted) => {
                    told = false;
                    self.start(accepted, slot);
                }
                Err(error) if is_of_the_peer(&error) => {
                    debug!(%error, "a connection was gone before it was accepted");
                }
                Err(error) => {
                    if !told {
                        warn!(%error, "cannot accept connections now, trying again");
                    }
                    told = true;
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn slot(&self) -> OwnedSemaphorePermit {
        if self.slots.available_permits() == 0 {
            debug!("as many connections as are allowed are open, new ones wait");
        }
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        slot.expect("the semaphore is never closed")
    }

    /// The next connection of any listener, each listener having its turn.
    async fn accept(&self, turn: &mut usize) -> io::Result<Accepted> {
        poll_fn(|cx| {
            for _ in 0..self.listeners.len() {
                *turn = (*turn + 1) % self.listeners.len();
                if let Poll::Ready(accepted) = self.listeners[*turn].poll_accept(cx) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }

    fn start(&self, accepted: Accepted, slot: OwnedSemaphorePermit) {
        let Some(place) = self.event_loops.place() else {
            return error!("a connection is dropped: all threads that serve them have failed");
        };
        let event_loop = place.handle().clone();
        let accepted = match accepted.moved_to(&event_loop) {
            Ok(accepted) => accepted,
            Err(error) => return warn!(%error, "a connection is dropped: it cannot be watched"),
        };
        let connections = Arc::clone(&self.connections);
        self.tasks.spawn_on(&event_loop, async move {
            match accepted {
                Accepted::Unix(stream) => connections.serve(stream, Peer::Unix).await,
                Accepted::Tcp(stream, remote) => match prepare(&stream, remote) {
                    Ok(local) => connections.serve(stream, Peer::Tcp { local, remote }).await,
                    Err(error) => debug!(%remote, %error, "a connection was gone at once"),
                },
            }
            // Both were taken until here.
            drop((place, slot));
        });
    }
}

/// Sets up an accepted stream and tells its local address.
fn prepare(stream: &TcpStream, remote: SocketAddr) -> io::Result<SocketAddr> {
    // Answers are written in whole buffers: waiting for more only delays their ends.
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    if local.ip() == remote.ip()
        && let Err(error) =
            sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER_ON_THIS_MACHINE_BYTES)
    {
        // It is only faster with it.
        debug!(%error, "cannot limit what is sent ahead");
    }
    Ok(local)
}

/// Whether accepting failed for something that the peer did, so that the next may succeed.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

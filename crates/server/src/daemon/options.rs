//! What the daemon allows a peer.

use std::time::Duration;

/// Time for the header of a request to arrive in full, and for the next request on an
/// idle HTTP/1.1 connection.
pub const DEFAULT_HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Time after which a peer that takes nothing of what it is sent is given up. Whoever pauses a
/// download for longer has to begin it again.
pub const DEFAULT_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time that requests have to end once shutdown has begun.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(4);

/// Time that work which blocks has to end once all connections are closed. With what they and the threads
/// have to end, it stays below ten seconds.
pub const DEFAULT_BLOCKING_GRACE: Duration = Duration::from_secs(1);

/// Most threads that do what takes long or waits for a disk.
pub const DEFAULT_BLOCKING_THREADS: usize = 512;

/// Most connections at one time. Further ones wait in the kernel's queue. Each takes a file
/// descriptor, of which a process usually has 1024; each core takes four more.
pub const DEFAULT_MAX_CONNECTIONS: usize = 768;

/// Most bytes of header that a request may have. The longest that a client has reason to
/// send are paths of a few hundred bytes.
pub const MAX_HEADER_BYTES: usize = 64 << 10;

/// Most header fields that a request may have over HTTP/1.1.
pub const MAX_HEADERS: usize = 100;

/// Most requests at one time on one HTTP/2 connection.
pub(super) const MAX_CONCURRENT_STREAMS: u32 = 256;

/// Silence after which an HTTP/2 peer is asked whether it is still there.
pub(super) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Time that it then has to answer.
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes that a peer may send on one HTTP/2 stream before we have read them: two of the
/// largest usual gRPC messages, so that one can arrive while another is worked on.
pub(super) const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// The same for all streams of one connection. This bounds what unread uploads can hold in
/// memory, times the connections.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Largest HTTP/2 frame that we take. A larger one costs fewer calls, but makes the other
/// streams wait for longer.
pub(super) const MAX_FRAME_BYTES: u32 = 256 << 10;

/// Bytes that one HTTP/2 stream may have waiting to be sent.
pub(super) const SEND_BUFFER_BYTES: usize = 1 << 20;

/// How the daemon treats its peers.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Whether everybody may write, not just who comes from this machine.
    pub allow_anonymous_writes: bool,
    /// See [`DEFAULT_HEADER_READ_TIMEOUT`].
    pub header_read_timeout: Duration,
    /// See [`DEFAULT_WRITE_TIMEOUT`].
    pub write_timeout: Duration,
    /// See [`DEFAULT_GRACE`].
    pub grace: Duration,
    /// See [`DEFAULT_BLOCKING_GRACE`].
    pub blocking_grace: Duration,
    /// See [`DEFAULT_BLOCKING_THREADS`]; at least 1.
    pub blocking_threads: usize,
    /// See [`DEFAULT_MAX_CONNECTIONS`]; at least 1.
    pub max_connections: usize,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            allow_anonymous_writes: false,
            header_read_timeout: DEFAULT_HEADER_READ_TIMEOUT,
            write_timeout: DEFAULT_WRITE_TIMEOUT,
            grace: DEFAULT_GRACE,
            blocking_grace: DEFAULT_BLOCKING_GRACE,
            blocking_threads: DEFAULT_BLOCKING_THREADS,
            max_connections: DEFAULT_MAX_CONNECTIONS,
        }
    }
}

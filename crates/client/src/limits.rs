//! What a client holds in memory and waits for.

use std::time::Duration;

/// Time for a connection to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence of a call after which the server is asked whether it is still there.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Time that it then has to answer.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes of one answer that the server may send before they are read.
pub const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// The same for all answers of a connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Uploads that a batch has under way at one time.
pub const MAX_UPLOADS: usize = 32;

/// Bytes of blobs that a batch has under way at one time; one blob that is larger goes
/// alone.
pub const MAX_UPLOAD_BYTES: usize = 32 << 20;

/// Blobs that a batch collects before it asks which of them the server lacks.
pub const MAX_WAITING_BLOBS: usize = 1024;

/// Bytes of blobs that it collects for that.
pub const MAX_WAITING_BYTES: usize = 8 << 20;

/// Longest blob that is collected when it is written in pieces. A longer one is sent while
/// it is written, so that no one has to hold it.
pub const MAX_WHOLE_BYTES: usize = 2 << 20;

/// Pieces of a blob that wait to be sent while it is written.
pub const MAX_WAITING_PIECES: usize = 4;

/// Blobs of a batch that it remembers, so as not to send one twice. Past that it may.
pub const MAX_REMEMBERED_BLOBS: usize = 1_000_000;

/// Longest chunk that is read as a whole. If a server has longer ones, the blob is read as
/// if it had none.
pub const MAX_CHUNK_BYTES: u64 = 16 << 20;

/// Most bytes of one thing that a server tells of a verification: a finding names all objects
/// that it concerns.
pub const MAX_INTEGRITY_EVENT_BYTES: usize = 64 << 20;

/// Longest answer about what is kept: the report of a collection of a very large store.
pub const MAX_RETENTION_ANSWER_BYTES: usize = 64 << 20;

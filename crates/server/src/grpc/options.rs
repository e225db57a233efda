//! What can be set about the gRPC services.

use std::time::Duration;

/// Connections that upload at once; more wait their turn. One of our own clients has one, and
/// up to 32 uploads on it.
const MAX_UPLOADING_CONNECTIONS: usize = 64;

/// How long a connection may send nothing of its uploads. A client may open one and then work
/// for long on what it sends in it.
const UPLOAD_IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Most bytes that uploads hold, all together: messages that have not come in full or are not
/// written yet, and directories, of which none is written before its upload has ended. These are
/// four of the largest uploads of directories, or our own client 32 times.
const MAX_HELD_UPLOAD_BYTES: usize = 1 << 30;

/// Settings of the [gRPC services](super::router_with).
#[derive(Debug, Clone)]
pub struct GrpcOptions {
    /// How many connections upload at once, at least 1; more wait.
    pub max_uploading_connections: usize,
    /// How long a connection may send nothing of its uploads before they are given up.
    pub upload_idle_timeout: Duration,
    /// Most bytes that uploads hold in memory, all together; more are refused.
    pub max_held_upload_bytes: usize,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            max_uploading_connections: MAX_UPLOADING_CONNECTIONS,
            upload_idle_timeout: UPLOAD_IDLE_TIMEOUT,
            max_held_upload_bytes: MAX_HELD_UPLOAD_BYTES,
        }
    }
}

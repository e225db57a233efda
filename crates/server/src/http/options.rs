//! What can be set about the binary cache.

use std::time::Duration;

use super::DecodeLimits;

/// Uploads that are decoded at once; more wait their turn. Nix sends up to 25 at once, and
/// each may make its decompressor take 128 MiB, although few do.
const MAX_CONCURRENT_UPLOADS: usize = 8;

/// How long a client may send nothing in the middle of a body.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Nix asks caches in the order of this number, the lowest first; cache.nixos.org says 40.
const PRIORITY: u32 = 30;

/// Settings of the [binary cache](super::router).
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// What `nix-cache-info` says as `Priority`: caches with a lower one are asked first.
    pub priority: u32,
    /// How many uploads are decoded at once; more wait.
    pub max_concurrent_uploads: usize,
    /// How long a client may send nothing in the middle of a body before it is given up.
    pub body_idle_timeout: Duration,
    /// How much an upload may grow when it is decompressed.
    pub decode_limits: DecodeLimits,
    /// How a word of the `User-Agent` of clients begins that read every frame of a zstd body,
    /// and so can be sent frames as they are stored. All others get one frame.
    pub multi_frame_clients: Vec<String>,
}

/// Checked: stock Nix 2.8 and curl read all frames.
const MULTI_FRAME_CLIENTS: [&str; 2] = ["Nix/", "curl/"];

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            priority: PRIORITY,
            max_concurrent_uploads: MAX_CONCURRENT_UPLOADS,
            body_idle_timeout: BODY_IDLE_TIMEOUT,
            decode_limits: DecodeLimits::default(),
            multi_frame_clients: MULTI_FRAME_CLIENTS.map(str::to_owned).to_vec(),
        }
    }
}

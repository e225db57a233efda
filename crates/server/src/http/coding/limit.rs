//! How much a small upload may grow into.

/// How much decompression may give. Real NARs of empty disk images do compress ten
/// thousandfold, so the ratio counts only from some size on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// This many bytes may come out whatever went in.
    pub free_bytes: u64,
    /// Beyond [`free_bytes`](Self::free_bytes), at most this many bytes may come out for
    /// each that went in.
    pub max_ratio: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { free_bytes: 16 * 1024 * 1024 * 1024, max_ratio: 1000 }
    }
}

impl DecodeLimits {
    /// How many bytes may have come out once `input_bytes` have gone in.
    pub(super) fn allowed_bytes(&self, input_bytes: u64) -> u64 {
        self.free_bytes.max(input_bytes.saturating_mul(self.max_ratio))
    }
}

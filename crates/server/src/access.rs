//! What a connection may do.

/// Put into the extensions of every request by whoever accepted its connection. A request
/// without one may only read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// Whether requests may change the store.
    pub writes: bool,
}

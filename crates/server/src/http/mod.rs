//! The HTTP binary cache.

//! The HTTP binary cache.

mod coding;

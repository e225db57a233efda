//! Reading objects back, checked.

mod object;

mod blob;
mod extent;

pub(crate) use blob::{ChunkReader, DividedReader, blob_len, list_entries};

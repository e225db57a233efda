//! Reading objects back, checked.

mod blob;
mod object;

pub(crate) use blob::{ChunkReader, DividedReader, blob_len, list_entries};

//! From blobs and directories to requests to the log: chunking, deduplication, grouping,
//! compression.

mod batch;
mod compress;
mod group;
mod open_blob;

pub(crate) use batch::EngineBatch;
pub(crate) use compress::Compressors;

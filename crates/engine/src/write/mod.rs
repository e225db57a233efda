//! From blobs and directories to requests to the log: references taken out, chunking,
//! deduplication, grouping, compression.

mod cut;
mod open_blob;

mod batch;
mod compress;
mod group;
mod raw_frame;
mod run;
mod sequence;

pub(crate) use batch::EngineBatch;
pub(crate) use compress::Compressors;

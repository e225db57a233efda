//! Store paths over castore: path infos, and NARs to and from blobs and directories.

mod path_info;
mod stats;

pub use path_info::{NarDigest, NarFacts, PathInfo, PathInfoService};
pub use stats::{StatsSource, StoreStats};

//! The log: the one thread that appends to packs.
//!
//! Whoever writes sends frames, records and commits through a bounded queue. The thread
//! gathers them into segments, syncs once for everybody who waits (group commit), and only
//! then writes the index and answers.
//!
//! # Invariants
//!
//! - Requests take effect in the order of the queue, so what an object refers to, if it was
//!   sent before, lies before it in the packs.
//! - At most one segment is written and not synced, so a crash tears at most the last.
//! - An object is in `Pending` from when its request was taken until it is in the index;
//!   whoever sees it there may refer to it: its frame lies before any later request.
//! - After a failed sync nothing is written until the store is opened anew: what the
//!   kernel then holds of the file is unknown. After a failed write the lost segment is cut
//!   off, nothing more is taken from the batches that may have relied on it, and they fail to
//!   commit.
//! - A segment is written only if the index is sure to take what is in it, which it may not be
//!   on a full disk.

mod pending;
mod request;
mod tail;

mod maintenance;
mod thread;

pub(crate) use maintenance::{Maintenance, MovedFrame};
pub(crate) use request::{LooseObject, Part, Request};
pub(crate) use tail::Tail;
pub(crate) use thread::{Log, LogStart};

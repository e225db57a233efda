//! Garbage collection: `docs/garbage-collection.md` explains it.
//!
//! [`protocol`] is what writers and the collector agree on. [`trace`] marks what roots lead to,
//! [`survey`] finds out what is left in each pack, [`plan`] says which packs go, [`rewrite`] moves
//! what is left of them, and [`collection`] puts the steps in their order. [`courtesy`] lets readers
//! go first. What changes the index goes through the log.

pub(crate) mod lease;

mod guard;
mod protocol;
#[cfg(test)]
mod simulation;

mod courtesy;
mod frames;
mod trace;

mod plan;
mod survey;

mod rewrite;

mod collection;
mod forget;

pub(crate) use guard::{Found, Guard, Running};
pub(crate) use protocol::Reliance;

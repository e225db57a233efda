//! The suites on the store in memory, the fixtures with the programs of others, and the
//! workspace itself.

mod broken;
mod fixtures;
mod memory;
mod workspace;

//! The suites on the store in memory, and the fixtures with the programs of others.

mod fixtures;
mod memory;

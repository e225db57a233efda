//! The store over the castore in memory, and against the real Nix.

mod nix;
mod support;

mod import;
mod round_trip;

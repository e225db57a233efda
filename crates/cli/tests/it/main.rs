//! The command `granary` as its users meet it: the real binary in processes of its own.

mod nix_round_trip;
mod support;

mod help;
mod json;

mod defaults;
mod errors;

mod daemon;
mod import;
mod show;
mod terminal;

mod hostile;
mod many_clients;

mod kill;
mod large;
mod recovery;

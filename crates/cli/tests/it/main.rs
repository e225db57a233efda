//! The command `granary` as its users meet it: the real binary in processes of its own.

mod http;
mod nix_round_trip;
mod support;
mod upload;

mod help;
mod json;

mod defaults;
mod errors;

mod daemon;
mod import;
mod show;
mod terminal;

mod full_disk;
mod hostile;
mod many_clients;

mod integrity;
mod kill;
mod large;
mod recovery;
mod repair;
mod retention;

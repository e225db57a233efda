//! The store over the castore in memory, and against the real Nix.

mod nix;
mod support;

mod documents;
mod import;
mod limits;
mod listings;
mod literals;
mod narinfo_uploads;
mod path_infos;
mod pieces;
mod provenance;
mod retention;
mod round_trip;
mod serving;
mod verify;

//! The command `granary`: a content-addressed store for Nix, as a daemon and as a tool.
//!
//! Here are arguments, configuration, wiring and progress, and nothing that another program
//! could want. Every command is one file in [`commands`]; what it is asked to do, it has
//! done by the other crates.
//!
//! # Invariants
//!
//! - Standard output has what was asked for and nothing else: with `--json` exactly one
//!   object. Everything said to a person goes to standard error.
//! - One function maps errors to exit codes ([`error::CliError::ending`]).

#![expect(clippy::doc_markdown, reason = "what documents arguments is the text of --help")]

mod allocator;
mod error;
mod log;
mod output;
mod progress;

mod config;
mod data_dir;

mod daemon_file;
mod integrity;
mod local_store;
mod signing_key;

mod quantity;
mod upkeep;

mod node_json;
mod read_ahead;
mod scrub;
mod target;
mod tree_path;

mod commands;

use std::process::ExitCode;

use clap::Parser as _;
use granary_castore::Chain;

use commands::Cli;

fn main() -> ExitCode {
    allocator::set_up();
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let ending = error.ending();
            eprintln!("granary: {}", Chain(&error));
            if let Some(hint) = ending.hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(ending.exit_code)
        }
    }
}

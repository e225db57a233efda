//! The commands, one file each.

mod daemon;

mod import;

mod cat;
mod info;
mod ls;
mod nar;

mod delete;
mod gc;
mod pin;
mod why;

mod recover;
mod repair;
mod stats;
mod verify;

use clap::{Parser, Subcommand};

use crate::{
    error::{self, Result},
    log::{self, Format},
    progress,
};

/// A content-addressed store for Nix
///
/// Keeps store paths small on disk and serves them fast: to stock Nix as a binary cache, and
/// to the clients of tvix-store and snix-store over gRPC.
#[derive(Debug, Parser)]
#[command(name = "granary", version, after_help = error::EXIT_CODES)]
pub(crate) struct Cli {
    /// Show no progress
    #[arg(long, short, global = true)]
    quiet: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Daemon(daemon::Args),
    Import(import::Args),
    Ls(ls::Args),
    Cat(cat::Args),
    Nar(nar::Args),
    Info(info::Args),
    Pin(pin::Args),
    Delete(delete::Args),
    Why(why::Args),
    Gc(gc::Args),
    Recover(recover::Args),
    Stats(stats::Args),
    Verify(verify::Args),
    Repair(repair::Args),
}

/// What commands other than the daemon log unless the environment says otherwise.
const DEFAULT_LOG: &str = "warn";

impl Cli {
    /// Does what the command line says.
    pub(crate) fn run(self) -> Result<()> {
        progress::set_shown(self.quiet);
        if let Command::Daemon(args) = self.command {
            // It logs as its configuration says.
            return daemon::run(args);
        }
        let default_log = match &self.command {
            // They report themselves what else would be logged.
            Command::Recover(_) | Command::Verify(_) | Command::Repair(_) => "off",
            _ => DEFAULT_LOG,
        };
        let filter = log::from_environment();
        log::start(filter.as_deref().unwrap_or(default_log), Format::Text)?;
        match self.command {
            Command::Daemon(args) => daemon::run(args),
            Command::Import(args) => import::run(&args),
            Command::Ls(args) => pipe(ls::run(&args)),
            Command::Cat(args) => pipe(cat::run(&args)),
            Command::Nar(args) => pipe(nar::run(&args)),
            Command::Info(args) => pipe(info::run(&args)),
            Command::Pin(args) => pin::run(&args),
            Command::Delete(args) => delete::run(&args),
            Command::Why(args) => pipe(why::run(&args)),
            Command::Gc(args) => gc::run(&args),
            Command::Recover(args) => recover::run(&args),
            Command::Stats(args) => pipe(stats::run(&args)),
            Command::Verify(args) => verify::run(&args),
            Command::Repair(args) => repair::run(&args),
        }
    }
}

/// For commands that only show something: whoever closed the pipe has seen enough.
fn pipe(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_closed_pipe() => Ok(()),
        result => result,
    }
}

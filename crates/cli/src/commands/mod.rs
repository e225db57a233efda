//! The commands, one file each.

mod daemon;
mod import;
mod nar;

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
    Nar(nar::Args),
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
        let filter = log::from_environment();
        log::start(filter.as_deref().unwrap_or(DEFAULT_LOG), Format::Text)?;
        match self.command {
            Command::Daemon(args) => daemon::run(args),
            Command::Import(args) => import::run(&args),
            Command::Nar(args) => nar::run(&args),
        }
    }
}

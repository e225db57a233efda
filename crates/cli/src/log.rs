//! What is logged, and how: always to standard error.

use std::{env, io};

use serde::Deserialize;
use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::error::{CliError, Result};

/// The variable that says what is logged, above the configuration and below the flag.
pub(crate) const VARIABLE: &str = "GRANARY_LOG";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// A line of text for each event.
    #[default]
    Text,
    /// A JSON object for each event.
    Json,
}

/// What the environment says is to be logged.
pub(crate) fn from_environment() -> Option<String> {
    env::var(VARIABLE).ok().filter(|filter| !filter.is_empty())
}

/// Starts to log what `filter` lets through: a level (`warn`, `info`, `debug`, ...), or
/// levels for parts, as in `info,granary_engine=debug`.
///
/// # Errors
///
/// If it is no filter.
pub(crate) fn start(filter: &str, format: Format) -> Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|error: ParseError| {
        CliError::Usage(format!("{filter:?} says not what to log: {error}"))
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        Format::Text => {
            let colours = io::IsTerminal::is_terminal(&io::stderr());
            builder.with_ansi(colours).init();
        }
        Format::Json => builder.json().init(),
    }
    Ok(())
}

//! Standard output.

use std::{
    fmt,
    io::{self, Write as _},
};

use serde::Serialize;

use crate::error::{CliError, Result};

/// Writes `line`, and a newline, at once.
pub(crate) fn line(line: impl fmt::Display) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(CliError::Output)
}

/// Writes an object on one line, at once: for who waits for it while the command goes on.
pub(crate) fn json_line(object: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(object).map_err(|error| CliError::Output(error.into()))?;
    line(text)
}

/// Writes the one object of a command that was asked for JSON.
pub(crate) fn json(object: &impl Serialize) -> Result<()> {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut stdout, object)
        .map_err(io::Error::from)
        .and_then(|()| writeln!(stdout))
        .and_then(|()| stdout.flush())
        .map_err(CliError::Output)
}

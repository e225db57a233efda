//! Why a command failed, and what that means for the exit code and for the user.

use std::{io, path::PathBuf};

use granary_castore::Error as StoreError;
use granary_engine::OpenError;
use granary_server::daemon::ListenError;
use granary_store::{ImportError, RenderError};

use crate::{config::ConfigError, signing_key::KeyFileError};

/// What every fallible function of this crate returns.
pub(crate) type Result<T, E = CliError> = std::result::Result<T, E>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The arguments contradict each other or the circumstances.
    #[error("{0}")]
    Usage(String),
    /// The store path is not in the store.
    #[error("{0}")]
    NoPath(String),
    /// There is no pin of that name.
    #[error("{0}")]
    NoPin(String),
    /// The place is not in the store path.
    #[error("{0}")]
    NoPlace(String),
    /// The store path is known, but not all of its contents are stored.
    #[error("{0}")]
    NoContents(String),
    /// There is no store where one was looked for.
    #[error("there is no store in {} yet", data_dir.display())]
    NoStore { data_dir: PathBuf },
    /// Another process holds the data directory.
    #[error("{} is in use by another granary", data_dir.display())]
    InUse {
        data_dir: PathBuf,
        /// Where the daemon that holds it can be reached, if it is one.
        daemon: Option<DaemonHint>,
    },
    /// Another version wrote the store.
    #[error("cannot use {file} in {}: {problem}", data_dir.display())]
    Incompatible { data_dir: PathBuf, file: String, problem: String },
    /// The store was opened, but part of it is damaged.
    #[error("{count} damaged {} in {}", places(*count), data_dir.display())]
    Damaged { count: usize, data_dir: PathBuf },
    /// A repair could not mend everything.
    #[error("{count} {} not be repaired", if *count == 1 { "thing could" } else { "things could" })]
    NotRepaired { count: usize },
    /// A verification found damage.
    #[error("{errors} {} found", if *errors == 1 { "error" } else { "errors" })]
    Unsound { errors: u64 },
    /// A verification could not run, or not to its end.
    #[error(transparent)]
    NotVerified(Box<CliError>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A tree could not be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The daemon cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key cannot be had.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Standard output does not take what is written to it.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The system refused something else.
    #[error("cannot {action}")]
    System { action: String, source: io::Error },
}

/// Which daemon holds a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DaemonHint {
    pub(crate) pid: u32,
    pub(crate) url: Option<String>,
}

/// How a failed command ends: its exit code and a line that says what can be done.
pub(crate) struct Ending {
    pub(crate) exit_code: u8,
    pub(crate) hint: Option<String>,
}

/// Something went wrong that has no code of its own.
const FAILURE: u8 = 1;
/// The command line or the configuration is wrong; clap uses the same.
const USAGE: u8 = 2;
/// What was asked for is not stored, or there is no store.
const NOT_FOUND: u8 = 3;
/// The data directory is in use, or of another format.
const UNUSABLE: u8 = 4;
/// Something that is stored is damaged.
const DAMAGE: u8 = 5;
/// `granary verify` found damage. It has codes of its own: whoever checks a store wants to know
/// whether it is sound, and tell that from a check that could not run.
const UNSOUND: u8 = 1;
/// `granary verify` could not run.
const NOT_VERIFIED: u8 = 2;

/// The table of exit codes in `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the disk, the network, the input, or the daemon refused
  2  the command line or the configuration is wrong
  3  not found: the path is not in the store, or there is no store
  4  the data directory is in use by another process, or of another format
  5  part of what is stored is damaged
Of verify: 0 no damage, 1 damage, 2 it could not run";

impl CliError {
    /// Maps every error to how the command ends.
    pub(crate) fn ending(&self) -> Ending {
        let (exit_code, hint) = match self {
            Self::Usage(_) => (USAGE, Some("`granary help COMMAND` explains the arguments".to_owned())),
            Self::Config(_) => (USAGE, Some("`granary help daemon` explains the options, which are the keys".to_owned())),
            Self::NoPath(_) => (NOT_FOUND, Some("--store and --data-dir choose another store".to_owned())),
            Self::NoPin(_) => (NOT_FOUND, Some("`granary pin list` lists all pins".to_owned())),
            Self::NoPlace(_) => (NOT_FOUND, Some("`granary ls -R` lists what is in a store path".to_owned())),
            Self::NoContents(_) => (NOT_FOUND, Some("a path may be put before its contents: push or import it again to complete it".to_owned())),
            Self::NoStore { .. } => (
                NOT_FOUND,
                Some("`granary import PATH` or `granary daemon` makes one; --data-dir and --store choose another".to_owned()),
            ),
            Self::InUse { daemon, .. } => (UNUSABLE, Some(in_use_hint(daemon.as_ref()))),
            Self::Incompatible { .. } => (
                UNUSABLE,
                Some("another --data-dir makes or uses another store".to_owned()),
            ),
            Self::Damaged { .. } => (DAMAGE, Some(damage_hint())),
            Self::Unsound { .. } => (
                UNSOUND,
                Some("`granary repair --from URL` fetches what is damaged from another store".to_owned()),
            ),
            Self::NotRepaired { .. } => (
                DAMAGE,
                Some("another --from may have it; what is listed can be uploaded or imported again".to_owned()),
            ),
            Self::NotVerified(error) => (NOT_VERIFIED, error.ending().hint),
            Self::Store(error) | Self::Import(ImportError::Store(error)) => store_ending(error),
            Self::Import(error) => (FAILURE, import_hint(error)),
            Self::Listen(_) | Self::Output(_) | Self::System { .. } => (FAILURE, None),
            Self::Key(error) => (FAILURE, error.hint()),
        };
        Ending { exit_code, hint }
    }

    /// An error of opening the store in `data_dir`.
    pub(crate) fn open(error: OpenError, data_dir: &std::path::Path) -> Self {
        let data_dir = data_dir.to_owned();
        match error {
            OpenError::InUse { .. } => {
                let daemon = crate::daemon_file::running(&data_dir).map(|daemon| DaemonHint {
                    pid: daemon.pid,
                    url: daemon.listen.first().cloned(),
                });
                Self::InUse { data_dir, daemon }
            }
            OpenError::Incompatible { file, problem } => {
                Self::Incompatible { data_dir, file, problem }
            }
            OpenError::Failed(error) => Self::Store(error),
        }
    }

    /// For `map_err` on what a verification needs.
    pub(crate) fn not_verified(error: Self) -> Self {
        Self::NotVerified(Box::new(error))
    }

    /// For `map_err` on a call to the system.
    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }

    /// Whether standard output was closed by whoever read it.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<RenderError> for CliError {
    fn from(error: RenderError) -> Self {
        match error {
            RenderError::Sink(error) => Self::Output(error),
            RenderError::Store(error) => Self::Store(error),
        }
    }
}

fn places(count: usize) -> &'static str {
    if count == 1 { "place" } else { "places" }
}

fn in_use_hint(daemon: Option<&DaemonHint>) -> String {
    match daemon {
        Some(DaemonHint { pid, url: Some(url) }) => {
            format!(
                "the daemon with process id {pid} holds it: talk to it with --store {url}, stop it, or give another --data-dir"
            )
        }
        Some(DaemonHint { pid, url: None }) => {
            format!(
                "the daemon with process id {pid} holds it: stop it, or give another --data-dir"
            )
        }
        None => "wait until it has ended, stop it, or give another --data-dir".to_owned(),
    }
}

fn damage_hint() -> String {
    "what is damaged is never served; import or push it again, and check the disk".to_owned()
}

fn store_ending(error: &StoreError) -> (u8, Option<String>) {
    match error {
        StoreError::Corrupt(_) => (DAMAGE, Some(damage_hint())),
        StoreError::Denied(_) => (
            FAILURE,
            Some("it takes writes over loopback addresses and Unix sockets only, unless it was started with --allow-anonymous-writes".to_owned()),
        ),
        StoreError::Invalid(_) | StoreError::TooLarge(_) | StoreError::Unavailable(_) => {
            (FAILURE, None)
        }
    }
}

fn import_hint(error: &ImportError) -> Option<String> {
    match error {
        ImportError::NoName { .. } | ImportError::Name(_) => {
            Some("--name gives it another name: letters, digits and + - . _ ? =".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_acts_on_has_a_code_of_its_own() {
        let code = |error: CliError| error.ending().exit_code;
        assert_eq!(code(CliError::Usage(String::new())), 2);
        assert_eq!(code(CliError::NoPath(String::new())), 3);
        assert_eq!(code(CliError::NoStore { data_dir: PathBuf::new() }), 3);
        assert_eq!(code(CliError::InUse { data_dir: PathBuf::new(), daemon: None }), 4);
        assert_eq!(code(StoreError::corrupt("x").into()), 5);
        assert_eq!(code(StoreError::unavailable("x").into()), 1);
        let import = CliError::Import(ImportError::Store(StoreError::corrupt("x")));
        assert_eq!(code(import), 5);
    }
}

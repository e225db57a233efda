//! Why tables cannot be read or written.

use std::{
    io::{self, ErrorKind},
    path::Path,
    sync::Arc,
};

/// Why tables cannot be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The operating system refuses it, for now perhaps.
    #[error("cannot {operation} {name}")]
    Io {
        /// What was tried: "open", "write".
        operation: &'static str,
        /// On which file or directory.
        name: String,
        /// What the operating system said.
        #[source]
        cause: Arc<io::Error>,
    },
    /// A file is not what was written, or is not there.
    #[error("{name} is damaged: {problem}")]
    Damaged {
        /// Which file.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Error {
    pub(crate) fn damaged(path: &Path, damage: Damage) -> Self {
        Self::Damaged { name: path.display().to_string(), problem: damage.0 }
    }
}

/// What is wrong with some bytes; whose they are is known further up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) &'static str);

/// Makes an error of what the operating system said while something was to be read that must be
/// there.
pub(crate) fn unreadable<E: Into<io::Error>>(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> Error {
    move |cause| {
        let cause = cause.into();
        match cause.kind() {
            ErrorKind::NotFound
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidInput => {
                Error::damaged(path, Damage("it is not there, or no file"))
            }
            _ => failed(operation, path)(cause),
        }
    }
}

/// Makes an error of what the operating system said.
pub(crate) fn failed<E: Into<io::Error>>(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> Error + use<E> {
    let name = path.display().to_string();
    move |cause| Error::Io { operation, name, cause: Arc::new(cause.into()) }
}

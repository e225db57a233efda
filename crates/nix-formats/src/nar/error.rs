//! What can be wrong with a NAR, or with the calls that write one.

use std::io;

use super::{MAX_DEPTH, MAX_FILE_BYTES, MAX_NAME_BYTES, MAX_TARGET_BYTES};

/// Why reading or writing a NAR failed. Offsets count the NAR's bytes from 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source could not be read, or the sink not written.
    #[error("NAR input or output failed")]
    Io(#[from] io::Error),
    /// The input ends before the archive does.
    #[error("NAR is truncated: it ends at byte {offset}, inside the archive")]
    Truncated {
        /// How many bytes there are.
        offset: u64,
    },
    /// The input is not a NAR, or the calls to a writer do not make one.
    #[error("NAR is not valid at byte {offset}: {reason}")]
    Invalid {
        /// Where the string or literal begins that is wrong, to eight bytes.
        offset: u64,
        /// What is wrong with it.
        reason: Reason,
    },
}

/// What is wrong with a NAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// It does not begin as each NAR does.
    #[error("the magic string \"nix-archive-1\" is missing")]
    Magic,
    /// Another string than the grammar allows here.
    #[error("expected {expected}")]
    Token {
        /// What the grammar allows.
        expected: &'static str,
    },
    /// The marker `executable` is followed by something else than an empty string.
    #[error("the string after \"executable\" is not empty")]
    ExecutableMarker,
    /// The bytes that fill a string up to a multiple of eight are not zeros.
    #[error("padding that is not zero")]
    Padding,
    /// A name that is empty.
    #[error("empty name of a directory entry")]
    NameEmpty,
    /// A name over [`MAX_NAME_BYTES`].
    #[error("name of a directory entry with {len} bytes, over the limit of {MAX_NAME_BYTES}")]
    NameTooLong {
        /// The length it has or claims.
        len: u64,
    },
    /// A name that is `.` or `..`.
    #[error("directory entry named \".\" or \"..\"")]
    NameDots,
    /// A name with a slash or NUL in it.
    #[error("name of a directory entry with a slash or a NUL in it")]
    NameBytes,
    /// A name that does not sort after the one before it.
    #[error("directory entry that does not sort after the one before it")]
    NameOrder,
    /// A name twice in a directory.
    #[error("directory entry with the same name as the one before it")]
    NameTwice,
    /// A symlink target that is empty.
    #[error("empty symlink target")]
    TargetEmpty,
    /// A symlink target over [`MAX_TARGET_BYTES`].
    #[error("symlink target with {len} bytes, over the limit of {MAX_TARGET_BYTES}")]
    TargetTooLong {
        /// The length it has or claims.
        len: u64,
    },
    /// A symlink target with a NUL in it.
    #[error("symlink target with a NUL in it")]
    TargetBytes,
    /// A file over [`MAX_FILE_BYTES`].
    #[error("file with {size} bytes, over the limit of {MAX_FILE_BYTES}")]
    FileTooLarge {
        /// The size it claims.
        size: u64,
    },
    /// Directories nested deeper than [`MAX_DEPTH`].
    #[error("directories nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// Something behind the end of the archive.
    #[error("bytes after the end of the archive")]
    TrailingBytes,
    /// A reader or writer was used again after it failed.
    #[error("used again after an error")]
    AfterError,
    /// A writer was called in an order that makes no archive.
    #[error("{call} was called where {expected} is due")]
    Call {
        /// The method called.
        call: &'static str,
        /// What must come here.
        expected: &'static str,
    },
    /// A writer was given more bytes of a file than its header says, or fewer.
    #[error("file contents of another length than the file's header says")]
    FileLength,
}

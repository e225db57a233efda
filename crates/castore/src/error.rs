//! The one error of the service traits: variants are what a caller acts on.

use std::{fmt, sync::Arc};

/// What the service traits return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a service could not do what it was asked to. That something is not there is no
/// error: the services answer `Ok(None)`.
///
/// Cloning is cheap, so that one failed sync can be told to everybody who waited for it.
#[derive(Debug, Clone)]
pub enum Error {
    /// The caller gave something that breaks the rules; asking again will not help.
    Invalid(Detail),
    /// The caller's input passes a named limit.
    TooLarge(Detail),
    /// What is stored does not have the digest or the checksum it is stored under. It is
    /// never served.
    Corrupt(Detail),
    /// The store cannot do it now: disk full, I/O error, network down, shutting down.
    Unavailable(Detail),
    /// The caller may not do this.
    Denied(Detail),
}

/// A message and, if there is one, the cause behind it.
#[derive(Clone)]
pub struct Detail {
    message: Arc<str>,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// See [`Error::Invalid`]. `message` says what is wrong with what.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(Detail::new(message.into()))
    }

    /// See [`Error::TooLarge`]. `message` names the limit.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::TooLarge(Detail::new(message.into()))
    }

    /// See [`Error::Corrupt`]. `message` says what is damaged and where it lies.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::Corrupt(Detail::new(message.into()))
    }

    /// See [`Error::Unavailable`]. `message` says what failed on what.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable(Detail::new(message.into()))
    }

    /// See [`Error::Denied`]. `message` says what would allow it.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::Denied(Detail::new(message.into()))
    }

    /// The same error with its cause, for [`source`](std::error::Error::source).
    #[must_use]
    pub fn because(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.detail_mut().cause = Some(Arc::new(cause));
        self
    }

    /// The same error with what was being done put before its message.
    #[must_use]
    pub fn while_doing(mut self, context: impl fmt::Display) -> Self {
        let detail = self.detail_mut();
        detail.message = format!("{context}: {}", detail.message).into();
        self
    }

    fn detail(&self) -> &Detail {
        match self {
            Self::Invalid(detail)
            | Self::TooLarge(detail)
            | Self::Corrupt(detail)
            | Self::Unavailable(detail)
            | Self::Denied(detail) => detail,
        }
    }

    fn detail_mut(&mut self) -> &mut Detail {
        match self {
            Self::Invalid(detail)
            | Self::TooLarge(detail)
            | Self::Corrupt(detail)
            | Self::Unavailable(detail)
            | Self::Denied(detail) => detail,
        }
    }
}

impl Detail {
    fn new(message: String) -> Self {
        Self { message: message.into(), cause: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail().message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.detail().cause.as_ref().map(|cause| &**cause as _)
    }
}

impl fmt::Debug for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detail")
            .field("message", &self.message)
            .field("cause", &self.cause)
            .finish()
    }
}

/// Displays an error with all its causes on one line, `what: why: why`: for the edges,
/// where a person or a log reads it.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, io};

    use super::*;

    #[test]
    fn keeps_the_cause_out_of_the_message() {
        let error = Error::unavailable("cannot write pack 7")
            .because(io::Error::other("no space left"))
            .while_doing("storing a blob");
        assert_eq!(error.to_string(), "storing a blob: cannot write pack 7");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("no space left"));
        assert_eq!(Chain(&error).to_string(), "storing a blob: cannot write pack 7: no space left");
    }
}

//! gRPC statuses as errors.

use std::error::Error as _;

use granary_castore::{Chain, Error};
use granary_proto::FieldError;
use tonic::{Code, Status};

/// The error of a status that a call ended with while doing something. This is the only
/// place that decides.
pub(crate) fn to_error(doing: &str, status: &Status) -> Error {
    let said = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    let message = format!("{doing}: {said}");
    let error = match status.code() {
        Code::InvalidArgument
        | Code::OutOfRange
        | Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::NotFound
        | Code::Unimplemented => Error::invalid(message),
        Code::ResourceExhausted => Error::too_large(message),
        Code::DataLoss => Error::corrupt(message),
        Code::PermissionDenied | Code::Unauthenticated => Error::denied(message),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable => Error::unavailable(message),
    };
    match status.source() {
        Some(source) => error.because(Transport(Chain(source).to_string())),
        None => error,
    }
}

/// What went wrong below gRPC. The status lends its cause only.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Transport(String);

/// The error of an answer that breaks a rule of the wire.
pub(crate) fn bad_answer(doing: &str, error: FieldError) -> Error {
    Error::corrupt(format!("{doing}: the answer of the server breaks a rule")).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stay_apart() {
        let kind = |code| match to_error("storing", &Status::new(code, "why")) {
            Error::Invalid(_) => "invalid",
            Error::TooLarge(_) => "too large",
            Error::Corrupt(_) => "corrupt",
            Error::Unavailable(_) => "unavailable",
            Error::Denied(_) => "denied",
        };
        assert_eq!(kind(Code::InvalidArgument), "invalid");
        assert_eq!(kind(Code::ResourceExhausted), "too large");
        assert_eq!(kind(Code::DataLoss), "corrupt");
        assert_eq!(kind(Code::Unavailable), "unavailable");
        assert_eq!(kind(Code::PermissionDenied), "denied");
        // Whatever is not known to be final may be tried again.
        assert_eq!(kind(Code::Unknown), "unavailable");
    }

    #[test]
    fn says_what_was_being_done() {
        let error = to_error("storing a blob", &Status::unavailable("disk full"));
        assert_eq!(error.to_string(), "storing a blob: disk full");
        let error = to_error("storing a blob", &Status::internal(""));
        assert_eq!(error.to_string(), "storing a blob: Internal error");
        let caused = Status::from_error(Box::new(std::io::Error::other("reset")));
        let error = to_error("storing a blob", &caused);
        assert!(error.source().is_some(), "{error:?}");
    }
}

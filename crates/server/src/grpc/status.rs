//! Errors as gRPC statuses.

use granary_castore::{Chain, Error};
use granary_proto::FieldError;
use tonic::{Code, Status};

/// The status of an error of the service traits. This is the only place that decides.
pub(super) fn of_error(error: &Error) -> Status {
    let message = Chain(error).to_string();
    match error {
        Error::Invalid(_) => Status::invalid_argument(message),
        Error::TooLarge(_) => Status::resource_exhausted(message),
        Error::Corrupt(_) => {
            tracing::error!("{message}");
            Status::data_loss(message)
        }
        Error::Unavailable(_) => {
            tracing::warn!("{message}");
            Status::unavailable(message)
        }
        Error::Denied(_) => Status::permission_denied(message),
    }
}

/// The status of a message that breaks a rule.
pub(super) fn of_field(error: &FieldError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// The status of a message that could not be received. tonic calls one above its limit out
/// of range, but what ran out is the space for it.
pub(super) fn of_receiving(message: &'static str, status: Status) -> Status {
    if status.code() == Code::OutOfRange {
        Status::resource_exhausted(format!("{message}: {}", status.message()))
    } else {
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_its_code() {
        for (error, code) in [
            (Error::invalid("x"), Code::InvalidArgument),
            (Error::too_large("x"), Code::ResourceExhausted),
            (Error::corrupt("x"), Code::DataLoss),
            (Error::unavailable("x"), Code::Unavailable),
            (Error::denied("x"), Code::PermissionDenied),
        ] {
            let status = of_error(&error.because(std::io::Error::other("why")));
            assert_eq!((status.code(), status.message()), (code, "x: why"));
        }
    }
}

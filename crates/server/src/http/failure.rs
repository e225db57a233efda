//! From errors to HTTP: the one place.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use granary_castore::{Chain, Error};
use granary_store::{IngestError, NarInfoRejection};

use super::coding::{DecodeError, EncodeError};

/// A status and a text that says why, for whoever reads the client's error message.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    message: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A failure with an error and all its causes as its text.
    pub(super) fn of(status: StatusCode, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(status, Chain(error).to_string())
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Invalid(_) => StatusCode::BAD_REQUEST,
            Error::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Error::Corrupt(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Denied(_) => StatusCode::FORBIDDEN,
        };
        Self::of(status, &error)
    }
}

impl From<IngestError> for Failure {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Store(error) => error.into(),
            // Not the store: what was sent is wrong, or does not arrive.
            IngestError::Malformed(_) | IngestError::Read(_) => {
                Self::of(StatusCode::BAD_REQUEST, &error)
            }
        }
    }
}

impl From<NarInfoRejection> for Failure {
    fn from(rejection: NarInfoRejection) -> Self {
        let status = match rejection {
            NarInfoRejection::Store(error) => return error.into(),
            // These are mended by sending something else first.
            NarInfoRejection::UnknownNar { .. } | NarInfoRejection::MissingReference { .. } => {
                StatusCode::CONFLICT
            }
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::of(status, &rejection)
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        let status = match error {
            DecodeError::Unknown => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            DecodeError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            DecodeError::Damaged { .. } => StatusCode::BAD_REQUEST,
        };
        Self::of(status, &error)
    }
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Self {
        Self::of(StatusCode::INTERNAL_SERVER_ERROR, &error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::error!(status = self.status.as_u16(), "{}", self.message);
        } else if self.status != StatusCode::NOT_FOUND {
            tracing::debug!(status = self.status.as_u16(), "{}", self.message);
        }
        let mut text = self.message;
        text.push('\n');
        let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
        (self.status, [(header::CONTENT_TYPE, content_type)], text).into_response()
    }
}

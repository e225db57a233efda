//! Listening, accepting, shutting down.

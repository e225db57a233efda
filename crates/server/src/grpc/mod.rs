//! The gRPC services, under both sets of names.

//! The daemon as its clients see it.

mod daemon;
mod grpc;
mod http;

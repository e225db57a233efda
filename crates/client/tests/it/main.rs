//! The client against servers in the same process: ours, and some that misbehave.

mod servers;

mod conformance;
mod connecting;
mod foreign;
mod giving_up;
mod integrity;

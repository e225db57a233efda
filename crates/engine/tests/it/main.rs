//! Tests of the engine through its public face.

mod conformance;
mod crash;
mod damage;
mod limits;
mod model;
mod reopen;
mod support;
mod visibility;

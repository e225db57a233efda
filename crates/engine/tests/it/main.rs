//! Tests of the engine through its public face.

mod behind;
mod collect;
mod collect_crash;
mod conformance;
mod crash;
mod damage;
mod extents;
mod limits;
mod model;
mod references;
mod reopen;
mod sequences;
mod support;
mod visibility;

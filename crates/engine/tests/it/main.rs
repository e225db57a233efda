//! Tests of the engine through its public face.

mod behind;
mod collect;
mod collect_crash;
mod conformance;
mod crash;
mod damage;
mod extents;
mod full_disk;
mod helpers;
mod index_files;
mod limits;
mod model;
mod random_damage;
mod read_faults;
mod references;
mod reopen;
mod sequences;
mod support;
mod verify;
mod visibility;
mod workload;

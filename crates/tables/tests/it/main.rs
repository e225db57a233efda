//! Tables as whoever uses them sees them.

mod damage;
mod files;
mod model;
mod small_disk;
mod support;

//! Store paths over castore: path infos, and NARs to and from blobs and directories.
//!
//! [`Store`] puts the two sides of a store together, the castore with the contents and the
//! records with everything else: path infos, NAR hashes, uploads from Nix, documents. A NAR
//! is never stored: [`NarPlan`] says what it is made of, [`ingest_nar`] takes it apart, and
//! [`ingest_path`] does the same with a tree in the file system.
//!
//! This crate speaks no protocol and runs no daemon; it is synchronous, and whoever is not
//! calls it from a thread that may block. The castore knows nothing of what is here: it
//! sees opaque records ([`kinds`]).
//!
//! # Invariants
//!
//! - A NAR digest is kept for a node only if the whole NAR was read or written with it, so
//!   that finding the record is proof of size and hash.
//! - [`Store::served`] gives a path to Nix only with a size and hash proved that way.
//! - Every write of a record goes through the [`Store`], and shows in the [`Provenance`] of
//!   what was made of the record before.
//! - What comes from outside is bounded before it is kept in memory: [`MAX_TREE_ENTRIES`],
//!   [`MAX_PLAN_BYTES`], [`MAX_OPEN_ENTRIES`], [`MAX_WHOLE_FILE_BYTES`].
//! - Nothing here recurses along a tree: its depth costs memory, never the stack.

mod path_info;
mod stats;

pub mod kinds;
mod record_value;
mod tracked_records;
mod uses;

mod nar_digest_record;
mod node_record;
mod path_info_record;

mod nar_cursor;
mod nar_pieces;
mod nar_plan;
mod plan_cache;
mod tree_walk;

mod listing;

mod hashed_source;
mod ingest;
mod nar_hasher;
mod recycler;
mod tree_builder;

mod import;

mod store;

mod document;
mod narinfo_upload;
mod served;
mod upload;

mod retention;

mod doubt;
mod integrity;
mod repair;
mod verify;

pub use document::{Document, DocumentKind};
pub use import::{ImportError, ImportObserver, import_path, ingest_path};
pub use ingest::{IngestError, IngestedNar, MAX_WHOLE_FILE_BYTES, ingest_nar};
pub use integrity::{
    DamagedObject, Finding, IntegritySource, PackPlace, QuarantineRequest, Quarantined,
    VerifyCounts, VerifyObserver, VerifyOptions, VerifyPhase, VerifyProgress, VerifyReport,
};
pub use nar_pieces::{NarPiece, NarPieces, PIECE_BYTES, StoredBytes};
pub use nar_plan::{MAX_PLAN_BYTES, NarPlan, PlannedBlob, RenderError};
pub use narinfo_upload::NarInfoRejection;
pub use path_info::{NarDigest, NarFacts, PathInfo, PathInfoService};
pub use plan_cache::MAX_CACHED_PLAN_BYTES;
pub use repair::{
    NarSource, OfferedNar, RepairObserver, RepairReport, RepairSource, RepairTarget, repair,
};
pub use retention::{
    DeleteOptions, Deleted, GcObserver, GcOptions, GcReport, GcStage, Keeper, LocalRetention,
    MAX_PIN_NAME_BYTES, Package, Pin, PinTarget, Retention, Why,
};
pub use served::ServedPath;
pub use stats::{StatsSource, StoreStats};
pub use store::{Store, StoreOptions};
pub use tracked_records::Provenance;
pub use tree_builder::MAX_OPEN_ENTRIES;
pub use tree_walk::MAX_TREE_ENTRIES;
pub use upload::{TOUCH_INTERVAL_S, UploadedNar};
pub use verify::{PathsReport, Unreadable};

//! What opening a store came upon.

use std::path::PathBuf;

use granary_castore::Error;

use crate::packs::PackId;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another granary", data_dir.display())]
    InUse {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// It was written by another version, or under other rules.
    #[error("cannot use {file}: {problem}")]
    Incompatible {
        /// The file that says so.
        file: String,
        /// What is different, and what to do.
        problem: String,
    },
    /// It could not be read or written.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// How far replay or rebuilding has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of packs that were gone through.
    pub done_bytes: u64,
    /// Bytes of packs in all.
    pub total_bytes: u64,
}

/// What opening found and did.
#[derive(Debug, Clone, Default)]
pub struct OpenReport {
    /// Whether the index was missing or broken or unwanted, and built anew.
    pub rebuilt_index: bool,
    /// Segments that were put into the index.
    pub replayed_segments: u64,
    /// Torn writes that were cut off the end of a pack. Nothing that was acknowledged is
    /// among them.
    pub cut_tails: Vec<CutTail>,
    /// Damage: bytes that should be there and valid, and are not.
    pub damage: Vec<Damage>,
    /// Why the list of dead objects cannot be used, if so. If the index is then built anew, what
    /// was collected and not swept comes back, and may refer to what is gone.
    pub dead_list_problem: Option<String>,
}

/// The end of a pack that a crash left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutTail {
    /// The pack.
    pub pack: PackId,
    /// Where it was cut.
    pub offset: u64,
    /// How long the end was.
    pub len: u64,
    /// The file in the data directory that keeps it.
    pub kept_in: String,
}

/// A damaged part of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The pack.
    pub pack: PackId,
    /// Where the damage begins.
    pub offset: u64,
    /// What is wrong.
    pub problem: String,
}

impl OpenReport {
    /// How many places are damaged.
    pub fn damage_count(&self) -> usize {
        self.damage.len() + usize::from(self.dead_list_problem.is_some())
    }

    pub(super) fn log(&self) {
        if self.rebuilt_index && self.replayed_segments > 0 {
            tracing::info!(segments = self.replayed_segments, "built the index anew");
        } else if self.replayed_segments > 0 {
            tracing::info!(segments = self.replayed_segments, "brought the index up to date");
        }
        for CutTail { pack, offset, len, kept_in } in &self.cut_tails {
            tracing::warn!(
                %pack, offset, len, kept_in,
                "cut off a write that a crash had torn; nothing acknowledged was in it"
            );
        }
        if let Some(problem) = &self.dead_list_problem {
            tracing::error!(problem, "the list of dead objects cannot be used");
        }
        for Damage { pack, offset, problem } in &self.damage {
            tracing::error!(%pack, offset, problem, "a pack is damaged; the damage is not served");
        }
    }
}

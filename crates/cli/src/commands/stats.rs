//! `granary stats`

use granary_store::StoreStats;
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;

use crate::{
    error::Result,
    output,
    target::{Missing, Target, TargetArgs},
};

/// Show how much is stored, and in how much space
///
/// Logical bytes are the NARs of all store paths; unique bytes remain of them when nothing
/// is kept twice; stored bytes are those on the disk. A daemon that has very many store
/// paths sums them only now and then.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    path_infos: u64,
    directories: u64,
    blobs: u64,
    chunks: u64,
    patched_chunks: u64,
    packs: u64,
    logical_bytes: u64,
    unique_bytes: u64,
    stored_bytes: u64,
    deduplication_ratio: Option<f64>,
    compression_ratio: Option<f64>,
    total_ratio: Option<f64>,
    damaged_objects: u64,
    format_version: u32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let target = Target::open(&args.target, Missing::Refuse)?;
    let object = Object::new(&target.stats()?);
    if args.json { output::json(&object) } else { object.print() }
}

impl Object {
    fn new(stats: &StoreStats) -> Self {
        Self {
            path_infos: stats.path_infos,
            directories: stats.directories,
            blobs: stats.blobs,
            chunks: stats.chunks,
            patched_chunks: stats.patched_chunks,
            packs: stats.packs,
            logical_bytes: stats.logical_bytes,
            unique_bytes: stats.unique_bytes,
            stored_bytes: stats.stored_bytes,
            deduplication_ratio: ratio(stats.logical_bytes, stats.unique_bytes),
            compression_ratio: ratio(stats.unique_bytes, stats.stored_bytes),
            total_ratio: ratio(stats.logical_bytes, stats.stored_bytes),
            damaged_objects: stats.damaged_objects,
            format_version: stats.format_version,
        }
    }

    fn print(&self) -> Result<()> {
        let count = |name: &str, count: u64| {
            output::line(format_args!("{name:<16}{:>16}", HumanCount(count).to_string()))
        };
        let bytes = |name: &str, bytes: u64, ratio: Option<f64>| {
            let ratio = ratio.map(|ratio| format!("{ratio:>8.2} : 1")).unwrap_or_default();
            let bytes = BinaryBytes(bytes).to_string();
            output::line(format!("{name:<16}{bytes:>16}{ratio}").trim_end())
        };
        count("store paths", self.path_infos)?;
        count("directories", self.directories)?;
        count("blobs", self.blobs)?;
        count("chunks", self.chunks)?;
        count("patched chunks", self.patched_chunks)?;
        count("packs", self.packs)?;
        bytes("logical", self.logical_bytes, None)?;
        bytes("unique", self.unique_bytes, self.deduplication_ratio)?;
        bytes("stored", self.stored_bytes, self.total_ratio)?;
        if self.damaged_objects > 0 {
            count("damaged", self.damaged_objects)?;
        }
        Ok(())
    }
}

/// How many times as large `larger` is; `None` where there is nothing to compare with.
#[expect(clippy::cast_precision_loss, reason = "nobody reads more than a few digits")]
fn ratio(larger: u64, smaller: u64) -> Option<f64> {
    (larger > 0 && smaller > 0).then(|| larger as f64 / smaller as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios() {
        assert_eq!(ratio(6, 4), Some(1.5));
        assert_eq!(ratio(6, 0), None);
        assert_eq!(ratio(0, 4), None);
    }
}

//! `granary gc`

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use granary_store::{GcObserver, GcOptions, GcReport, GcStage};
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;

use crate::{
    error::Result,
    output,
    progress::Progress,
    quantity,
    target::{Missing, Target, TargetArgs},
};

/// Packages that are listed for people.
const LISTED_PACKAGES: usize = 20;

/// Remove what nothing keeps
///
/// A store path is kept if it is pinned, was used or uploaded within the time of --keep-for, or is
/// referred to by one that is kept. All others go, and their space is free when this ends. Reads
/// and uploads go on meanwhile.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only say what would go, and how much space that would free
    #[arg(long, short = 'n')]
    dry_run: bool,

    /// Keep what was used or uploaded within this time, as in 90d: a number and s, m, h, d or w
    ///
    /// The default is that of the daemon, else 90d.
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    keep_for: Option<Duration>,

    /// Let the least recently used paths go as well until all packs have at most this size, as in
    /// 500G
    ///
    /// What is pinned is kept all the same. The default is that of the daemon, else no limit.
    #[arg(long, value_name = "SIZE", value_parser = quantity::size_limit)]
    max_size: Option<u64>,

    /// Leave at most so many percent of the space unused
    ///
    /// Less costs more copying. The default is that of the daemon, else 8.
    #[arg(long, value_name = "PERCENT", value_parser = quantity::permille)]
    max_unused: Option<u32>,

    /// Copy at most this much in a second, as in 50M
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    bandwidth: Option<u64>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    dry_run: bool,
    kept_paths: u64,
    removed_paths: u64,
    packages: Vec<PackageJson>,
    expired_pins: u64,
    removed_objects: u64,
    stored_bytes_before: u64,
    stored_bytes_after: u64,
    freed_bytes: u64,
    unused_bytes_after: u64,
    copied_bytes: u64,
    removed_packs: u64,
    damaged_packs: u64,
}

#[derive(Serialize)]
struct PackageJson {
    name: String,
    paths: u64,
    bytes: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let target = Target::open(&args.target, Missing::Refuse)?;
    let options = GcOptions {
        dry_run: args.dry_run,
        keep_for: args.keep_for,
        max_stored_bytes: args.max_size,
        max_unused_permille: args.max_unused,
        bytes_per_s: args.bandwidth,
    };
    let stages = Stages::default();
    let report = target.retention().collect_garbage(&options, &stages)?;
    drop(stages);
    let object = Object::from(report);
    if args.json {
        output::json(&object)?;
    } else {
        object.print()?;
    }
    target.close()
}

/// Shows the progress of each stage.
#[derive(Default)]
struct Stages(Mutex<Option<(GcStage, Progress)>>);

impl GcObserver for Stages {
    fn progress(&self, stage: GcStage, done: u64, total: u64) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|(before, _)| *before != stage) {
            // The line of the stage before goes first.
            *current = None;
            let progress = match stage {
                GcStage::Marking => Progress::count_of("finding what is kept, paths"),
                GcStage::Surveying => Progress::count_of("looking at packs"),
                GcStage::Copying => Progress::bytes_of("making space"),
            };
            *current = Some((stage, progress));
        }
        if let Some((_, progress)) = &*current {
            progress.set(done, total);
        }
    }
}

impl From<GcReport> for Object {
    fn from(report: GcReport) -> Self {
        let packages = report.packages.into_iter().map(|package| PackageJson {
            name: package.name,
            paths: package.paths,
            bytes: package.bytes,
        });
        Self {
            dry_run: report.dry_run,
            kept_paths: report.kept_paths,
            removed_paths: report.removed_paths,
            packages: packages.collect(),
            expired_pins: report.expired_pins,
            removed_objects: report.removed_objects,
            stored_bytes_before: report.stored_bytes_before,
            stored_bytes_after: report.stored_bytes_after,
            freed_bytes: report.stored_bytes_before.saturating_sub(report.stored_bytes_after),
            unused_bytes_after: report.unused_bytes_after,
            copied_bytes: report.copied_bytes,
            removed_packs: report.removed_packs,
            damaged_packs: report.damaged_packs,
        }
    }
}

impl Object {
    fn print(&self) -> Result<()> {
        let would = if self.dry_run { "would be " } else { "" };
        for package in self.packages.iter().take(LISTED_PACKAGES) {
            output::line(format_args!(
                "{:>12} {:>6}  {}",
                BinaryBytes(package.bytes).to_string(),
                HumanCount(package.paths).to_string(),
                package.name
            ))?;
        }
        if let Some(more) =
            self.packages.len().checked_sub(LISTED_PACKAGES).filter(|more| *more > 0)
        {
            output::line(format_args!("{:>12} {:>6}  and {more} packages more", "", ""))?;
        }
        let paths = |count: u64| {
            let noun = if count == 1 { "store path" } else { "store paths" };
            format!("{} {noun}", HumanCount(count))
        };
        output::line(format_args!(
            "{} {would}removed, {} kept",
            paths(self.removed_paths),
            paths(self.kept_paths)
        ))?;
        output::line(format_args!(
            "{} {would}free: {} before, {} after",
            BinaryBytes(self.freed_bytes),
            BinaryBytes(self.stored_bytes_before),
            BinaryBytes(self.stored_bytes_after)
        ))?;
        if self.unused_bytes_after > 0 {
            output::line(format_args!(
                "{} of it are unused and left; --max-unused says how much may be",
                BinaryBytes(self.unused_bytes_after)
            ))?;
        }
        if self.damaged_packs > 0 {
            output::line(format_args!(
                "{} packs are damaged and were left alone",
                HumanCount(self.damaged_packs)
            ))?;
        }
        Ok(())
    }
}

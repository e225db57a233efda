//! `granary recover`

use std::path::{Path, PathBuf};

use granary_engine::OpenReport;
use indicatif::HumanCount;
use serde::Serialize;

use crate::{
    data_dir,
    error::{CliError, DaemonHint, Result},
    local_store::{self, EngineSettings},
    output, target,
};

/// Build the index anew from the packs, and check them
///
/// Only the contents of packs count; an index that is broken or missing is replaced. Reports
/// what a crash left behind and what is damaged, and ends with exit code 5 if there is
/// damage. No other process may hold the data directory.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data directory of the store
    ///
    /// The default is that of GRANARY_DATA_DIR, else /var/lib/granary for root, else
    /// $XDG_DATA_HOME/granary, else ~/.local/share/granary.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    data_dir: String,
    packs: u64,
    segments: u64,
    cut_tails: Vec<CutTailJson>,
    damage: Vec<DamageJson>,
    /// Why the list of dead objects cannot be used, if so.
    dead_list_problem: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CutTailJson {
    pack: String,
    offset: u64,
    length: u64,
    kept_in: String,
}

#[derive(Serialize)]
struct DamageJson {
    pack: String,
    offset: u64,
    problem: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let data_dir = match &args.data_dir {
        Some(data_dir) => data_dir.clone(),
        None => data_dir::default()?,
    };
    target::require(&data_dir)?;
    let settings = EngineSettings { rebuild_index: true, ..EngineSettings::default() };
    let engine = local_store::open_engine(&data_dir, settings).map_err(without_url)?;
    let report = engine.report();
    let object = Object::new(&data_dir, engine.stats()?.pack_count, report);
    if args.json {
        output::json(&object)?;
    } else {
        object.print()?;
    }
    engine.close()?;
    match report.damage_count() {
        0 => Ok(()),
        count => Err(CliError::Damaged { count, data_dir }),
    }
}

/// A daemon cannot do this in our place, so it is no use to name its URL.
fn without_url(error: CliError) -> CliError {
    match error {
        CliError::InUse { data_dir, daemon } => CliError::InUse {
            data_dir,
            daemon: daemon.map(|daemon| DaemonHint { url: None, ..daemon }),
        },
        other => other,
    }
}

impl Object {
    fn new(data_dir: &Path, packs: u64, report: &OpenReport) -> Self {
        let cut_tails = report.cut_tails.iter().map(|tail| CutTailJson {
            pack: tail.pack.to_string(),
            offset: tail.offset,
            length: tail.len,
            kept_in: tail.kept_in.clone(),
        });
        let damage = report.damage.iter().map(|damage| DamageJson {
            pack: damage.pack.to_string(),
            offset: damage.offset,
            problem: damage.problem.clone(),
        });
        Self {
            data_dir: data_dir.to_string_lossy().into_owned(),
            packs,
            segments: report.replayed_segments,
            cut_tails: cut_tails.collect(),
            damage: damage.collect(),
            dead_list_problem: report.dead_list_problem.clone(),
        }
    }

    fn print(&self) -> Result<()> {
        output::line(format_args!(
            "built the index of {} anew from {} segments in {} packs",
            self.data_dir,
            HumanCount(self.segments),
            HumanCount(self.packs)
        ))?;
        for CutTailJson { pack, offset, length, kept_in } in &self.cut_tails {
            output::line(format_args!(
                "cut off {} bytes of pack {pack} at {offset}, which a crash had torn; they are \
                 kept in {kept_in}",
                HumanCount(*length)
            ))?;
        }
        for DamageJson { pack, offset, problem } in &self.damage {
            output::line(format_args!("damage in pack {pack} at {offset}: {problem}"))?;
        }
        if let Some(problem) = &self.dead_list_problem {
            output::line(format_args!(
                "the list of dead objects cannot be used: {problem}; what was collected and not \
                 swept has come back"
            ))?;
        }
        Ok(())
    }
}

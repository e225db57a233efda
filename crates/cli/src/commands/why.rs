//! `granary why`

use std::{
    ffi::OsString,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use granary_nix_formats::StorePath;
use granary_store::{Keeper, Why};
use indicatif::BinaryBytes;
use serde::Serialize;

use crate::{
    error::{CliError, Result},
    output, quantity,
    target::{Missing, Target, TargetArgs},
    tree_path::TreePath,
};

/// Show what keeps a store path, and what deleting it would free
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store path, its base name or its hash part
    #[arg(value_name = "STORE-PATH")]
    path: OsString,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    store_path: String,
    pins: Vec<PinJson>,
    referrers: Vec<String>,
    last_use: u64,
    last_use_of_referrers: Option<u64>,
    own_bytes: u64,
    closure_bytes: u64,
}

#[derive(Serialize)]
struct PinJson {
    name: String,
    path: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let path = TreePath::parse_whole(&args.path)?;
    let target = Target::open(&args.target, Missing::Refuse)?;
    let found = path.path_info(&target)?;
    let why = target.retention().why(path.hash())?.ok_or_else(|| {
        CliError::NoPath(format!("{} is not in {target}", found.store_path.absolute()))
    })?;
    let object = Object::from(why);
    if args.json {
        output::json(&object)?;
    } else {
        object.print()?;
    }
    target.close()
}

impl From<Why> for Object {
    fn from(why: Why) -> Self {
        let (mut pins, mut referrers) = (Vec::new(), Vec::new());
        for keeper in why.keepers {
            match keeper {
                Keeper::Pin { name, path } => {
                    let path = path.iter().map(StorePath::absolute).collect();
                    pins.push(PinJson { name, path });
                }
                Keeper::Referrer(path) => referrers.push(path.absolute()),
            }
        }
        Self {
            store_path: why.store_path.absolute(),
            pins,
            referrers,
            last_use: why.used_unix_s,
            last_use_of_referrers: why.referrers_used_unix_s,
            own_bytes: why.own_bytes,
            closure_bytes: why.closure_bytes,
        }
    }
}

impl Object {
    fn print(&self) -> Result<()> {
        output::line(&self.store_path)?;
        for PinJson { name, path } in &self.pins {
            output::line(format_args!("pinned by {name:?}"))?;
            for step in path.iter().take(path.len().saturating_sub(1)) {
                output::line(format_args!("  by way of {step}"))?;
            }
        }
        for referrer in &self.referrers {
            output::line(format_args!("referred to by {referrer}"))?;
        }
        if self.pins.is_empty() && self.referrers.is_empty() {
            output::line("nothing needs it")?;
        }
        output::line(format_args!("used or uploaded {}", ago(self.last_use)))?;
        if let Some(last_use) = self.last_use_of_referrers {
            output::line(format_args!("what refers to it was used or uploaded {}", ago(last_use)))?;
        }
        output::line(format_args!("deleting it frees {}", BinaryBytes(self.own_bytes)))?;
        if self.closure_bytes > self.own_bytes {
            output::line(format_args!(
                "deleting it with what only it needs frees {}",
                BinaryBytes(self.closure_bytes)
            ))?;
        }
        Ok(())
    }
}

fn ago(unix_s: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{} ago", quantity::rough(now.saturating_sub(Duration::from_secs(unix_s))))
}

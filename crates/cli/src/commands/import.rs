//! `granary import`

use std::path::PathBuf;

use granary_store::PathInfo;
use serde::Serialize;

use crate::{
    error::{CliError, Result},
    node_json::NodeJson,
    output,
    progress::Progress,
    target::{Missing, Target, TargetArgs},
};

/// Import files and directories
///
/// Each gets the store path that `nix-store --add` would give it. Prints one store path a
/// line, as soon as it is durable, and nothing else.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to import
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// The name in the store path, in the place of the file's own
    #[arg(long)]
    name: Option<String>,

    /// Print one JSON object when all is done
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Imported {
    source: String,
    store_path: String,
    nar_hash: String,
    nar_size: u64,
    node: NodeJson,
}

#[derive(Serialize)]
struct Object {
    imported: Vec<Imported>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.name.is_some() && args.paths.len() > 1 {
        return Err(CliError::Usage("--name can be given for one path only".to_owned()));
    }
    let target = Target::open(&args.target, Missing::Create)?;
    let progress = Progress::bytes("importing");
    let mut object = Object { imported: Vec::new() };
    let result = import(args, &target, &progress, &mut object);
    drop(progress);
    if args.json {
        // What was imported is there, also when something behind it failed.
        output::json(&object)?;
    }
    result.and(target.close())
}

fn import(args: &Args, target: &Target, progress: &Progress, object: &mut Object) -> Result<()> {
    for path in &args.paths {
        let path_info = target.import(path, args.name.as_deref(), progress)?;
        if args.json {
            object.imported.push(imported(path, &path_info));
        } else {
            progress.suspend(|| output::line(path_info.store_path.absolute()))?;
        }
    }
    Ok(())
}

fn imported(source: &std::path::Path, path_info: &PathInfo) -> Imported {
    let nar = path_info.nar.as_ref();
    Imported {
        source: source.to_string_lossy().into_owned(),
        store_path: path_info.store_path.absolute(),
        nar_hash: nar.map(|nar| nar.nar_hash.to_nix_string()).unwrap_or_default(),
        nar_size: nar.map_or(0, |nar| nar.nar_size),
        node: NodeJson::new(&path_info.node),
    }
}

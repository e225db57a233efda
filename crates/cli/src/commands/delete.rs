//! `granary delete`

use std::ffi::OsString;

use granary_nix_formats::StorePath;
use granary_store::DeleteOptions;
use serde::Serialize;

use crate::{
    error::Result,
    output,
    target::{Missing, Target, TargetArgs},
    tree_path::TreePath,
};

/// Delete store paths
///
/// They are gone at once, and their space is free after the next `granary gc`. Refused while
/// another path or a pin needs one of them; then nothing is deleted.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store paths, their base names or their hash parts
    #[arg(value_name = "STORE-PATH", required = true)]
    paths: Vec<OsString>,

    /// Delete what they refer to as well, as far as nothing else needs it
    #[arg(long)]
    closure: bool,

    /// Delete them although something needs them, which is then not whole any more
    #[arg(long)]
    force: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Serialize)]
struct Object {
    deleted: Vec<String>,
    kept: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let paths: Vec<_> =
        args.paths.iter().map(|path| TreePath::parse_whole(path)).collect::<Result<_>>()?;
    let target = Target::open(&args.target, Missing::Refuse)?;
    // Each by name, so that one with another name and the same hash part does not go.
    let hashes = paths
        .iter()
        .map(|path| path.path_info(&target).map(|found| *found.store_path.hash()))
        .collect::<Result<Vec<_>>>()?;
    let options = DeleteOptions { closure: args.closure, force: args.force };
    let deleted = target.retention().delete_paths(&hashes, options)?;
    let names = |paths: &[StorePath]| paths.iter().map(StorePath::absolute).collect();
    let object = Object { deleted: names(&deleted.paths), kept: names(&deleted.kept) };
    if args.json {
        output::json(&object)?;
    } else {
        for path in &object.deleted {
            output::line(format_args!("deleted {path}"))?;
        }
        for path in &object.kept {
            output::line(format_args!("kept {path}, which something else needs"))?;
        }
    }
    target.close()
}

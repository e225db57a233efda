//! `granary nar`

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
};

use granary_store::NarPlan;

use crate::{
    error::{CliError, Result},
    progress::Progress,
    progress::Watched,
    read_ahead,
    target::{Missing, Target, TargetArgs},
    tree_path::TreePath,
};

/// Write a store path as a NAR to standard output
///
/// The same bytes as `nix-store --dump`. Not to a terminal.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store path, its base name or its hash part; possibly a place in it
    #[arg(value_name = "STORE-PATH[/SUB/PATH]")]
    path: OsString,

    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let path = TreePath::parse(&args.path)?;
    let stdout = io::stdout();
    if stdout.is_terminal() {
        return Err(CliError::Usage(
            "a NAR is not for terminals: redirect standard output".to_owned(),
        ));
    }
    let target = Target::open(&args.target, Missing::Refuse)?;
    let (path_info, node) = path.node(&target)?;
    let plan = NarPlan::new(&**target.castore(), &node)?.ok_or_else(|| {
        let path = path_info.store_path.absolute();
        CliError::NoContents(format!("not all directories of {path} are stored"))
    })?;
    let progress = Progress::bytes_of("writing");
    progress.set(0, plan.nar_size());
    let sink = Watched::new(stdout.lock(), &progress);
    let castore = &**target.castore();
    if target.is_remote() {
        read_ahead::with(castore, &plan, |blobs| plan.write_to(blobs, sink))?;
    } else {
        plan.write_to(castore, sink)?;
    }
    Ok(())
}

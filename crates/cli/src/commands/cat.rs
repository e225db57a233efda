//! `granary cat`

use std::{
    ffi::OsString,
    io::{self, Write as _},
};

use granary_castore::{BlobDigest, Node};

use crate::{
    error::{CliError, Result},
    target::{Missing, Target, TargetArgs},
    tree_path::TreePath,
};

/// Most bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// Write the contents of a file in a store path to standard output
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store path, its base name or its hash part, and the place of the file in it
    #[arg(value_name = "STORE-PATH[/SUB/PATH]")]
    path: OsString,

    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let path = TreePath::parse(&args.path)?;
    let target = Target::open(&args.target, Missing::Refuse)?;
    let (_, node) = path.node(&target)?;
    match node {
        Node::File { digest, .. } => write(&target, &digest),
        Node::Directory { .. } => Err(CliError::Usage(format!(
            "{} is a directory: `granary ls` lists what is in it",
            args.path.display()
        ))),
        Node::Symlink { target } => Err(CliError::Usage(format!(
            "{} is a symlink to {target}, and symlinks are not followed",
            args.path.display()
        ))),
    }
}

fn write(target: &Target, digest: &BlobDigest) -> Result<()> {
    let missing = || CliError::NoContents(format!("blob {digest} is not stored"));
    let mut blob = target.castore().open(digest)?.ok_or_else(missing)?;
    let mut stdout = io::stdout().lock();
    let mut offset = 0;
    loop {
        let data = blob.read_at(offset, READ_BYTES)?;
        if data.is_empty() {
            break;
        }
        offset += data.len() as u64;
        stdout.write_all(&data).map_err(CliError::Output)?;
    }
    stdout.flush().map_err(CliError::Output)
}

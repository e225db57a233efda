//! `granary ls`

use std::{
    cell::Cell,
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
};

use granary_castore::{Directory, DirectoryDigest, DirectoryService, Error, Node};
use granary_nix_formats::nar::MAX_DEPTH;
use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeSeq as _},
};

use crate::{
    error::{CliError, Result},
    node_json::{NodeJson, PathJson},
    output,
    target::{Missing, Target, TargetArgs},
    tree_path::TreePath,
};

/// List what is in a store path
///
/// Lists the entries of a directory, or the file or symlink itself. Symlinks are not
/// followed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store path, its base name or its hash part; possibly a place in it
    #[arg(value_name = "STORE-PATH[/SUB/PATH]")]
    path: OsString,

    /// Show type, permissions and size as well, and where symlinks point
    #[arg(long, short)]
    long: bool,

    /// List what is in directories below as well
    #[arg(long, short = 'R')]
    recursive: bool,

    /// Print one JSON object
    #[arg(long, conflicts_with = "long")]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    store_path: String,
    #[serde(flatten)]
    path: PathJson,
    node: NodeJson,
    entries: Entries<'a>,
}

#[derive(Serialize)]
struct EntryJson {
    #[serde(flatten)]
    path: PathJson,
    #[serde(flatten)]
    node: NodeJson,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let path = TreePath::parse(&args.path)?;
    let target = Target::open(&args.target, Missing::Refuse)?;
    let (path_info, node) = path.node(&target)?;
    if args.json {
        let walk = Walk::new(&target, &node, args.recursive)?;
        let failure = Cell::new(None);
        let object = Object {
            store_path: path_info.store_path.absolute(),
            path: PathJson::new(&path.sub_path()),
            node: NodeJson::new(&node),
            entries: Entries { walk: Cell::new(Some(walk)), failure: &failure },
        };
        let written = output::json(&object);
        return failure.take().map_or(written, Err);
    }
    if !matches!(node, Node::Directory { .. }) {
        let sub_path = path.sub_path();
        let name = sub_path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let base_name = path_info.store_path.base_name();
        let name = if name.is_empty() { base_name.as_bytes() } else { name };
        return print(args, [Ok((name.to_vec(), node))].into_iter());
    }
    print(args, Walk::new(&target, &node, args.recursive)?)
}

fn print(args: &Args, entries: impl Iterator<Item = Result<(Vec<u8>, Node)>>) -> Result<()> {
    let is_terminal = io::stdout().is_terminal();
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    for entry in entries {
        let (path, node) = entry?;
        let mut line = Vec::new();
        if args.long {
            let (kind, size) = match &node {
                Node::Directory { .. } => ("dr-xr-xr-x", 0),
                Node::File { size_bytes, executable: true, .. } => ("-r-xr-xr-x", *size_bytes),
                Node::File { size_bytes, .. } => ("-r--r--r--", *size_bytes),
                Node::Symlink { .. } => ("lrwxrwxrwx", 0),
            };
            line.extend_from_slice(format!("{kind} {size:>12} ").as_bytes());
        }
        line.extend_from_slice(&shown(path, is_terminal));
        if args.long
            && let Node::Symlink { target } = &node
        {
            line.extend_from_slice(b" -> ");
            line.extend_from_slice(&shown(target.as_bytes().to_vec(), is_terminal));
        }
        line.push(b'\n');
        stdout.write_all(&line).map_err(CliError::Output)?;
    }
    stdout.flush().map_err(CliError::Output)
}

/// As it is, but without what a terminal could take for a command.
fn shown(text: Vec<u8>, is_terminal: bool) -> Vec<u8> {
    let is_harmless = |text: &str| !text.chars().any(char::is_control);
    if !is_terminal || str::from_utf8(&text).is_ok_and(is_harmless) {
        return text;
    }
    text.escape_ascii().to_string().into_bytes()
}

/// The entries of a directory in order, each before what is in it; paths begin below it.
struct Walk<'a> {
    directories: &'a dyn DirectoryService,
    recursive: bool,
    open: Vec<Open>,
}

struct Open {
    path: Vec<u8>,
    directory: Directory,
    /// Position of the entry that comes next.
    next: usize,
}

impl<'a> Walk<'a> {
    fn new(target: &'a Target, root: &Node, recursive: bool) -> Result<Self> {
        let mut walk = Self { directories: &**target.castore(), recursive, open: Vec::new() };
        if let Node::Directory { digest, .. } = root {
            walk.enter(Vec::new(), digest)?;
        }
        Ok(walk)
    }

    fn enter(&mut self, path: Vec<u8>, digest: &DirectoryDigest) -> Result<()> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Error::too_large(format!(
                "directories are nested deeper than {MAX_DEPTH}, the limit"
            ))
            .into());
        }
        let directory = self
            .directories
            .directory(digest)?
            .ok_or_else(|| CliError::NoContents(format!("directory {digest} is not stored")))?;
        self.open.push(Open { path, directory, next: 0 });
        Ok(())
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<(Vec<u8>, Node)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let top = self.open.last_mut()?;
            let Some((name, node)) = top.directory.entries().get(top.next) else {
                self.open.pop();
                continue;
            };
            top.next += 1;
            let mut path = top.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            let node = node.clone();
            if self.recursive
                && let Node::Directory { digest, .. } = &node
                && let Err(error) = self.enter(path.clone(), digest)
            {
                self.open.clear();
                return Some(Err(error));
            }
            return Some(Ok((path, node)));
        }
    }
}

/// A walk that is written out as it goes, for it can be long.
struct Entries<'a> {
    walk: Cell<Option<Walk<'a>>>,
    /// What stopped it, which the serializer could not carry.
    failure: &'a Cell<Option<CliError>>,
}

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = serializer.serialize_seq(None)?;
        for entry in self.walk.take().into_iter().flatten() {
            match entry {
                Ok((path, node)) => {
                    let path = PathJson::new(&path);
                    entries.serialize_element(&EntryJson { path, node: NodeJson::new(&node) })?;
                }
                Err(error) => {
                    self.failure.set(Some(error));
                    return Err(S::Error::custom("the tree cannot be read"));
                }
            }
        }
        entries.end()
    }
}

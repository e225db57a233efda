//! `granary info`

use std::ffi::OsString;

use granary_castore::Node;
use granary_nix_formats::StorePath;
use granary_store::PathInfo;
use indicatif::HumanCount;
use serde::Serialize;

use crate::{
    error::Result,
    node_json::NodeJson,
    output,
    target::{Missing, Target, TargetArgs},
    tree_path::TreePath,
};

/// Show what is known of a store path
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
    node: NodeJson,
    nar_hash: Option<String>,
    nar_size: Option<u64>,
    references: Vec<String>,
    deriver: Option<String>,
    ca: Option<String>,
    signatures: Vec<String>,
}

impl Object {
    fn new(path_info: &PathInfo) -> Self {
        let nar = path_info.nar.as_ref();
        let names = nar.map_or(&[][..], |nar| &nar.reference_names);
        // Whoever put the path info may not have known the names.
        let references = if names.len() == path_info.references.len() {
            names.iter().map(StorePath::absolute).collect()
        } else {
            path_info.references.iter().map(ToString::to_string).collect()
        };
        Self {
            store_path: path_info.store_path.absolute(),
            node: NodeJson::new(&path_info.node),
            nar_hash: nar.map(|nar| nar.nar_hash.to_nix_string()),
            nar_size: nar.map(|nar| nar.nar_size),
            references,
            deriver: nar.and_then(|nar| nar.deriver.as_ref()).map(StorePath::absolute),
            ca: nar.and_then(|nar| nar.ca.as_ref()).map(ToString::to_string),
            signatures: nar
                .map(|nar| nar.signatures.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
        }
    }

    fn print(&self, node: &Node) -> Result<()> {
        let field = |name: &str, value: &str| output::line(format_args!("{name:<16}{value}"));
        field("store path", &self.store_path)?;
        field("contents", &contents(node))?;
        if let Some(nar_hash) = &self.nar_hash {
            field("NAR hash", nar_hash)?;
        }
        if let Some(nar_size) = self.nar_size {
            field("NAR size", &format!("{} bytes", HumanCount(nar_size)))?;
        }
        for reference in &self.references {
            field("reference", reference)?;
        }
        if let Some(deriver) = &self.deriver {
            field("deriver", deriver)?;
        }
        if let Some(ca) = &self.ca {
            field("content address", ca)?;
        }
        for signature in &self.signatures {
            field("signature", signature)?;
        }
        Ok(())
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let path = TreePath::parse_whole(&args.path)?;
    let target = Target::open(&args.target, Missing::Refuse)?;
    let path_info = path.path_info(&target)?;
    let object = Object::new(&path_info);
    if args.json { output::json(&object) } else { object.print(&path_info.node) }
}

fn contents(node: &Node) -> String {
    match node {
        Node::Directory { digest, size } => {
            format!("directory {digest}, {} entries below it", HumanCount(*size))
        }
        Node::File { digest, size_bytes, executable } => {
            let kind = if *executable { "executable file" } else { "file" };
            format!("{kind} {digest}, {} bytes", HumanCount(*size_bytes))
        }
        Node::Symlink { target } => format!("symlink to {target}"),
    }
}

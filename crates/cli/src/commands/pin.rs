//! `granary pin`

use std::{
    ffi::OsString,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Subcommand;
use data_encoding::BASE64;
use granary_castore::{BlobDigest, DirectoryDigest, Root};
use granary_store::{Pin, PinTarget};
use serde::Serialize;

use crate::{
    error::{CliError, Result},
    output, quantity,
    target::{Missing, Target, TargetArgs},
    tree_path::TreePath,
};

/// Keep store paths from being collected
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(AddArgs),
    Rm(RemoveArgs),
    List(ListArgs),
}

/// Keep a store path, and all that it refers to, under a name
///
/// A pin of the same name is replaced.
#[derive(Debug, clap::Args)]
struct AddArgs {
    /// The name of the pin
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    what: WhatArgs,

    /// Keep it for this time only, as in 30d: a number and s, m, h, d or w
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    expires: Option<Duration>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct WhatArgs {
    /// The store path, its base name or its hash part
    #[arg(value_name = "STORE-PATH")]
    path: Option<OsString>,

    /// Keep a directory of this digest, with all below it, although no store path leads to it
    #[arg(long, value_name = "DIGEST", value_parser = directory_digest)]
    directory: Option<DirectoryDigest>,

    /// Keep a blob of this digest, although no store path leads to it
    #[arg(long, value_name = "DIGEST", value_parser = blob_digest)]
    blob: Option<BlobDigest>,
}

/// Remove pins
#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// The names of the pins
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,
}

/// List pins
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PinObject {
    name: String,
    store_path: Option<String>,
    directory: Option<String>,
    blob: Option<String>,
    created: u64,
    expires: Option<u64>,
}

#[derive(Serialize)]
struct ListObject {
    pins: Vec<PinObject>,
}

#[derive(Serialize)]
struct RemovedObject<'a> {
    removed: &'a [String],
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Add(args) => add(args),
        Command::Rm(args) => remove(args),
        Command::List(args) => list(args),
    }
}

fn add(args: &AddArgs) -> Result<()> {
    let target = Target::open(&args.target, Missing::Refuse)?;
    let WhatArgs { path, directory, blob } = &args.what;
    let kept = match (path, directory, blob) {
        (_, Some(digest), _) => PinTarget::Root(Root::Directory(*digest)),
        (_, _, Some(digest)) => PinTarget::Root(Root::Blob(*digest)),
        (Some(path), ..) => {
            PinTarget::Path(TreePath::parse_whole(path)?.path_info(&target)?.store_path)
        }
        (None, None, None) => {
            return Err(CliError::Usage("there is nothing to be pinned".to_owned()));
        }
    };
    let created_unix_s = now_s();
    let pin = Pin {
        name: args.name.clone(),
        target: kept,
        created_unix_s,
        expires_unix_s: args.expires.map(|time| created_unix_s.saturating_add(time.as_secs())),
    };
    let object = PinObject::from(&pin);
    target.retention().add_pin(pin)?;
    if args.json {
        output::json(&object)?;
    } else {
        output::line(format_args!("pinned {} as {:?}", object.kept(), object.name))?;
    }
    target.close()
}

fn remove(args: &RemoveArgs) -> Result<()> {
    let target = Target::open(&args.target, Missing::Refuse)?;
    let mut removed = Vec::new();
    let mut missing = None;
    for name in &args.names {
        if target.retention().remove_pin(name)? {
            removed.push(name.clone());
        } else {
            missing.get_or_insert(name);
        }
    }
    if args.json {
        output::json(&RemovedObject { removed: &removed })?;
    } else {
        for name in &removed {
            output::line(format_args!("removed the pin {name:?}"))?;
        }
    }
    let result = match missing {
        Some(name) => Err(CliError::NoPin(format!("there is no pin {name:?} in {target}"))),
        None => Ok(()),
    };
    target.close()?;
    result
}

fn list(args: &ListArgs) -> Result<()> {
    let target = Target::open(&args.target, Missing::Refuse)?;
    let pins: Vec<_> = target.retention().pins()?.iter().map(PinObject::from).collect();
    if args.json {
        output::json(&ListObject { pins })?;
    } else {
        let now = now_s();
        for pin in &pins {
            let expiry = match pin.expires {
                None => String::new(),
                Some(expires) if expires <= now => ", expired".to_owned(),
                Some(expires) => {
                    let left = Duration::from_secs(expires - now);
                    format!(", expires in {}", quantity::rough(left))
                }
            };
            output::line(format_args!("{:?}: {}{expiry}", pin.name, pin.kept()))?;
        }
    }
    target.close()
}

impl From<&Pin> for PinObject {
    fn from(pin: &Pin) -> Self {
        let mut object = Self {
            name: pin.name.clone(),
            store_path: None,
            directory: None,
            blob: None,
            created: pin.created_unix_s,
            expires: pin.expires_unix_s,
        };
        match &pin.target {
            PinTarget::Path(path) => object.store_path = Some(path.absolute()),
            PinTarget::Root(Root::Directory(digest)) => object.directory = Some(digest.to_string()),
            PinTarget::Root(Root::Blob(digest)) => object.blob = Some(digest.to_string()),
        }
        object
    }
}

impl PinObject {
    fn kept(&self) -> String {
        match (&self.store_path, &self.directory, &self.blob) {
            (Some(path), ..) => path.clone(),
            (_, Some(digest), _) => format!("directory {digest}"),
            (_, _, Some(digest)) => format!("blob {digest}"),
            (None, None, None) => "nothing".to_owned(),
        }
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn directory_digest(text: &str) -> Result<DirectoryDigest, String> {
    digest(text).map(DirectoryDigest::from_bytes)
}

fn blob_digest(text: &str) -> Result<BlobDigest, String> {
    digest(text).map(BlobDigest::from_bytes)
}

/// A digest as commands print it.
fn digest(text: &str) -> Result<[u8; 32], String> {
    let wrong =
        || format!("{text:?} is no digest: write it as b3: and base64, as `granary info` does");
    let base64 = text.strip_prefix("b3:").ok_or_else(wrong)?;
    BASE64.decode(base64.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)
}

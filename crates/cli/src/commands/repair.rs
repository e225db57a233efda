//! `granary repair`

use granary_client::BinaryCache;
use granary_nix_formats::StorePath;
use granary_store::{
    RepairObserver, RepairReport, RepairSource, RepairTarget, VerifyOptions, VerifyReport,
};
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;

use crate::{
    commands::verify::{DamagedJson, Shown},
    error::{CliError, Result},
    output,
    progress::Progress,
    target::{Connection, Missing, Target, TargetArgs},
};

/// Fetch what is damaged or missing from another store
///
/// Verifies everything that is stored (as `granary verify --data` does), gives up what is
/// damaged, and fetches it: by its digest from a Granary, tvix-store or snix-store, by store path
/// from a binary cache. Whatever is fetched is held against digests, and a NAR against the hash
/// that the store path has here.
///
/// What cannot be had is listed by the store paths that it is missing from. It is not served any
/// more, and can be uploaded again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The other store: http://HOST:PORT or grpc://HOST:PORT or unix:/PATH of a gRPC store, or
    /// http://HOST/PATH or file:///PATH of a binary cache
    #[arg(long, value_name = "URL")]
    from: String,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,
}

/// The store that is fetched from.
enum Other {
    Store(Connection),
    Cache(BinaryCache),
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let other = Other::connect(&args.from)?;
    let target = Target::open(&args.target, Missing::Refuse)?;
    let options = VerifyOptions { data: true, ..VerifyOptions::default() };
    let verified = target.integrity().verify(&options, &Shown::default())?;
    let repaired = repair(&target, &other, &verified)?;
    if args.json {
        output::json(&Object::new(&repaired))?;
    } else {
        print(&repaired)?;
    }
    target.close()?;
    if repaired.is_complete() {
        Ok(())
    } else {
        Err(CliError::NotRepaired { count: left(&repaired) })
    }
}

fn repair(target: &Target, other: &Other, verified: &VerifyReport) -> Result<RepairReport> {
    let progress = Progress::bytes("fetching");
    let source = match other {
        Other::Store(connection) => RepairSource::Castore(&connection.client),
        Other::Cache(cache) => RepairSource::Nars(cache),
    };
    let repaired = granary_store::repair(
        RepairTarget {
            castore: &**target.castore(),
            path_infos: target.path_infos(),
            integrity: target.integrity(),
        },
        source,
        verified,
        &progress,
    );
    Ok(repaired?)
}

impl Other {
    /// Whoever answers gRPC is asked by digest; else it must be a binary cache.
    fn connect(url: &str) -> Result<Self> {
        let usage = |error: granary_castore::Error| match error {
            granary_castore::Error::Invalid(_) => {
                CliError::Usage(granary_castore::Chain(&error).to_string())
            }
            other => other.into(),
        };
        let is_http = url.starts_with("http://");
        if !is_http && !url.starts_with("file:") {
            return Ok(Self::Store(Connection::open(url)?));
        }
        let cache = BinaryCache::new(url).map_err(usage)?;
        if is_http && let Ok(connection) = Connection::open(url) {
            // A binary cache may well take the connection.
            if granary_castore::BlobService::stat(
                &connection.client,
                &granary_castore::BlobDigest::of(b""),
            )
            .is_ok()
            {
                return Ok(Self::Store(connection));
            }
        }
        if !cache.is_there().map_err(usage)? {
            return Err(CliError::Usage(format!(
                "{url} is neither a store that answers gRPC nor a binary cache"
            )));
        }
        Ok(Self::Cache(cache))
    }
}

impl RepairObserver for Progress {
    fn fetched(&self, bytes: u64) {
        self.add(bytes);
    }
}

fn left(repaired: &RepairReport) -> usize {
    repaired.failed_paths.len() + repaired.failed_objects.len() + repaired.left.len()
}

fn print(repaired: &RepairReport) -> Result<()> {
    for path in &repaired.repaired_paths {
        output::line(format_args!("repaired {}", path.absolute()))?;
    }
    for pack in &repaired.packs {
        output::line(format_args!(
            "moved what was left out of packs/{pack}.pack, which is no part of the store any more"
        ))?;
    }
    for (path, problem) in &repaired.failed_paths {
        output::line(format_args!("not repaired {}: {problem}", path.absolute()))?;
    }
    for (damaged, problem) in &repaired.failed_objects {
        output::line(format_args!("not repaired {}: {problem}", damaged.object))?;
    }
    for finding in &repaired.left {
        let place = finding.place.as_ref();
        let place =
            place.map(|place| format!("packs/{}.pack at byte {}: ", place.pack, place.offset));
        let path = finding.store_path.as_ref().map(|path| format!("{}: ", path.absolute()));
        let place = place.or(path).unwrap_or_default();
        output::line(format_args!("not repaired {place}{}", finding.problem))?;
    }
    output::line(format_args!(
        "gave up {} objects, fetched {}: {} store paths are whole again, {} things are not",
        HumanCount(repaired.given_up),
        BinaryBytes(repaired.fetched_bytes),
        HumanCount(repaired.repaired_paths.len() as u64),
        left(repaired),
    ))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    complete: bool,
    given_up: u64,
    removed_packs: Vec<String>,
    fetched_bytes: u64,
    repaired_paths: Vec<String>,
    repaired_objects: u64,
    failed_paths: Vec<FailedPath>,
    failed_objects: Vec<FailedObject>,
    left: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailedPath {
    store_path: String,
    problem: String,
}

#[derive(Serialize)]
struct FailedObject {
    #[serde(flatten)]
    object: DamagedJson,
    problem: String,
}

impl Object {
    fn new(repaired: &RepairReport) -> Self {
        let failed_paths = repaired.failed_paths.iter().map(|(path, problem)| FailedPath {
            store_path: path.absolute(),
            problem: problem.clone(),
        });
        let failed_objects = repaired.failed_objects.iter().map(|(object, problem)| FailedObject {
            object: DamagedJson::new(object),
            problem: problem.clone(),
        });
        Self {
            complete: repaired.is_complete(),
            given_up: repaired.given_up,
            removed_packs: repaired.packs.clone(),
            fetched_bytes: repaired.fetched_bytes,
            repaired_paths: repaired.repaired_paths.iter().map(StorePath::absolute).collect(),
            repaired_objects: repaired.repaired_objects,
            failed_paths: failed_paths.collect(),
            failed_objects: failed_objects.collect(),
            left: repaired.left.iter().map(|finding| finding.problem.clone()).collect(),
        }
    }
}

//! `granary verify`

use std::{ops::ControlFlow, sync::Mutex};

use data_encoding::BASE64;
use granary_castore::{ObjectName, Severity};
use granary_nix_formats::{PublicKey, StorePath};
use granary_store::{
    DamagedObject, Finding, VerifyObserver, VerifyOptions, VerifyPhase, VerifyProgress,
    VerifyReport,
};
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;

use crate::{
    error::{CliError, Result},
    output,
    progress::Progress,
    target::{Missing, Target, TargetArgs},
};

/// Check that everything stored is there and is what it was
///
/// Without options: that the index agrees with the packs, and that the contents of every store
/// path resolve. Prints what it finds by severity: error is damage, warning is not as it should
/// be and harms nothing, info is worth knowing. Goes on beside reads and writes.
///
/// Ends with exit code 0 if there is no damage, 1 if there is, and 2 if it could not run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Read every byte, and hold every object against its digest
    #[arg(long)]
    data: bool,

    /// Make the NAR of every store path, and check its size, hash, content address and
    /// signatures; what is unsigned is clean
    #[arg(long)]
    nar: bool,

    /// With --nar, check the signatures of this key (NAME:BASE64) too; can be repeated
    ///
    /// Those of the store's own key are checked in any case.
    #[arg(long, value_name = "KEY", requires = "nar", value_parser = parse_key)]
    public_key: Vec<PublicKey>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,
}

fn parse_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::parse(text).map_err(|error| error.to_string())
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let report = verify(args).map_err(CliError::not_verified)?;
    let shown = if args.json { output::json(&Object::new(&report)) } else { print(&report) };
    shown.map_err(CliError::not_verified)?;
    if report.is_clean() { Ok(()) } else { Err(CliError::Unsound { errors: report.counts.errors }) }
}

fn verify(args: &Args) -> Result<VerifyReport> {
    let target = Target::open(&args.target, Missing::Refuse)?;
    let options =
        VerifyOptions { data: args.data, nar: args.nar, public_keys: args.public_key.clone() };
    let report = target.integrity().verify(&options, &Shown::default())?;
    target.close()?;
    Ok(report)
}

/// Shows how far a verification is, one phase behind the other.
#[derive(Default)]
pub(super) struct Shown(Mutex<Option<(VerifyPhase, Progress)>>);

impl VerifyObserver for Shown {
    fn progress(&self, progress: VerifyProgress) -> ControlFlow<()> {
        let VerifyProgress { phase, done, total } = progress;
        let Ok(mut shown) = self.0.lock() else { return ControlFlow::Continue(()) };
        if shown.as_ref().is_none_or(|(before, _)| *before != phase) {
            // First the one before goes.
            *shown = None;
            *shown = Some((
                phase,
                match phase {
                    VerifyPhase::Packs => Progress::bytes_of("verifying packs"),
                    VerifyPhase::Paths => Progress::count_of("verifying store paths"),
                    VerifyPhase::Nars => Progress::bytes_of("verifying NARs"),
                },
            ));
        }
        if let Some((_, shown)) = &*shown {
            shown.set(done, total);
        }
        ControlFlow::Continue(())
    }
}

fn print(report: &VerifyReport) -> Result<()> {
    for finding in &report.findings {
        let place = finding.place.as_ref();
        let place =
            place.map(|place| format!("packs/{}.pack at byte {}", place.pack, place.offset));
        let path = finding.store_path.as_ref().map(StorePath::absolute);
        let place = place.or(path).map(|place| format!("{place}: ")).unwrap_or_default();
        output::line(format_args!("{}: {place}{}", finding.severity, finding.problem))?;
        for object in finding.objects.iter().take(SHOWN_OBJECTS) {
            output::line(format_args!("  {object}"))?;
        }
        if let Some(more) = finding.objects.len().checked_sub(SHOWN_OBJECTS + 1) {
            output::line(format_args!("  and {} more", more + 1))?;
        }
    }
    let counts = &report.counts;
    if counts.omitted_findings > 0 {
        output::line(format_args!("and {} more findings", HumanCount(counts.omitted_findings)))?;
    }
    let nars = match counts.nars {
        0 => String::new(),
        nars => format!(", {nars} NARs and {} signatures", counts.signatures),
    };
    output::line(format_args!(
        "verified {} objects in {} packs and {} store paths, {} read{nars}: {} errors, {} warnings",
        HumanCount(counts.objects),
        HumanCount(counts.packs),
        HumanCount(counts.store_paths),
        BinaryBytes(counts.checked_bytes),
        HumanCount(counts.errors),
        warnings(report),
    ))
}

/// How many objects of a finding are shown to people.
const SHOWN_OBJECTS: usize = 5;

fn warnings(report: &VerifyReport) -> usize {
    report.findings.iter().filter(|finding| finding.severity == Severity::Warning).count()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    clean: bool,
    packs: u64,
    objects: u64,
    checked_bytes: u64,
    store_paths: u64,
    nars: u64,
    signatures: u64,
    errors: u64,
    warnings: usize,
    findings: Vec<FindingJson>,
    omitted_findings: u64,
    damaged_objects: Vec<DamagedJson>,
    damaged_paths: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FindingJson {
    severity: String,
    problem: String,
    pack: Option<String>,
    offset: Option<u64>,
    store_path: Option<String>,
    objects: Vec<ObjectJson>,
}

#[derive(Serialize)]
pub(super) struct ObjectJson {
    kind: &'static str,
    digest: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DamagedJson {
    #[serde(flatten)]
    object: ObjectJson,
    store_paths: Vec<String>,
}

impl Object {
    fn new(report: &VerifyReport) -> Self {
        let counts = &report.counts;
        Self {
            clean: report.is_clean(),
            packs: counts.packs,
            objects: counts.objects,
            checked_bytes: counts.checked_bytes,
            store_paths: counts.store_paths,
            nars: counts.nars,
            signatures: counts.signatures,
            errors: counts.errors,
            warnings: warnings(report),
            findings: report.findings.iter().map(FindingJson::new).collect(),
            omitted_findings: counts.omitted_findings,
            damaged_objects: report.damaged_objects.iter().map(DamagedJson::new).collect(),
            damaged_paths: report.damaged_paths.iter().map(StorePath::absolute).collect(),
        }
    }
}

impl FindingJson {
    fn new(finding: &Finding) -> Self {
        Self {
            severity: finding.severity.to_string(),
            problem: finding.problem.clone(),
            pack: finding.place.as_ref().map(|place| place.pack.clone()),
            offset: finding.place.as_ref().map(|place| place.offset),
            store_path: finding.store_path.as_ref().map(StorePath::absolute),
            objects: finding.objects.iter().map(ObjectJson::new).collect(),
        }
    }
}

impl ObjectJson {
    fn new(object: &ObjectName) -> Self {
        let digest = format!("b3:{}", BASE64.encode(&object.digest));
        Self { kind: object.kind.name(), digest }
    }
}

impl DamagedJson {
    pub(super) fn new(damaged: &DamagedObject) -> Self {
        Self {
            object: ObjectJson::new(&damaged.object),
            store_paths: damaged.store_paths.iter().map(StorePath::absolute).collect(),
        }
    }
}

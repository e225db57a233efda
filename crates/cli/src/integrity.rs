//! Verification of a store that this process has open: of the engine below, and of path infos
//! over it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::TryLockError,
};

use granary_castore::{Error, ObjectName, Result};
use granary_engine::{PackId, VerifyFinding};
use granary_nix_formats::StorePath;
use granary_store::{
    DamagedObject, Finding, IntegritySource, PackPlace, QuarantineRequest, Quarantined, Unreadable,
    VerifyCounts, VerifyObserver, VerifyOptions, VerifyPhase, VerifyProgress, VerifyReport,
};

use crate::local_store::LocalStore;

impl IntegritySource for LocalStore {
    fn verify(
        &self,
        options: &VerifyOptions,
        observer: &dyn VerifyObserver,
    ) -> Result<VerifyReport> {
        // One at a time: each wants the whole disk and all cores.
        let _turn = match self.verifying.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::unavailable(
                    "a verification is under way: wait until it has ended",
                ));
            }
        };
        let engine_options = granary_engine::VerifyOptions {
            data: options.data,
            ..granary_engine::VerifyOptions::default()
        };
        let engine = self.engine.verify(&engine_options, &OfPacks(observer))?;
        let unreadable = Unreadable {
            directories: engine.unreadable_directories().collect(),
            blobs: engine.unreadable_blobs,
        };
        let paths = self.store.verify_paths(options, &unreadable, observer)?;
        let mut objects: BTreeMap<ObjectName, BTreeSet<StorePath>> = paths.damaged_objects;
        for object in engine.unreadable {
            objects.entry(object).or_default();
        }
        let mut findings: Vec<_> = engine.findings.into_iter().map(finding).collect();
        findings.extend(paths.findings);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let damaged_objects = objects.into_iter().map(|(object, paths)| DamagedObject {
            object,
            store_paths: paths.into_iter().collect(),
        });
        Ok(VerifyReport {
            counts: VerifyCounts {
                packs: engine.pack_count,
                objects: engine.object_count,
                checked_bytes: engine.checked_bytes,
                store_paths: paths.path_count,
                nars: paths.nar_count,
                signatures: paths.signature_count,
                errors: engine.error_count + paths.error_count,
                omitted_findings: engine.omitted_findings + paths.omitted_findings,
            },
            findings,
            damaged_objects: damaged_objects.collect(),
            damaged_paths: paths.damaged_paths.into_iter().collect(),
        })
    }

    fn quarantine(&self, request: &QuarantineRequest) -> Result<Quarantined> {
        let objects = self.engine.quarantine(&request.objects)?;
        let mut packs = Vec::new();
        for pack in &request.packs {
            if let Some(id) = PackId::parse(pack)
                && self.engine.evacuate(id)?
            {
                packs.push(pack.clone());
            }
        }
        // Only now: whoever looks at the paths again must see what is there.
        self.store.doubt(&request.store_paths)?;
        Ok(Quarantined { objects, packs })
    }
}

fn finding(found: VerifyFinding) -> Finding {
    let VerifyFinding { severity, pack, offset, problem, objects, .. } = found;
    let place = pack.map(|pack| PackPlace { pack: pack.to_string(), offset });
    Finding { severity, problem, place, store_path: None, objects }
}

/// Tells of the packs that the engine goes through.
struct OfPacks<'a>(&'a dyn VerifyObserver);

impl granary_engine::VerifyObserver for OfPacks<'_> {
    fn progress(&self, progress: granary_engine::Progress) -> ControlFlow<()> {
        let (done, total) = (progress.done_bytes, progress.total_bytes);
        self.0.progress(VerifyProgress { phase: VerifyPhase::Packs, done, total })
    }
}

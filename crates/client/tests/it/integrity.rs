//! Verification of a store elsewhere.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex},
};

use granary_castore::{Error, MemoryStore, ObjectName, ObjectType, Result, Severity};
use granary_nix_formats::{SigningKey, StorePath, StorePathHash};
use granary_store::{
    DamagedObject, Finding, IntegritySource, PackPlace, QuarantineRequest, Quarantined,
    VerifyCounts, VerifyObserver, VerifyOptions, VerifyPhase, VerifyProgress, VerifyReport,
};

use crate::servers::Server;

/// Says the same of every store, if it is asked as it should be.
pub(crate) struct FixedIntegrity;

fn path() -> StorePath {
    StorePath::new(StorePathHash::from_bytes([3; 20]), "it").expect("a valid name")
}

fn report() -> VerifyReport {
    let object = ObjectName { kind: ObjectType::Chunk, digest: [9; 32] };
    let finding = Finding {
        severity: Severity::Error,
        problem: "it is broken".to_owned(),
        place: Some(PackPlace { pack: "0a".to_owned(), offset: 64 }),
        store_path: None,
        objects: vec![object; 1_000],
    };
    VerifyReport {
        counts: VerifyCounts { packs: 3, errors: 1, ..VerifyCounts::default() },
        findings: vec![finding; 500],
        damaged_objects: vec![DamagedObject { object, store_paths: vec![path()] }],
        damaged_paths: vec![path()],
    }
}

const PROGRESS: VerifyProgress = VerifyProgress { phase: VerifyPhase::Paths, done: 1, total: 2 };

fn key() -> SigningKey {
    SigningKey::generate("test-1", [7; 32]).expect("a valid name")
}

impl IntegritySource for FixedIntegrity {
    fn verify(
        &self,
        options: &VerifyOptions,
        observer: &dyn VerifyObserver,
    ) -> Result<VerifyReport> {
        if !options.data {
            return Err(Error::corrupt("it cannot be read"));
        }
        assert!(options.nar && options.public_keys == [key().public_key()], "{options:?}");
        assert!(observer.progress(PROGRESS).is_continue());
        Ok(report())
    }

    fn quarantine(&self, request: &QuarantineRequest) -> Result<Quarantined> {
        let objects = (request.objects.len() + 1_000_000 * request.store_paths.len()) as u64;
        Ok(Quarantined { objects, packs: request.packs.clone() })
    }
}

#[derive(Default)]
struct Noting(Mutex<Vec<VerifyProgress>>, bool);

impl VerifyObserver for Noting {
    fn progress(&self, progress: VerifyProgress) -> ControlFlow<()> {
        self.0.lock().expect("no panic").push(progress);
        if self.1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn options() -> VerifyOptions {
    VerifyOptions { data: true, nar: true, public_keys: vec![key().public_key()] }
}

#[test]
fn a_report_comes_as_it_is() {
    let server = Server::over(Arc::new(MemoryStore::default()));
    let observer = Noting::default();
    let told = server.connect().verify(&options(), &observer).expect("it runs");
    assert!(told == report(), "it came back different");
    assert_eq!(observer.0.into_inner().expect("no panic"), [PROGRESS]);
}

#[test]
fn what_goes_wrong_is_told() {
    let server = Server::over(Arc::new(MemoryStore::default()));
    let client = server.connect();
    let error = client.verify(&VerifyOptions::default(), &()).expect_err("it fails");
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
    let stopping = Noting(Mutex::default(), true);
    let error = client.verify(&options(), &stopping).expect_err("it was stopped");
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

#[test]
fn more_than_fits_into_a_request_is_given_up() {
    let server = Server::over(Arc::new(MemoryStore::default()));
    let object = ObjectName { kind: ObjectType::Directory, digest: [9; 32] };
    let (objects, packs) = (vec![object; 40_000], vec!["0a".to_owned()]);
    let request = QuarantineRequest { objects, store_paths: vec![path()], packs: packs.clone() };
    let given_up = server.connect().quarantine(&request).expect("it is taken");
    assert_eq!(given_up, Quarantined { objects: 1_040_000, packs });
}

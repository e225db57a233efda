//! What is said of the integrity of a store.

use granary_castore::{DIGEST_BYTES, ObjectName, ObjectType, Severity};
use granary_nix_formats::StorePath;
use granary_store::{DamagedObject, Finding, PackPlace, VerifyCounts, VerifyPhase, VerifyProgress};

use crate::{
    field::{Breach, FieldError},
    granary::{
        DamagedObject as DamagedObjectMessage, Finding as FindingMessage, StoredObject,
        VerifyCounts as CountsMessage, VerifyProgress as ProgressMessage,
        finding::Severity as SeverityMessage, stored_object::Kind, verify_progress::Phase,
    },
};

/// The store path that a field holds: the absolute path.
///
/// # Errors
///
/// If it is none.
pub fn store_path(field: &str, text: &str) -> Result<StorePath, FieldError> {
    StorePath::from_absolute(text).map_err(|error| FieldError::new(field, Breach::StorePath(error)))
}

impl From<&ObjectName> for StoredObject {
    fn from(object: &ObjectName) -> Self {
        let kind = match object.kind {
            ObjectType::Blob => Kind::Blob,
            ObjectType::Chunk => Kind::Chunk,
            ObjectType::ChunkList => Kind::ChunkList,
            ObjectType::Base => Kind::Base,
            ObjectType::Directory => Kind::Directory,
        };
        Self { kind: kind.into(), digest: object.digest.to_vec().into() }
    }
}

impl TryFrom<StoredObject> for ObjectName {
    type Error = FieldError;

    fn try_from(message: StoredObject) -> Result<Self, FieldError> {
        let kind = match message.kind() {
            Kind::Unspecified => return Err(FieldError::new("kind", Breach::Missing)),
            Kind::Blob => ObjectType::Blob,
            Kind::Chunk => ObjectType::Chunk,
            Kind::ChunkList => ObjectType::ChunkList,
            Kind::Base => ObjectType::Base,
            Kind::Directory => ObjectType::Directory,
        };
        let length =
            Breach::Length { expected_bytes: DIGEST_BYTES, actual_bytes: message.digest.len() };
        let digest =
            message.digest[..].try_into().map_err(|_| FieldError::new("digest", length))?;
        Ok(Self { kind, digest })
    }
}

impl From<&Finding> for FindingMessage {
    fn from(finding: &Finding) -> Self {
        let severity = match finding.severity {
            Severity::Info => SeverityMessage::Info,
            Severity::Warning => SeverityMessage::Warning,
            Severity::Error => SeverityMessage::Error,
        };
        let (pack, offset) = match &finding.place {
            Some(PackPlace { pack, offset }) => (pack.clone(), *offset),
            None => (String::new(), 0),
        };
        Self {
            severity: severity.into(),
            problem: finding.problem.clone(),
            pack,
            offset,
            store_path: finding.store_path.as_ref().map_or_else(String::new, StorePath::absolute),
            objects: finding.objects.iter().map(StoredObject::from).collect(),
        }
    }
}

impl TryFrom<FindingMessage> for Finding {
    type Error = FieldError;

    fn try_from(message: FindingMessage) -> Result<Self, FieldError> {
        let severity = match message.severity() {
            SeverityMessage::Unspecified => {
                return Err(FieldError::new("severity", Breach::Missing));
            }
            SeverityMessage::Info => Severity::Info,
            SeverityMessage::Warning => Severity::Warning,
            SeverityMessage::Error => Severity::Error,
        };
        let FindingMessage { problem, pack, offset, store_path: path, objects, .. } = message;
        Ok(Self {
            severity,
            problem,
            place: (!pack.is_empty()).then_some(PackPlace { pack, offset }),
            store_path: match &*path {
                "" => None,
                path => Some(store_path("store_path", path)?),
            },
            objects: objects.into_iter().map(ObjectName::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&DamagedObject> for DamagedObjectMessage {
    fn from(damaged: &DamagedObject) -> Self {
        Self {
            object: Some((&damaged.object).into()),
            store_paths: damaged.store_paths.iter().map(StorePath::absolute).collect(),
        }
    }
}

impl TryFrom<DamagedObjectMessage> for DamagedObject {
    type Error = FieldError;

    fn try_from(message: DamagedObjectMessage) -> Result<Self, FieldError> {
        let object = message.object.ok_or_else(|| FieldError::new("object", Breach::Missing))?;
        let paths = message.store_paths.iter().map(|path| store_path("store_paths", path));
        Ok(Self { object: object.try_into()?, store_paths: paths.collect::<Result<_, _>>()? })
    }
}

impl From<VerifyProgress> for ProgressMessage {
    fn from(VerifyProgress { phase, done, total }: VerifyProgress) -> Self {
        let phase = match phase {
            VerifyPhase::Packs => Phase::Packs,
            VerifyPhase::Paths => Phase::Paths,
            VerifyPhase::Nars => Phase::Nars,
        };
        Self { phase: phase.into(), done, total }
    }
}

impl TryFrom<ProgressMessage> for VerifyProgress {
    type Error = FieldError;

    fn try_from(message: ProgressMessage) -> Result<Self, FieldError> {
        let phase = match message.phase() {
            Phase::Unspecified => return Err(FieldError::new("phase", Breach::Missing)),
            Phase::Packs => VerifyPhase::Packs,
            Phase::Paths => VerifyPhase::Paths,
            Phase::Nars => VerifyPhase::Nars,
        };
        Ok(Self { phase, done: message.done, total: message.total })
    }
}

impl From<VerifyCounts> for CountsMessage {
    fn from(counts: VerifyCounts) -> Self {
        let VerifyCounts {
            packs,
            objects,
            checked_bytes,
            store_paths,
            nars,
            signatures,
            errors,
            omitted_findings,
        } = counts;
        Self {
            packs,
            objects,
            checked_bytes,
            store_paths,
            nars,
            signatures,
            errors,
            omitted_findings,
        }
    }
}

impl From<CountsMessage> for VerifyCounts {
    fn from(message: CountsMessage) -> Self {
        let CountsMessage {
            packs,
            objects,
            checked_bytes,
            store_paths,
            nars,
            signatures,
            errors,
            omitted_findings,
        } = message;
        Self {
            packs,
            objects,
            checked_bytes,
            store_paths,
            nars,
            signatures,
            errors,
            omitted_findings,
        }
    }
}

#[cfg(test)]
mod tests {
    use granary_nix_formats::StorePathHash;

    use super::*;

    fn path() -> StorePath {
        StorePath::new(StorePathHash::from_bytes([3; 20]), "it").expect("a valid name")
    }

    fn objects() -> Vec<ObjectName> {
        ObjectType::ALL.iter().map(|kind| ObjectName { kind: *kind, digest: [9; 32] }).collect()
    }

    #[test]
    fn every_finding_comes_back() {
        for severity in [Severity::Info, Severity::Warning, Severity::Error] {
            let bare = Finding {
                severity,
                problem: "it is broken".to_owned(),
                place: None,
                store_path: None,
                objects: Vec::new(),
            };
            let place = Some(PackPlace { pack: "0a".to_owned(), offset: 64 });
            let (store_path, objects) = (Some(path()), objects());
            let full = Finding { place, store_path, objects, ..bare.clone() };
            for finding in [bare, full] {
                let message = FindingMessage::from(&finding);
                assert_eq!(Finding::try_from(message), Ok(finding));
            }
        }
        let damaged = DamagedObject { object: objects()[0], store_paths: vec![path()] };
        assert_eq!(DamagedObject::try_from(DamagedObjectMessage::from(&damaged)), Ok(damaged));
    }

    #[test]
    fn every_number_comes_back() {
        let counts = VerifyCounts {
            packs: 1,
            objects: 2,
            checked_bytes: 3,
            store_paths: 4,
            nars: 5,
            signatures: 6,
            errors: 7,
            omitted_findings: 8,
        };
        assert_eq!(VerifyCounts::from(CountsMessage::from(counts)), counts);
        for phase in [VerifyPhase::Packs, VerifyPhase::Paths, VerifyPhase::Nars] {
            let progress = VerifyProgress { phase, done: 1, total: 2 };
            assert_eq!(VerifyProgress::try_from(ProgressMessage::from(progress)), Ok(progress));
        }
    }

    #[test]
    fn what_breaks_a_rule_is_named() {
        let object = StoredObject { kind: 0, digest: vec![0; 32].into() };
        let error = ObjectName::try_from(object.clone()).expect_err("no kind");
        assert_eq!(error.to_string(), "kind: it must be set");
        let short = StoredObject { kind: Kind::Chunk.into(), digest: vec![0; 31].into() };
        let error = ObjectName::try_from(short).expect_err("too short");
        assert_eq!(error.to_string(), "digest: it has 31 bytes instead of 32");
        let finding = FindingMessage { store_path: "/etc".to_owned(), ..FindingMessage::default() };
        assert!(Finding::try_from(finding).is_err());
        let damaged = DamagedObjectMessage { object: None, store_paths: Vec::new() };
        assert!(DamagedObject::try_from(damaged).is_err());
    }
}

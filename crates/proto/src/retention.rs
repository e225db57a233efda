//! What is kept and what goes.

use std::time::Duration;

use bytes::Bytes;
use granary_castore::Root;
use granary_nix_formats::StorePath;
use granary_store::{Deleted, GcOptions, GcReport, GcStage, Keeper, Package, Pin, PinTarget, Why};

use crate::{
    Breach, FieldError, blob_digest, directory_digest,
    granary::{
        CollectGarbageRequest, CollectionReport, DeletePathsResponse, KeepingPin,
        Pin as PinMessage, RemovedPackage, WhyResponse, collection_progress::Stage, pin::Target,
    },
};

/// A store path of its base name.
fn base_name(field: impl std::fmt::Display, text: &str) -> Result<StorePath, FieldError> {
    StorePath::from_base_name(text)
        .map_err(|error| FieldError { field: field.to_string(), breach: Breach::StorePath(error) })
}

fn base_names(field: &str, texts: &[String]) -> Result<Vec<StorePath>, FieldError> {
    let texts = texts.iter().enumerate();
    texts.map(|(index, text)| base_name(format_args!("{field}[{index}]"), text)).collect()
}

impl From<&GcOptions> for CollectGarbageRequest {
    fn from(options: &GcOptions) -> Self {
        Self {
            dry_run: options.dry_run,
            keep_for_s: options.keep_for.map(|keep_for| keep_for.as_secs()),
            max_stored_bytes: options.max_stored_bytes,
            max_unused_permille: options.max_unused_permille,
            bytes_per_s: options.bytes_per_s,
        }
    }
}

impl From<CollectGarbageRequest> for GcOptions {
    fn from(message: CollectGarbageRequest) -> Self {
        Self {
            dry_run: message.dry_run,
            keep_for: message.keep_for_s.map(Duration::from_secs),
            max_stored_bytes: message.max_stored_bytes,
            max_unused_permille: message.max_unused_permille,
            bytes_per_s: message.bytes_per_s,
        }
    }
}

impl From<GcStage> for Stage {
    fn from(stage: GcStage) -> Self {
        match stage {
            GcStage::Marking => Self::Marking,
            GcStage::Surveying => Self::Surveying,
            GcStage::Copying => Self::Copying,
        }
    }
}

/// `None` if it is one that is not known, as of a newer server.
impl From<Stage> for Option<GcStage> {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Unspecified => None,
            Stage::Marking => Some(GcStage::Marking),
            Stage::Surveying => Some(GcStage::Surveying),
            Stage::Copying => Some(GcStage::Copying),
        }
    }
}

impl From<GcReport> for CollectionReport {
    fn from(report: GcReport) -> Self {
        let packages = report.packages.into_iter().map(|package| {
            let Package { name, paths, bytes } = package;
            RemovedPackage { name, paths, bytes }
        });
        Self {
            dry_run: report.dry_run,
            kept_paths: report.kept_paths,
            removed_paths: report.removed_paths,
            packages: packages.collect(),
            expired_pins: report.expired_pins,
            removed_objects: report.removed_objects,
            stored_bytes_before: report.stored_bytes_before,
            stored_bytes_after: report.stored_bytes_after,
            unused_bytes_after: report.unused_bytes_after,
            copied_bytes: report.copied_bytes,
            removed_packs: report.removed_packs,
            damaged_packs: report.damaged_packs,
        }
    }
}

impl From<CollectionReport> for GcReport {
    fn from(message: CollectionReport) -> Self {
        let packages = message.packages.into_iter().map(|package| {
            let RemovedPackage { name, paths, bytes } = package;
            Package { name, paths, bytes }
        });
        Self {
            dry_run: message.dry_run,
            kept_paths: message.kept_paths,
            removed_paths: message.removed_paths,
            packages: packages.collect(),
            expired_pins: message.expired_pins,
            removed_objects: message.removed_objects,
            stored_bytes_before: message.stored_bytes_before,
            stored_bytes_after: message.stored_bytes_after,
            unused_bytes_after: message.unused_bytes_after,
            copied_bytes: message.copied_bytes,
            removed_packs: message.removed_packs,
            damaged_packs: message.damaged_packs,
        }
    }
}

impl From<&Deleted> for DeletePathsResponse {
    fn from(deleted: &Deleted) -> Self {
        Self {
            deleted: deleted.paths.iter().map(StorePath::base_name).collect(),
            kept: deleted.kept.iter().map(StorePath::base_name).collect(),
        }
    }
}

impl TryFrom<DeletePathsResponse> for Deleted {
    type Error = FieldError;

    fn try_from(message: DeletePathsResponse) -> Result<Self, FieldError> {
        Ok(Self {
            paths: base_names("deleted", &message.deleted)?,
            kept: base_names("kept", &message.kept)?,
        })
    }
}

impl From<&Why> for WhyResponse {
    fn from(why: &Why) -> Self {
        let mut response = Self {
            store_path: why.store_path.base_name(),
            used_unix_s: why.used_unix_s,
            referrers_used_unix_s: why.referrers_used_unix_s,
            own_bytes: why.own_bytes,
            closure_bytes: why.closure_bytes,
            ..Self::default()
        };
        for keeper in &why.keepers {
            match keeper {
                Keeper::Pin { name, path } => response.pins.push(KeepingPin {
                    name: name.clone(),
                    path: path.iter().map(StorePath::base_name).collect(),
                }),
                Keeper::Referrer(path) => response.referrers.push(path.base_name()),
            }
        }
        response
    }
}

impl TryFrom<WhyResponse> for Why {
    type Error = FieldError;

    fn try_from(message: WhyResponse) -> Result<Self, FieldError> {
        let mut keepers = Vec::new();
        for (index, KeepingPin { name, path }) in message.pins.into_iter().enumerate() {
            let path = base_names(&format!("pins[{index}].path"), &path)?;
            keepers.push(Keeper::Pin { name, path });
        }
        keepers
            .extend(base_names("referrers", &message.referrers)?.into_iter().map(Keeper::Referrer));
        Ok(Self {
            store_path: base_name("store_path", &message.store_path)?,
            keepers,
            used_unix_s: message.used_unix_s,
            referrers_used_unix_s: message.referrers_used_unix_s,
            own_bytes: message.own_bytes,
            closure_bytes: message.closure_bytes,
        })
    }
}

impl From<&Pin> for PinMessage {
    fn from(pin: &Pin) -> Self {
        let target = match &pin.target {
            PinTarget::Path(path) => Target::StorePath(path.base_name()),
            PinTarget::Root(Root::Blob(digest)) => {
                Target::Blob(Bytes::copy_from_slice(digest.as_bytes()))
            }
            PinTarget::Root(Root::Directory(digest)) => {
                Target::Directory(Bytes::copy_from_slice(digest.as_bytes()))
            }
        };
        Self {
            name: pin.name.clone(),
            target: Some(target),
            created_unix_s: pin.created_unix_s,
            expires_unix_s: pin.expires_unix_s,
        }
    }
}

impl TryFrom<PinMessage> for Pin {
    type Error = FieldError;

    fn try_from(message: PinMessage) -> Result<Self, FieldError> {
        let missing = || FieldError { field: "target".to_owned(), breach: Breach::Missing };
        let target = match message.target.ok_or_else(missing)? {
            Target::StorePath(path) => PinTarget::Path(base_name("store_path", &path)?),
            Target::Blob(digest) => PinTarget::Root(Root::Blob(blob_digest("blob", &digest)?)),
            Target::Directory(digest) => {
                PinTarget::Root(Root::Directory(directory_digest("directory", &digest)?))
            }
        };
        Ok(Self {
            name: message.name,
            target,
            created_unix_s: message.created_unix_s,
            expires_unix_s: message.expires_unix_s,
        })
    }
}

#[cfg(test)]
mod tests {
    use granary_castore::{BlobDigest, DirectoryDigest};
    use granary_nix_formats::StorePathHash;

    use super::*;

    fn path(name: &str) -> StorePath {
        StorePath::new(StorePathHash::from_bytes([3; 20]), name.to_owned()).expect("valid")
    }

    #[test]
    fn options_and_reports_come_back() {
        let options = GcOptions {
            dry_run: true,
            keep_for: Some(Duration::from_secs(7)),
            max_stored_bytes: Some(8),
            max_unused_permille: Some(9),
            bytes_per_s: Some(10),
        };
        for options in [options, GcOptions::default()] {
            assert_eq!(GcOptions::from(CollectGarbageRequest::from(&options)), options);
        }
        let report = GcReport {
            dry_run: true,
            kept_paths: 1,
            removed_paths: 2,
            packages: vec![Package { name: "x".to_owned(), paths: 3, bytes: 4 }],
            expired_pins: 5,
            removed_objects: 6,
            stored_bytes_before: 7,
            stored_bytes_after: 8,
            unused_bytes_after: 9,
            copied_bytes: 10,
            removed_packs: 11,
            damaged_packs: 12,
        };
        assert_eq!(GcReport::from(CollectionReport::from(report.clone())), report);
        for stage in [GcStage::Marking, GcStage::Surveying, GcStage::Copying] {
            assert_eq!(Option::from(Stage::from(stage)), Some(stage));
        }
    }

    #[test]
    fn pins_come_back_and_bad_ones_are_refused() {
        for target in [
            PinTarget::Path(path("x-1")),
            PinTarget::Root(Root::Blob(BlobDigest::from_bytes([1; 32]))),
            PinTarget::Root(Root::Directory(DirectoryDigest::from_bytes([2; 32]))),
        ] {
            let pin = Pin {
                name: "a name".to_owned(),
                target,
                created_unix_s: 4,
                expires_unix_s: Some(5),
            };
            let message = PinMessage::from(&pin);
            assert_eq!(Pin::try_from(message.clone()), Ok(pin));
            let error = Pin::try_from(PinMessage { target: None, ..message }).expect_err("none");
            assert_eq!(error.to_string(), "target: it must be set");
        }
        for (target, field) in [
            (Target::StorePath("x".to_owned()), "store_path"),
            (Target::Blob(Bytes::from_static(b"short")), "blob"),
            (Target::Directory(Bytes::new()), "directory"),
        ] {
            let message = PinMessage { target: Some(target), ..PinMessage::default() };
            assert_eq!(Pin::try_from(message).expect_err("bad").field, field);
        }
    }

    #[test]
    fn answers_come_back() {
        let why = Why {
            store_path: path("this-1"),
            keepers: vec![
                Keeper::Pin { name: "p".to_owned(), path: vec![path("a"), path("this-1")] },
                Keeper::Referrer(path("b")),
            ],
            used_unix_s: 1,
            referrers_used_unix_s: Some(2),
            own_bytes: 3,
            closure_bytes: 4,
        };
        assert_eq!(Why::try_from(WhyResponse::from(&why)), Ok(why));
        let deleted = Deleted { paths: vec![path("a")], kept: vec![path("b")] };
        assert_eq!(Deleted::try_from(DeletePathsResponse::from(&deleted)), Ok(deleted));
        let bad = DeletePathsResponse { deleted: vec!["x".to_owned()], kept: Vec::new() };
        assert_eq!(Deleted::try_from(bad).expect_err("no path").field, "deleted[0]");
    }
}

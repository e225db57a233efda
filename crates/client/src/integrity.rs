//! Verification of a store elsewhere, by the service that Granary has for it.

use granary_castore::{Error, Result};
use granary_nix_formats::StorePath;
use granary_proto::{
    FieldError, MAX_QUARANTINED,
    granary::{
        QuarantineRequest as RequestMessage, StoredObject, VerifyRequest, verify_event::Event,
    },
    store_path,
};
use granary_store::{
    IntegritySource, QuarantineRequest, VerifyObserver, VerifyOptions, VerifyReport,
};

use crate::{client::Client, status};

const VERIFYING: &str = "verifying the store";
const QUARANTINING: &str = "giving up what is damaged";

impl IntegritySource for Client {
    fn verify(
        &self,
        options: &VerifyOptions,
        observer: &dyn VerifyObserver,
    ) -> Result<VerifyReport> {
        let request = VerifyRequest {
            data: options.data,
            nar: options.nar,
            public_keys: options.public_keys.iter().map(ToString::to_string).collect(),
        };
        let connection = &self.connection;
        let failed = |status: tonic::Status| self.refused(VERIFYING, &status);
        let mut service = connection.integrity();
        let answer = connection.runtime.block_on(service.verify(request)).map_err(failed)?;
        let mut events = answer.into_inner();
        let mut report = VerifyReport::default();
        while let Some(event) = connection.runtime.block_on(events.message()).map_err(failed)? {
            let bad = |error: FieldError| status::bad_answer(VERIFYING, error);
            match event.event {
                Some(Event::Progress(progress)) => {
                    if observer.progress(progress.try_into().map_err(bad)?).is_break() {
                        return Err(Error::unavailable("the verification was stopped"));
                    }
                }
                Some(Event::Finding(finding)) => {
                    report.findings.push(finding.try_into().map_err(bad)?);
                }
                Some(Event::DamagedObject(damaged)) => {
                    report.damaged_objects.push(damaged.try_into().map_err(bad)?);
                }
                Some(Event::DamagedPath(path)) => {
                    report.damaged_paths.push(store_path("damaged_path", &path).map_err(bad)?);
                }
                Some(Event::Counts(counts)) => {
                    report.counts = counts.into();
                    return Ok(report);
                }
                // A newer server tells more.
                None => {}
            }
        }
        Err(Error::unavailable(format!("{VERIFYING}: the answer ended before its end")))
    }

    fn quarantine(&self, request: &QuarantineRequest) -> Result<u64> {
        let mut given_up = 0;
        let connection = &self.connection;
        let objects: Vec<_> = request.objects.iter().map(StoredObject::from).collect();
        let paths: Vec<_> = request.store_paths.iter().map(StorePath::absolute).collect();
        let (mut objects, mut paths) = (&objects[..], &paths[..]);
        while !objects.is_empty() || !paths.is_empty() {
            let (now, later) = objects.split_at(objects.len().min(MAX_QUARANTINED));
            let (paths_now, paths_later) = paths.split_at(paths.len().min(MAX_QUARANTINED));
            let message = RequestMessage { objects: now.to_vec(), store_paths: paths_now.to_vec() };
            let answer = connection.runtime.block_on(connection.integrity().quarantine(message));
            let answer = answer.map_err(|status| self.refused(QUARANTINING, &status))?;
            given_up += answer.into_inner().objects;
            (objects, paths) = (later, paths_later);
        }
        Ok(given_up)
    }
}

impl Client {
    fn refused(&self, doing: &str, status: &tonic::Status) -> Error {
        if status.code() == tonic::Code::Unimplemented {
            return Error::invalid(format!(
                "{doing}: {} is no Granary that can do that",
                self.url()
            ));
        }
        status::to_error(doing, status)
    }
}

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
    IntegritySource, QuarantineRequest, Quarantined, VerifyObserver, VerifyOptions, VerifyReport,
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
                    let told = observer.progress(progress.try_into().map_err(bad)?);
                    let stopped = || Error::unavailable("the verification was stopped");
                    told.is_continue().then_some(()).ok_or_else(stopped)?;
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

    fn quarantine(&self, request: &QuarantineRequest) -> Result<Quarantined> {
        let objects: Vec<_> = request.objects.iter().map(StoredObject::from).collect();
        let paths: Vec<_> = request.store_paths.iter().map(StorePath::absolute).collect();
        let mut messages = Vec::new();
        for objects in objects.chunks(MAX_QUARANTINED) {
            messages.push(RequestMessage { objects: objects.to_vec(), ..Default::default() });
        }
        // IMPORTANT: packs behind all objects, without which they cannot be moved; and paths last,
        // for then they may be looked at again.
        for packs in request.packs.chunks(MAX_QUARANTINED) {
            messages.push(RequestMessage { packs: packs.to_vec(), ..Default::default() });
        }
        for paths in paths.chunks(MAX_QUARANTINED) {
            messages.push(RequestMessage { store_paths: paths.to_vec(), ..Default::default() });
        }
        let (mut given_up, connection) = (Quarantined::default(), &self.connection);
        for message in messages {
            let answer = connection.runtime.block_on(connection.integrity().quarantine(message));
            let answer = answer.map_err(|status| self.refused(QUARANTINING, &status))?.into_inner();
            given_up.objects += answer.objects;
            given_up.packs.extend(answer.packs);
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

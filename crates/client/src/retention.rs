//! What is kept in a store elsewhere.

use bytes::Bytes;
use granary_castore::{Error, Result};
use granary_nix_formats::StorePathHash;
use granary_proto::{
    FieldError, MAX_DELETED_PATHS,
    granary::{
        AddPinRequest, CollectGarbageRequest, DeletePathsRequest, ListPinsRequest,
        Pin as PinMessage, RemovePinRequest, WhyRequest, collect_garbage_event::Event,
    },
};
use granary_store::{
    DeleteOptions, Deleted, GcObserver, GcOptions, GcReport, GcStage, Pin, Retention, Why,
};
use tonic::{Code, Status};

use crate::{client::Client, status};

const COLLECTING: &str = "collecting garbage";
const DELETING: &str = "deleting paths";
const ASKING: &str = "asking why a path is kept";
const PINNING: &str = "changing pins";
const LISTING: &str = "listing pins";

impl Retention for Client {
    fn collect_garbage(&self, options: &GcOptions, observer: &dyn GcObserver) -> Result<GcReport> {
        let failed = |status: Status| self.unable(COLLECTING, &status);
        let runtime = &self.connection.runtime;
        let mut service = self.connection.retention();
        let answer =
            runtime.block_on(service.collect_garbage(CollectGarbageRequest::from(options)));
        let mut events = answer.map_err(failed)?.into_inner();
        while let Some(event) = runtime.block_on(events.message()).map_err(failed)? {
            match event.event {
                Some(Event::Progress(progress)) => {
                    if let Some(stage) = Option::<GcStage>::from(progress.stage()) {
                        observer.progress(stage, progress.done, progress.total);
                    }
                }
                Some(Event::Report(report)) => return Ok(report.into()),
                // A newer server tells more.
                None => {}
            }
        }
        Err(Error::unavailable(format!("{COLLECTING}: the answer ended before its end")))
    }

    fn delete_paths(&self, paths: &[StorePathHash], options: DeleteOptions) -> Result<Deleted> {
        if paths.len() > MAX_DELETED_PATHS {
            // They must go together, or what keeps what would not be known.
            return Err(Error::too_large(format!(
                "{DELETING}: there are {}, and at most {MAX_DELETED_PATHS} at a time",
                paths.len()
            )));
        }
        let DeleteOptions { closure, force } = options;
        let hashes = paths.iter().map(|hash| Bytes::copy_from_slice(hash.as_bytes())).collect();
        let mut service = self.connection.retention();
        let request = DeletePathsRequest { hashes, closure, force };
        let answer = self.connection.runtime.block_on(service.delete_paths(request));
        let answer = answer.map_err(|status| self.unable(DELETING, &status))?;
        answer.into_inner().try_into().map_err(|error| status::bad_answer(DELETING, error))
    }

    fn why(&self, path: &StorePathHash) -> Result<Option<Why>> {
        let hash = Bytes::copy_from_slice(path.as_bytes());
        let mut service = self.connection.retention();
        match self.connection.runtime.block_on(service.why(WhyRequest { hash })) {
            Ok(answer) => answer
                .into_inner()
                .try_into()
                .map(Some)
                .map_err(|error: FieldError| status::bad_answer(ASKING, error)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.unable(ASKING, &status)),
        }
    }

    fn add_pin(&self, pin: Pin) -> Result<()> {
        let mut service = self.connection.retention();
        let request = AddPinRequest { pin: Some(PinMessage::from(&pin)) };
        let answer = self.connection.runtime.block_on(service.add_pin(request));
        answer.map(drop).map_err(|status| self.unable(PINNING, &status))
    }

    fn remove_pin(&self, name: &str) -> Result<bool> {
        let mut service = self.connection.retention();
        let request = RemovePinRequest { name: name.to_owned() };
        let answer = self.connection.runtime.block_on(service.remove_pin(request));
        let answer = answer.map_err(|status| self.unable(PINNING, &status))?;
        Ok(answer.into_inner().removed)
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        let failed = |status: Status| self.unable(LISTING, &status);
        let runtime = &self.connection.runtime;
        let mut service = self.connection.retention();
        let answer = runtime.block_on(service.list_pins(ListPinsRequest {})).map_err(failed)?;
        let (mut messages, mut pins) = (answer.into_inner(), Vec::new());
        while let Some(pin) = runtime.block_on(messages.message()).map_err(failed)? {
            let pin = pin.try_into().map_err(|error| status::bad_answer(LISTING, error))?;
            pins.push(pin);
        }
        Ok(pins)
    }
}

impl Client {
    fn unable(&self, doing: &str, status: &Status) -> Error {
        if status.code() == Code::Unimplemented {
            return Error::invalid(format!(
                "{doing}: {} is no Granary that can do that",
                self.url()
            ));
        }
        status::to_error(doing, status)
    }
}

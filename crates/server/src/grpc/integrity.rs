//! `granary.v1.IntegrityService`.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::stream::{BoxStream, StreamExt};
use granary_castore::{ObjectName, Result};
use granary_nix_formats::{PublicKey, StorePath};
use granary_proto::{
    FieldError, MAX_QUARANTINED,
    granary::{
        QuarantineRequest, QuarantineResponse, VerifyEvent, VerifyRequest,
        integrity_service_server::IntegrityService, verify_event::Event,
    },
    store_path,
};
use granary_store::{
    IntegritySource, Quarantined, VerifyObserver, VerifyOptions, VerifyProgress, VerifyReport,
};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{blocking, permission, status};
use crate::event_loops;

/// Events that wait for the client.
const QUEUED_EVENTS: usize = 64;

/// How often a client hears how far it is, at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Serves what checks the store.
#[derive(Clone)]
pub(super) struct Integrity {
    pub(super) source: Arc<dyn IntegritySource>,
}

type Events = mpsc::Sender<Result<VerifyEvent, Status>>;

#[tonic::async_trait]
impl IntegrityService for Integrity {
    type VerifyStream = BoxStream<'static, Result<VerifyEvent, Status>>;

    async fn verify(
        &self,
        request: Request<VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        permission::to_write(&request)?;
        let VerifyRequest { data, nar, public_keys } = request.into_inner();
        let public_keys = public_keys.iter().map(|key| PublicKey::parse(key));
        let public_keys = public_keys
            .collect::<Result<_, _>>()
            .map_err(|error| Status::invalid_argument(format!("public_keys: {error}")))?;
        let options = VerifyOptions { data, nar, public_keys };
        let (events, receiver) = mpsc::channel(QUEUED_EVENTS);
        let source = self.source.clone();
        event_loops::spawn_blocking(move || {
            let observer = Reporter { events: events.clone(), told: Mutex::new(None) };
            match source.verify(&options, &observer) {
                Ok(report) => tell(&events, &report),
                // If the client is gone, nobody is told.
                Err(error) => drop(events.blocking_send(Err(status::of_error(&error)))),
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn quarantine(
        &self,
        request: Request<QuarantineRequest>,
    ) -> Result<Response<QuarantineResponse>, Status> {
        permission::to_write(&request)?;
        let QuarantineRequest { objects, store_paths, packs } = request.into_inner();
        let most = objects.len().max(store_paths.len()).max(packs.len());
        if most > MAX_QUARANTINED {
            return Err(Status::resource_exhausted(format!(
                "there are {most} objects, store paths or packs, and at most {MAX_QUARANTINED} in \
                 one request"
            )));
        }
        let objects = objects.into_iter().map(ObjectName::try_from);
        let paths = store_paths.iter().map(|path| store_path("store_paths", path));
        let objects: Result<Vec<ObjectName>, FieldError> = objects.collect();
        let store_paths: Result<Vec<StorePath>, FieldError> = paths.collect();
        let request = granary_store::QuarantineRequest {
            objects: objects.map_err(|error| status::of_field(&error))?,
            store_paths: store_paths.map_err(|error| status::of_field(&error))?,
            packs,
        };
        let source = self.source.clone();
        let Quarantined { objects, packs } =
            blocking::run(move || source.quarantine(&request)).await?;
        Ok(Response::new(QuarantineResponse { objects, packs }))
    }
}

/// Tells the client how far it is, and ends the verification when the client is gone.
struct Reporter {
    events: Events,
    told: Mutex<Option<(VerifyProgress, Instant)>>,
}

impl VerifyObserver for Reporter {
    fn progress(&self, progress: VerifyProgress) -> ControlFlow<()> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told.as_ref().is_none_or(|(before, at)| {
            before.phase != progress.phase || at.elapsed() >= PROGRESS_INTERVAL
        });
        if !is_due {
            return if self.events.is_closed() { stop() } else { ControlFlow::Continue(()) };
        }
        *told = Some((progress, Instant::now()));
        match self.events.try_send(Ok(event(Event::Progress(progress.into())))) {
            // A client that is slow hears less.
            Ok(()) | Err(TrySendError::Full(_)) => ControlFlow::Continue(()),
            Err(TrySendError::Closed(_)) => stop(),
        }
    }
}

fn stop() -> ControlFlow<()> {
    tracing::info!("a verification ends, since its client is gone");
    ControlFlow::Break(())
}

fn event(event: Event) -> VerifyEvent {
    VerifyEvent { event: Some(event) }
}

/// Sends the whole report, as fast as the client takes it.
fn tell(events: &Events, report: &VerifyReport) {
    let findings = report.findings.iter().map(|finding| Event::Finding(finding.into()));
    let objects = report.damaged_objects.iter().map(|damaged| Event::DamagedObject(damaged.into()));
    let paths = report.damaged_paths.iter().map(|path| Event::DamagedPath(path.absolute()));
    let counts = std::iter::once(Event::Counts(report.counts.into()));
    for next in findings.chain(objects).chain(paths).chain(counts) {
        if events.blocking_send(Ok(event(next))).is_err() {
            return;
        }
    }
}

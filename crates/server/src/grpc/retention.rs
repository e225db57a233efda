//! `granary.v1.RetentionService`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::stream::{self, BoxStream, StreamExt};
use granary_proto::{
    MAX_DELETED_PATHS,
    granary::{
        AddPinRequest, AddPinResponse, CollectGarbageEvent, CollectGarbageRequest,
        CollectionProgress, DeletePathsRequest, DeletePathsResponse, ListPinsRequest,
        Pin as PinMessage, RemovePinRequest, RemovePinResponse, WhyRequest, WhyResponse,
        collect_garbage_event::Event, collection_progress::Stage,
        retention_service_server::RetentionService,
    },
    store_path_hash,
};
use granary_store::{DeleteOptions, GcObserver, GcOptions, GcStage, Pin};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{blocking, permission, status};
use crate::event_loops;

/// Events that wait for the client.
const QUEUED_EVENTS: usize = 16;

/// How often a client hears how far it is, at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Serves what is kept and what goes.
#[derive(Clone)]
pub(super) struct Retention {
    pub(super) retention: Arc<dyn granary_store::Retention>,
}

type Events = mpsc::Sender<Result<CollectGarbageEvent, Status>>;

#[tonic::async_trait]
impl RetentionService for Retention {
    type CollectGarbageStream = BoxStream<'static, Result<CollectGarbageEvent, Status>>;

    async fn collect_garbage(
        &self,
        request: Request<CollectGarbageRequest>,
    ) -> Result<Response<Self::CollectGarbageStream>, Status> {
        permission::to_write(&request)?;
        let options = GcOptions::from(request.into_inner());
        let (events, receiver) = mpsc::channel(QUEUED_EVENTS);
        let retention = self.retention.clone();
        event_loops::spawn_blocking(move || {
            let observer = Reporter { events: events.clone(), told: Mutex::new(None) };
            let result = retention.collect_garbage(&options, &observer);
            let last = match result {
                Ok(report) => Ok(event(Event::Report(report.into()))),
                Err(error) => Err(status::of_error(&error)),
            };
            // If the client is gone, nobody is told.
            drop(events.blocking_send(last));
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn delete_paths(
        &self,
        request: Request<DeletePathsRequest>,
    ) -> Result<Response<DeletePathsResponse>, Status> {
        permission::to_write(&request)?;
        let DeletePathsRequest { hashes, closure, force } = request.into_inner();
        if hashes.len() > MAX_DELETED_PATHS {
            return Err(Status::resource_exhausted(format!(
                "hashes: there are {}, and at most {MAX_DELETED_PATHS} in one request",
                hashes.len()
            )));
        }
        let hashes = hashes
            .iter()
            .enumerate()
            .map(|(index, hash)| store_path_hash(format_args!("hashes[{index}]"), hash))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| status::of_field(&error))?;
        let retention = self.retention.clone();
        let options = DeleteOptions { closure, force };
        let deleted = blocking::run(move || retention.delete_paths(&hashes, options)).await?;
        Ok(Response::new((&deleted).into()))
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyResponse>, Status> {
        // It costs as much as marking the whole store.
        permission::to_write(&request)?;
        let hash = store_path_hash("hash", &request.into_inner().hash)
            .map_err(|error| status::of_field(&error))?;
        let retention = self.retention.clone();
        let why = blocking::run(move || retention.why(&hash)).await?;
        let why = why.ok_or_else(|| Status::not_found(format!("no path {hash} is stored")))?;
        Ok(Response::new((&why).into()))
    }

    async fn add_pin(
        &self,
        request: Request<AddPinRequest>,
    ) -> Result<Response<AddPinResponse>, Status> {
        permission::to_write(&request)?;
        let pin = request.into_inner().pin;
        let pin = pin.ok_or_else(|| Status::invalid_argument("pin: it must be set"))?;
        let mut pin = Pin::try_from(pin).map_err(|error| status::of_field(&error))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        pin.created_unix_s = now.map_or(0, |since| since.as_secs());
        let retention = self.retention.clone();
        blocking::run(move || retention.add_pin(pin)).await?;
        Ok(Response::new(AddPinResponse {}))
    }

    async fn remove_pin(
        &self,
        request: Request<RemovePinRequest>,
    ) -> Result<Response<RemovePinResponse>, Status> {
        permission::to_write(&request)?;
        let RemovePinRequest { name } = request.into_inner();
        let retention = self.retention.clone();
        let removed = blocking::run(move || retention.remove_pin(&name)).await?;
        Ok(Response::new(RemovePinResponse { removed }))
    }

    type ListPinsStream = BoxStream<'static, Result<PinMessage, Status>>;

    async fn list_pins(
        &self,
        _request: Request<ListPinsRequest>,
    ) -> Result<Response<Self::ListPinsStream>, Status> {
        let retention = self.retention.clone();
        let pins = blocking::run(move || retention.pins()).await?;
        let pins = pins.into_iter().map(|pin| Ok(PinMessage::from(&pin)));
        Ok(Response::new(stream::iter(pins).boxed()))
    }
}

fn event(event: Event) -> CollectGarbageEvent {
    CollectGarbageEvent { event: Some(event) }
}

/// Tells the client how far it is. A client that is slow hears less.
struct Reporter {
    events: Events,
    told: Mutex<Option<(GcStage, Instant)>>,
}

impl GcObserver for Reporter {
    fn progress(&self, stage: GcStage, done: u64, total: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due =
            told.is_none_or(|(before, at)| before != stage || at.elapsed() >= PROGRESS_INTERVAL);
        if is_due {
            *told = Some((stage, Instant::now()));
            let stage = Stage::from(stage).into();
            let progress = CollectionProgress { stage, done, total };
            drop(self.events.try_send(Ok(event(Event::Progress(progress)))));
        }
    }
}

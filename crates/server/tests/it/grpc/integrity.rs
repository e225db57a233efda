//! `granary.v1.IntegrityService`.

use std::ops::ControlFlow;

use granary_castore::{Error, ObjectName, ObjectType, Result};
use granary_proto::{
    MAX_QUARANTINED,
    granary::{
        QuarantineRequest as RequestMessage, StoredObject, VerifyRequest,
        integrity_service_client::IntegrityServiceClient, stored_object::Kind, verify_event::Event,
    },
};
use granary_store::{
    IntegritySource, QuarantineRequest, Quarantined, VerifyCounts, VerifyObserver, VerifyOptions,
    VerifyPhase, VerifyProgress, VerifyReport,
};
use tonic::{Code, transport::Channel};

use super::{Server, all, refused};

/// Verifies nothing, in steps that it tells of. Asked for NARs it goes on until it is stopped.
pub(super) struct FixedIntegrity;

impl IntegritySource for FixedIntegrity {
    fn verify(
        &self,
        options: &VerifyOptions,
        observer: &dyn VerifyObserver,
    ) -> Result<VerifyReport> {
        let mut done = 0;
        while options.nar || done < 3 {
            done += 1;
            let progress = VerifyProgress { phase: VerifyPhase::Packs, done, total: 3 };
            if observer.progress(progress) == ControlFlow::Break(()) {
                return Err(Error::unavailable("it was stopped"));
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let counts = VerifyCounts { packs: 7, signatures: 9, ..VerifyCounts::default() };
        Ok(VerifyReport { counts, ..VerifyReport::default() })
    }

    fn quarantine(&self, request: &QuarantineRequest) -> Result<Quarantined> {
        let packs = request.packs.clone();
        Ok(Quarantined { objects: request.objects.len() as u64, packs })
    }
}

impl Server {
    pub(super) fn integrity(&self) -> IntegrityServiceClient<Channel> {
        IntegrityServiceClient::new(self.channel.clone())
    }
}

#[tokio::test]
async fn progress_comes_first_and_counts_last() {
    let server = Server::start().await;
    let events = server.integrity().verify(VerifyRequest::default()).await.expect("it runs");
    let events = all(events.into_inner()).await.expect("it ends");
    let mut events: Vec<_> = events.into_iter().filter_map(|event| event.event).collect();
    let Some(Event::Counts(counts)) = events.pop() else { panic!("{events:?}") };
    assert_eq!((counts.packs, counts.signatures), (7, 9));
    assert!(!events.is_empty());
    assert!(events.iter().all(|event| matches!(event, Event::Progress(_))), "{events:?}");
}

#[tokio::test]
async fn it_ends_when_the_client_is_gone() {
    let server = Server::start().await;
    let endless = VerifyRequest { nar: true, ..VerifyRequest::default() };
    let mut events = server.integrity().verify(endless).await.expect("it runs").into_inner();
    events.message().await.expect("progress").expect("an event");
    // The runtime waits for threads that block: the test ends only if the verification does.
    drop(events);
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused() {
    let server = Server::start().await;
    let key = VerifyRequest { public_keys: vec!["nonsense".to_owned()], ..Default::default() };
    let start = "public_keys: ";
    refused(server.integrity().verify(key).await, Code::InvalidArgument, start);
    let quarantine = async |kind: i32, bytes: usize, count: usize| {
        let object = StoredObject { kind, digest: vec![1; bytes].into() };
        let objects = vec![object; count];
        let request = RequestMessage { objects, ..Default::default() };
        server.integrity().quarantine(request).await
    };
    let chunk = Kind::Chunk.into();
    let most = quarantine(chunk, 32, MAX_QUARANTINED).await.expect("as many as are allowed");
    assert_eq!(most.into_inner().objects, MAX_QUARANTINED as u64);
    let many = quarantine(chunk, 32, MAX_QUARANTINED + 1).await;
    refused(many, Code::ResourceExhausted, "there are ");
    refused(quarantine(chunk, 31, 1).await, Code::InvalidArgument, "digest: ");
    refused(quarantine(0, 32, 1).await, Code::InvalidArgument, "kind: ");
    let store_paths = vec!["/etc".to_owned()];
    let request = RequestMessage { store_paths, ..Default::default() };
    let path = server.integrity().quarantine(request).await;
    refused(path, Code::InvalidArgument, "store_paths: ");
    let name = ObjectName { kind: ObjectType::Chunk, digest: [1; 32] };
    assert_eq!(StoredObject::from(&name).kind, chunk);
}

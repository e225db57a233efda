//! Health, of each service and of the whole.

use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{Server, refused};

#[tokio::test]
async fn every_service_is_serving() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel.clone());
    for service in [
        "",
        "tvix.castore.v1.BlobService",
        "tvix.castore.v1.DirectoryService",
        "tvix.store.v1.PathInfoService",
        "snix.castore.v1.BlobService",
        "snix.castore.v1.DirectoryService",
        "snix.store.v1.PathInfoService",
        "granary.v1.StoreService",
        "granary.v1.IntegrityService",
    ] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.expect("a known service").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let request = HealthCheckRequest { service: "tvix.castore.v1.NoService".to_owned() };
    refused(health.check(request).await, Code::NotFound, "");
}

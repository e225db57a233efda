//! Which service answers which path.

use std::{convert::Infallible, sync::Arc};

use axum::{Router, response::IntoResponse};
use granary_castore::Castore;
use granary_proto::{
    FILE_DESCRIPTOR_SET, MAX_BLOB_CHUNK_BYTES, MAX_DIRECTORY_BYTES, MAX_MISSING_BLOBS,
    MAX_PATH_INFO_BYTES, MAX_QUARANTINED,
    castore::{
        blob_service_server::BlobServiceServer, directory_service_server::DirectoryServiceServer,
    },
    granary::{
        integrity_service_server::{self, IntegrityServiceServer},
        retention_service_server::{self, RetentionServiceServer},
        store_service_server::{self, StoreServiceServer},
    },
    store::path_info_service_server::PathInfoServiceServer,
};
use granary_store::{IntegritySource, PathInfoService, Retention, StatsSource};
use http::{StatusCode, header::CONTENT_TYPE};
use tonic::{Code, Status, body::Body, server::NamedService};
use tonic_health::ServingStatus;
use tower::{Service, ServiceExt, service_fn};

use super::{
    GrpcOptions,
    blob::Blobs,
    directory::Directories,
    integrity::Integrity,
    names::{self, Names},
    path_info::PathInfos,
    retention,
    store::Store,
    uploads::Uploads,
    windows::Windows,
};

/// Most bytes of an encoded `MissingBlobsRequest`: key and length of each digest are 2
/// bytes. One digest more fits, so that it is the handler who refuses it.
const MAX_MISSING_BLOBS_BYTES: usize = (MAX_MISSING_BLOBS + 1) * (2 + 32);

/// Most bytes of an encoded `QuarantineRequest`: objects with their digests, store paths of at
/// most 235 bytes, and packs. One more of each fits, so that it is the handler who refuses it.
const MAX_QUARANTINE_BYTES: usize = (MAX_QUARANTINED + 1) * (40 + 240 + 40);

/// What the services speak for.
#[derive(Clone)]
pub struct GrpcServices {
    /// Blobs and directories.
    pub castore: Arc<dyn Castore>,
    /// Path infos.
    pub path_infos: Arc<dyn PathInfoService>,
    /// The numbers of the store.
    pub stats: Arc<dyn StatsSource>,
    /// What checks the store; without it there is no such service.
    pub integrity: Option<Arc<dyn IntegritySource>>,
    /// What is kept and what goes, if the contents can be collected.
    pub retention: Option<Arc<dyn Retention>>,
}

/// All gRPC services, with health and reflection, and routes for nothing else. What no
/// route takes is the business of [`fallback`], or of whoever merges this router with
/// another.
///
/// A request may write if it has an [`Access`](crate::Access) in its extensions that says
/// so.
pub async fn router(services: GrpcServices) -> Router {
    router_with(services, GrpcOptions::default()).await
}

/// [`router`] with other settings than the usual ones.
pub async fn router_with(services: GrpcServices, options: GrpcOptions) -> Router {
    let GrpcServices { castore, path_infos, stats, integrity, retention } = services;
    let (windows, uploads) = (Windows::default(), Uploads::new(&options));
    let counting = uploads.clone();
    let counted = move |request| counting.prepare(request);
    let blobs = BlobServiceServer::new(Blobs::new(castore.clone(), uploads.clone()))
        .max_decoding_message_size(MAX_BLOB_CHUNK_BYTES)
        .map_request(counted.clone());
    let directories = Directories { castore: castore.clone(), windows: windows.clone(), uploads };
    let directories = DirectoryServiceServer::new(directories)
        .max_decoding_message_size(MAX_DIRECTORY_BYTES)
        .map_request(counted);
    let path_infos = PathInfoServiceServer::new(PathInfos { service: path_infos, windows })
        .max_decoding_message_size(MAX_PATH_INFO_BYTES);
    let store = StoreServiceServer::new(Store { castore, stats })
        .max_decoding_message_size(MAX_MISSING_BLOBS_BYTES);

    let mut router = Router::new();
    let (health, health_server) = tonic_health::server::health_reporter();
    let two_named = [names::BLOBS, names::DIRECTORIES, names::PATH_INFOS];
    let names = two_named.iter().flat_map(|names| [names.older, names.newer]);
    for name in names.chain([store_service_server::SERVICE_NAME]) {
        health.set_service_status(name, ServingStatus::Serving).await;
    }
    router = both_names(router, names::BLOBS, blobs);
    router = both_names(router, names::DIRECTORIES, directories);
    router = both_names(router, names::PATH_INFOS, path_infos);
    router = one_name(router, store);
    if let Some(source) = integrity {
        let name = integrity_service_server::SERVICE_NAME;
        health.set_service_status(name, ServingStatus::Serving).await;
        let integrity = IntegrityServiceServer::new(Integrity { source })
            .max_decoding_message_size(MAX_QUARANTINE_BYTES);
        router = one_name(router, integrity);
    }
    if let Some(retention) = retention {
        health
            .set_service_status(retention_service_server::SERVICE_NAME, ServingStatus::Serving)
            .await;
        let retention = RetentionServiceServer::new(retention::Retention { retention });
        router = one_name(router, retention);
    }
    router = one_name(router, health_server);
    reflection(router)
}

/// The services for reflection, in both versions; each describes everything.
fn reflection(router: Router) -> Router {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .include_reflection_service(false)
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(
                tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
            )
    };
    let why = "the descriptors are made at build time, and tests read them";
    let router = one_name(router, builder().build_v1().expect(why));
    one_name(router, builder().build_v1alpha().expect(why))
}

/// What a generated server is.
trait Server:
    Service<
        http::Request<Body>,
        Response = http::Response<Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Server for S where
    S: Service<
            http::Request<Body>,
            Response = http::Response<Body>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

fn one_name<S: Server + NamedService>(router: Router, server: S) -> Router {
    route(router, S::NAME, Names { older: S::NAME, newer: S::NAME }, server)
}

fn both_names<S: Server>(router: Router, names: Names, server: S) -> Router {
    let router = route(router, names.older, names, server.clone());
    route(router, names.newer, names, server)
}

fn route<S: Server>(router: Router, name: &str, names: Names, server: S) -> Router {
    let service = service_fn(move |request: axum::extract::Request| {
        let server = server.clone();
        async move {
            if !is_grpc(&request) {
                return Ok::<_, Infallible>(StatusCode::NOT_FOUND.into_response());
            }
            let (mut parts, body) = request.into_parts();
            parts.uri = names.older_uri(parts.uri);
            let response =
                server.oneshot(http::Request::from_parts(parts, Body::new(body))).await?;
            Ok(exhausted(response).map(axum::body::Body::new))
        }
    });
    router.route_service(&format!("/{name}/{{*method}}"), service)
}

/// tonic calls a message above its limit out of range, before a handler sees it; but what
/// ran out is the space for it.
fn exhausted(response: http::Response<Body>) -> http::Response<Body> {
    match response.extensions().get::<Status>() {
        Some(status) if status.code() == Code::OutOfRange => {
            Status::resource_exhausted(format!("the request: {}", status.message())).into_http()
        }
        _ => response,
    }
}

fn is_grpc(request: &axum::extract::Request) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Answers what no route takes: `UNIMPLEMENTED` if it is gRPC, else 404.
pub async fn fallback(request: axum::extract::Request) -> axum::response::Response {
    if is_grpc(&request) {
        let path = request.uri().path();
        Status::unimplemented(format!("there is no service at {path}")).into_http()
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}

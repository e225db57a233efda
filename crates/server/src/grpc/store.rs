//! `granary.v1.StoreService`: what our own client asks beside the services of others.

use std::sync::Arc;

use granary_castore::{Castore, Root, Touch};
use granary_proto::{
    MAX_MISSING_BLOBS, blob_digest,
    granary::{
        MissingBlobsRequest, MissingBlobsResponse, StatsRequest, StatsResponse,
        store_service_server::StoreService,
    },
};
use granary_store::StatsSource;
use tonic::{Request, Response, Status};

use super::{blocking, status};

/// Serves what is known of the store as a whole.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) castore: Arc<dyn Castore>,
    pub(super) stats: Arc<dyn StatsSource>,
}

#[tonic::async_trait]
impl StoreService for Store {
    async fn stats(
        &self,
        _request: Request<StatsRequest>,
    ) -> Result<Response<StatsResponse>, Status> {
        let source = self.stats.clone();
        let stats = blocking::run(move || source.stats()).await?;
        Ok(Response::new(stats.into()))
    }

    async fn missing_blobs(
        &self,
        request: Request<MissingBlobsRequest>,
    ) -> Result<Response<MissingBlobsResponse>, Status> {
        let asked = request.into_inner().digests;
        if asked.len() > MAX_MISSING_BLOBS {
            return Err(Status::resource_exhausted(format!(
                "digests: there are {}, and at most {MAX_MISSING_BLOBS} in one request",
                asked.len()
            )));
        }
        let castore = self.castore.clone();
        let digests = asked.into_iter().enumerate().map(|(index, bytes)| {
            blob_digest(format_args!("digests[{index}]"), &bytes).map(|digest| (digest, bytes))
        });
        let digests =
            digests.collect::<Result<Vec<_>, _>>().map_err(|error| status::of_field(&error))?;
        let missing = blocking::run(move || {
            let mut missing = Vec::new();
            for (digest, bytes) in digests {
                // The client is going to rely on what is not missing.
                if !castore.touch(&Root::Blob(digest), Touch::Lease)? {
                    missing.push(bytes);
                }
            }
            Ok(missing)
        });
        Ok(Response::new(MissingBlobsResponse { missing: missing.await? }))
    }
}

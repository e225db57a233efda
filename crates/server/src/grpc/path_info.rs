//! `PathInfoService`.

use std::sync::Arc;

use futures::stream::BoxStream;
use granary_nix_formats::StorePathHash;
use granary_proto::{
    anonymous_node, castore, encoded_len,
    store::{
        CalculateNarResponse, GetPathInfoRequest, ListPathInfoRequest, PathInfo,
        get_path_info_request::ByWhat, path_info_service_server::PathInfoService,
    },
    store_path_hash,
};
use tonic::{Request, Response, Status};

use super::{
    blocking, permission, status,
    windows::{Length, Windows},
};

/// How many path infos are read from the store together; they are all that a short window has.
const PAGE: usize = 32;

/// How many bytes of them a long window has, about.
const WINDOW_BYTES: usize = 256 << 10;

/// Serves the path infos of a store.
#[derive(Clone)]
pub(super) struct PathInfos {
    pub(super) service: Arc<dyn granary_store::PathInfoService>,
    pub(super) windows: Windows,
}

type Stream = BoxStream<'static, Result<PathInfo, Status>>;

#[tonic::async_trait]
impl PathInfoService for PathInfos {
    async fn get(
        &self,
        request: Request<GetPathInfoRequest>,
    ) -> Result<Response<PathInfo>, Status> {
        let Some(ByWhat::ByOutputHash(hash)) = request.into_inner().by_what else {
            return Err(Status::invalid_argument("by_output_hash: it must be set"));
        };
        let hash = store_path_hash("by_output_hash", &hash).map_err(|e| status::of_field(&e))?;
        let service = self.service.clone();
        let found = move || Ok(service.path_info(&hash)?.as_ref().map(PathInfo::from));
        let found = blocking::run(found).await?;
        let absent = || Status::not_found(format!("there is no path info of {hash}"));
        found.map(Response::new).ok_or_else(absent)
    }

    async fn put(&self, request: Request<PathInfo>) -> Result<Response<PathInfo>, Status> {
        permission::to_write(&request)?;
        let path_info = granary_store::PathInfo::try_from(request.into_inner())
            .map_err(|error| status::of_field(&error))?;
        let service = self.service.clone();
        let kept = move || Ok(PathInfo::from(&service.put_path_info(path_info)?));
        blocking::run(kept).await.map(Response::new)
    }

    async fn calculate_nar(
        &self,
        request: Request<castore::Node>,
    ) -> Result<Response<CalculateNarResponse>, Status> {
        let node = anonymous_node(request.into_inner()).map_err(|e| status::of_field(&e))?;
        let service = self.service.clone();
        let nar = blocking::run(move || service.calculate_nar(&node)).await?;
        let absent = || Status::not_found("not all contents of the node are stored");
        nar.as_ref().map(CalculateNarResponse::from).map(Response::new).ok_or_else(absent)
    }

    type ListStream = Stream;

    async fn list(
        &self,
        _request: Request<ListPathInfoRequest>,
    ) -> Result<Response<Stream>, Status> {
        Ok(Response::new(list(&self.windows, self.service.clone())))
    }
}

/// All path infos.
fn list(windows: &Windows, service: Arc<dyn granary_store::PathInfoService>) -> Stream {
    windows.stream(Some(None), move |mut position: Option<Option<StorePathHash>>, length| {
        let max_bytes = match length {
            Length::Long => WINDOW_BYTES,
            // A page has more than that.
            Length::Short => 1,
        };
        let (mut window, mut bytes) = (Vec::new(), 0);
        while let Some(after) = position
            && bytes < max_bytes
        {
            let page = service.path_infos_after(after.as_ref(), PAGE)?;
            let last = page.last().map(|path_info| *path_info.store_path.hash());
            position = last.filter(|_| page.len() == PAGE).map(Some);
            for path_info in &page {
                let message = PathInfo::from(path_info);
                bytes += encoded_len(&message);
                window.push(message);
            }
        }
        Ok((window, position))
    })
}

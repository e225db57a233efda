//! Path infos on a server.

use std::sync::Arc;

use bytes::Bytes;
use granary_castore::{Node, Result};
use granary_nix_formats::StorePathHash;
use granary_proto::{
    named_node, nar_digest,
    store::{
        GetPathInfoRequest, ListPathInfoRequest, PathInfo as Message, get_path_info_request::ByWhat,
    },
};
use granary_store::{NarDigest, PathInfo, PathInfoService};
use tonic::{Code, Status, Streaming};

use crate::{
    client::{Client, Connection},
    status,
};

impl PathInfoService for Client {
    fn path_info(&self, hash: &StorePathHash) -> Result<Option<PathInfo>> {
        let by_what = Some(ByWhat::ByOutputHash(Bytes::copy_from_slice(hash.as_bytes())));
        let mut path_infos = self.connection.path_infos();
        let answer = path_infos.get(GetPathInfoRequest { by_what });
        let doing = format!("asking for path info {hash}");
        match self.connection.runtime.block_on(answer) {
            Ok(answer) => check(&doing, answer.into_inner()).map(Some),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status::to_error(&doing, &status)),
        }
    }

    fn put_path_info(&self, path_info: PathInfo) -> Result<PathInfo> {
        let doing = format!("storing the path info of {}", path_info.store_path);
        let mut path_infos = self.connection.path_infos();
        let answer = self.connection.runtime.block_on(path_infos.put(Message::from(&path_info)));
        let answer = answer.map_err(|status| status::to_error(&doing, &status))?;
        check(&doing, answer.into_inner())
    }

    fn path_infos(&self) -> Box<dyn Iterator<Item = Result<PathInfo>> + Send + '_> {
        let connection = Arc::clone(&self.connection);
        Box::new(Listing { connection, messages: None, ended: false })
    }

    fn calculate_nar(&self, node: &Node) -> Result<Option<NarDigest>> {
        const DOING: &str = "asking for the size and hash of a NAR";
        let mut path_infos = self.connection.path_infos();
        let answer = path_infos.calculate_nar(named_node(Bytes::new(), node));
        match self.connection.runtime.block_on(answer) {
            Ok(answer) => nar_digest(answer.get_ref())
                .map(Some)
                .map_err(|error| status::bad_answer(DOING, error)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status::to_error(DOING, &status)),
        }
    }
}

fn check(doing: &str, message: Message) -> Result<PathInfo> {
    PathInfo::try_from(message).map_err(|error| status::bad_answer(doing, error))
}

/// All path infos as they come in.
struct Listing {
    connection: Arc<Connection>,
    messages: Option<Streaming<Message>>,
    ended: bool,
}

impl Listing {
    fn message(&mut self) -> Result<Option<Message>, Status> {
        let Self { connection, messages, .. } = self;
        connection.runtime.block_on(async {
            let messages = if let Some(messages) = messages {
                messages
            } else {
                let listing = connection.path_infos().list(ListPathInfoRequest {}).await?;
                messages.insert(listing.into_inner())
            };
            messages.message().await
        })
    }
}

impl Iterator for Listing {
    type Item = Result<PathInfo>;

    fn next(&mut self) -> Option<Self::Item> {
        const DOING: &str = "listing path infos";
        if self.ended {
            return None;
        }
        let message = self.message().map_err(|status| status::to_error(DOING, &status));
        let next = message.and_then(|message| message.map(|m| check(DOING, m)).transpose());
        self.ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

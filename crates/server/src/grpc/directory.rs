//! `DirectoryService`.

use std::{mem, sync::Arc};

use bytes::Bytes;
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use granary_castore::{
    Castore, DirectoryDigest, Error, Root,
    closure::{LeavesFirst, Walk},
};
use granary_proto::{
    castore::{
        Directory, GetDirectoryRequest, PutDirectoryResponse,
        directory_service_server::DirectoryService, get_directory_request::ByWhat,
    },
    directory_digest, encoded_len,
};
use tonic::{Request, Response, Status, Streaming};

use super::{blocking, permission, status};

/// How many entries are read or checked in one call into the store, about; a directory is
/// not divided.
const WINDOW_ENTRIES: usize = 16_384;

/// Most directories that are read or checked in one call, however small.
const WINDOW_DIRECTORIES: usize = 256;

/// How many bytes of directories wait to be checked, about; names and targets may be long.
const WINDOW_BYTES: usize = 4 << 20;

/// Serves the directories of a store.
#[derive(Clone)]
pub(super) struct Directories {
    pub(super) castore: Arc<dyn Castore>,
}

type Stream = BoxStream<'static, Result<Directory, Status>>;

#[tonic::async_trait]
impl DirectoryService for Directories {
    type GetStream = Stream;

    async fn get(&self, request: Request<GetDirectoryRequest>) -> Result<Response<Stream>, Status> {
        let GetDirectoryRequest { by_what, recursive } = request.into_inner();
        let Some(ByWhat::Digest(digest)) = by_what else {
            return Err(Status::invalid_argument("digest: it must be set"));
        };
        let digest = directory_digest("digest", &digest).map_err(|e| status::of_field(&e))?;
        let castore = self.castore.clone();
        Ok(Response::new(if recursive { closure(castore, digest) } else { one(castore, digest) }))
    }

    async fn put(
        &self,
        request: Request<Streaming<Directory>>,
    ) -> Result<Response<PutDirectoryResponse>, Status> {
        permission::to_write(&request)?;
        let mut messages = request.into_inner();
        let mut upload = Upload::default();
        loop {
            let next = messages.message().await;
            let next = next.map_err(|status| status::of_receiving("Directory", status))?;
            let Some(directory) = next else { break };
            upload.push(directory).await?;
        }
        let root = upload.finish(self.castore.clone()).await?;
        let root_digest = Bytes::copy_from_slice(root.as_bytes());
        Ok(Response::new(PutDirectoryResponse { root_digest }))
    }
}

/// The directory `digest`. That it is absent is told at the end of the stream, where peers
/// look for it.
fn one(castore: Arc<dyn Castore>, digest: DirectoryDigest) -> Stream {
    let found = async move {
        let directory = blocking::run(move || castore.directory(&digest)).await?;
        let absent = || Status::not_found(format!("directory {digest} is not stored"));
        directory.as_ref().map(Directory::from).ok_or_else(absent)
    };
    found.into_stream().boxed()
}

/// The closure of `digest`, breadth first; nothing if it is absent. No thread waits for the
/// client: each window is one call.
fn closure(castore: Arc<dyn Castore>, digest: DirectoryDigest) -> Stream {
    let windows = stream::try_unfold(Walk::new(digest), move |mut walk| {
        let castore = castore.clone();
        async move {
            let window = blocking::run(move || {
                let (mut window, mut entries) = (Vec::new(), 0);
                while entries < WINDOW_ENTRIES && window.len() < WINDOW_DIRECTORIES {
                    let Some(directory) = walk.step(&*castore) else { break };
                    let directory = directory?;
                    entries += directory.entries().len();
                    window.push(Ok(Directory::from(&directory)));
                }
                Ok((window, walk))
            });
            let (window, walk) = window.await?;
            Ok::<_, Status>((!window.is_empty()).then(|| (stream::iter(window), walk)))
        }
    });
    windows.try_flatten().boxed()
}

/// Directories on their way into the store: checked window by window, written together.
#[derive(Default)]
struct Upload {
    checker: LeavesFirst,
    /// How many have been checked.
    checked: usize,
    waiting: Vec<Directory>,
    waiting_entries: usize,
    waiting_bytes: usize,
}

impl Upload {
    async fn push(&mut self, directory: Directory) -> Result<(), Status> {
        let Directory { directories, files, symlinks } = &directory;
        self.waiting_entries += directories.len() + files.len() + symlinks.len();
        self.waiting_bytes += encoded_len(&directory);
        self.waiting.push(directory);
        if self.waiting_entries >= WINDOW_ENTRIES
            || self.waiting_bytes >= WINDOW_BYTES
            || self.waiting.len() >= WINDOW_DIRECTORIES
        {
            self.check().await?;
        }
        Ok(())
    }

    /// Checks what waits.
    async fn check(&mut self) -> Result<(), Status> {
        let Self { mut checker, mut checked, waiting, .. } = mem::take(self);
        let checking = blocking::run(move || {
            for directory in waiting {
                let directory = granary_castore::Directory::try_from(directory);
                // The field stays at the beginning of the message.
                let directory = directory.map_err(|error| {
                    Error::invalid(format!("{error} (in directory {checked} of the stream)"))
                })?;
                checker.push(&directory)?;
                checked += 1;
            }
            Ok(Self { checker, checked, ..Self::default() })
        });
        *self = checking.await?;
        Ok(())
    }

    /// Ends the upload, and returns the root when all is durable.
    async fn finish(mut self, castore: Arc<dyn Castore>) -> Result<DirectoryDigest, Status> {
        self.check().await?;
        blocking::run(move || {
            let (directories, root) = self.checker.finish()?;
            let mut batch = castore.batch()?;
            for directory in directories {
                batch.put_directory(&directory)?;
            }
            batch.lease(&Root::Directory(root))?;
            batch.commit()?;
            Ok(root)
        })
        .await
    }
}

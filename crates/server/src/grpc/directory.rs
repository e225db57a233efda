//! `DirectoryService`.

use std::{mem, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream::BoxStream};
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

use super::{
    blocking, status,
    uploads::Uploads,
    windows::{Length, Windows},
};

/// How many entries are read or checked in one call into the store, about; a directory is
/// not divided.
const WINDOW_ENTRIES: usize = 16_384;

/// Most directories that are read or checked in one call, however small.
const WINDOW_DIRECTORIES: usize = 256;

/// How many bytes of directories are read or wait to be checked, about; names and targets may
/// be long.
const WINDOW_BYTES: usize = 4 << 20;

/// The same for a short window, of which many may wait to be taken.
const SHORT_WINDOW_ENTRIES: usize = 512;

/// The same.
const SHORT_WINDOW_DIRECTORIES: usize = 16;

/// The same.
const SHORT_WINDOW_BYTES: usize = 128 << 10;

/// Serves the directories of a store.
#[derive(Clone)]
pub(super) struct Directories {
    pub(super) castore: Arc<dyn Castore>,
    pub(super) windows: Windows,
    pub(super) uploads: Uploads,
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
        Ok(Response::new(if recursive {
            closure(&self.windows, castore, digest)
        } else {
            one(castore, digest)
        }))
    }

    async fn put(
        &self,
        request: Request<Streaming<Directory>>,
    ) -> Result<Response<PutDirectoryResponse>, Status> {
        let mut messages = self.uploads.begin("Directory", request).await?;
        let mut upload = Upload::default();
        // They are all in memory until the root is known, those that are checked as well.
        while let Some(directory) = messages.next().await? {
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
        let directory =
            blocking::run(move || Ok(castore.directory(&digest)?.as_ref().map(Directory::from)));
        let absent = || Status::not_found(format!("directory {digest} is not stored"));
        directory.await?.ok_or_else(absent)
    };
    found.into_stream().boxed()
}

/// The closure of `digest`, breadth first; nothing if it is absent.
fn closure(windows: &Windows, castore: Arc<dyn Castore>, digest: DirectoryDigest) -> Stream {
    windows.stream(Walk::new(digest), move |mut walk, length| {
        let (max_entries, max_directories, max_bytes) = match length {
            Length::Long => (WINDOW_ENTRIES, WINDOW_DIRECTORIES, WINDOW_BYTES),
            Length::Short => (SHORT_WINDOW_ENTRIES, SHORT_WINDOW_DIRECTORIES, SHORT_WINDOW_BYTES),
        };
        let (mut window, mut entries, mut bytes) = (Vec::new(), 0, 0);
        while entries < max_entries && window.len() < max_directories && bytes < max_bytes {
            let Some(directory) = walk.step(&*castore) else { break };
            let directory = directory?;
            entries += directory.entries().len();
            let message = Directory::from(&directory);
            bytes += encoded_len(&message);
            window.push(message);
        }
        Ok((window, walk))
    })
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

//! Batches of writes.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use granary_castore::{BlobDigest, Directory, DirectoryDigest, Error, Result, WriteBatch};
use granary_proto::MAX_CHUNK_DATA_BYTES;
use tokio::task::JoinSet;

use crate::{
    client::Client,
    limits::{
        MAX_REMEMBERED_BLOBS, MAX_UPLOAD_BYTES, MAX_UPLOADS, MAX_WAITING_BLOBS, MAX_WAITING_BYTES,
        MAX_WAITING_PIECES, MAX_WHOLE_BYTES,
    },
    outgoing_directories::{OutgoingDirectories, send_closure},
    upload::{self, Streamed},
};

/// Bytes that a blob holds while it is sent and written at the same time.
const STREAMED_BYTES: usize = (MAX_WAITING_PIECES + 1) * MAX_CHUNK_DATA_BYTES;

/// Blobs and directories on their way to a server. Dropping it cancels what is under way.
pub(crate) struct Batch {
    client: Client,
    uploads: Uploads,
    /// Blobs of which it is not known yet whether the server has them.
    waiting: Vec<(BlobDigest, Bytes)>,
    waiting_bytes: usize,
    /// Blobs that wait, were sent, or were there.
    seen: HashSet<BlobDigest>,
    open: Option<OpenBlob>,
    directories: OutgoingDirectories,
    failed: Option<Error>,
}

/// The blob being written.
#[derive(Default)]
struct OpenBlob {
    hasher: blake3::Hasher,
    /// What is not sent yet.
    buffer: BytesMut,
    /// Set once it has passed [`MAX_WHOLE_BYTES`].
    streamed: Option<Streamed>,
}

impl Batch {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            uploads: Uploads::new(&client),
            client,
            waiting: Vec::new(),
            waiting_bytes: 0,
            seen: HashSet::new(),
            open: None,
            directories: OutgoingDirectories::default(),
            failed: None,
        }
    }

    /// Does a piece of work, unless an earlier one has failed.
    fn attempt<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let outcome = work(self);
        if let Err(error) = &outcome {
            self.failed = Some(error.clone());
        }
        outcome
    }

    fn add_blob(&mut self, digest: BlobDigest, contents: Bytes) -> Result<()> {
        if self.seen.len() == MAX_REMEMBERED_BLOBS {
            self.seen.clear();
        }
        if !self.seen.insert(digest) {
            return Ok(());
        }
        self.waiting_bytes += contents.len();
        self.waiting.push((digest, contents));
        if self.waiting.len() >= MAX_WAITING_BLOBS || self.waiting_bytes >= MAX_WAITING_BYTES {
            self.send_waiting()?;
        }
        Ok(())
    }

    /// Asks which of the waiting blobs are missing, and sends those.
    fn send_waiting(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let waiting = mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let digests: Vec<_> = waiting.iter().map(|(digest, _)| *digest).collect();
        let connection = &self.client.connection;
        let missing = connection.runtime.block_on(upload::missing(connection, &digests))?;
        let missing: HashSet<_> = missing.into_iter().collect();
        for (digest, contents) in waiting {
            if missing.contains(&digest) {
                let connection = Arc::clone(connection);
                self.uploads.start(contents.len(), async move {
                    upload::whole(&connection, digest, contents).await
                })?;
            }
        }
        Ok(())
    }

    fn write_piece(&mut self, data: &[u8]) -> Result<()> {
        let open = self.open.get_or_insert_default();
        open.hasher.update(data);
        open.buffer.extend_from_slice(data);
        if open.streamed.is_none() && open.buffer.len() > MAX_WHOLE_BYTES {
            let (streamed, work) = Streamed::start(&self.client.connection);
            self.uploads.start(STREAMED_BYTES, work)?;
            open.streamed = Some(streamed);
        }
        if let Some(streamed) = &mut open.streamed {
            while open.buffer.len() >= MAX_CHUNK_DATA_BYTES {
                let piece = open.buffer.split_to(MAX_CHUNK_DATA_BYTES).freeze();
                if !self.client.connection.runtime.block_on(streamed.send(piece)) {
                    return Err(self.uploads.reason());
                }
            }
        }
        Ok(())
    }

    fn finish_open(&mut self) -> Result<BlobDigest> {
        let open = self.open.take().unwrap_or_default();
        let digest = BlobDigest::from(open.hasher.finalize());
        let Some(mut streamed) = open.streamed else {
            self.add_blob(digest, open.buffer.freeze())?;
            return Ok(digest);
        };
        let runtime = &self.client.connection.runtime;
        let rest = open.buffer.freeze();
        if !rest.is_empty() && !runtime.block_on(streamed.send(rest)) {
            return Err(self.uploads.reason());
        }
        runtime.block_on(streamed.finish(digest));
        Ok(digest)
    }

    fn send_directories(&mut self) -> Result<()> {
        let directories = mem::take(&mut self.directories);
        // Those that were fetched, for all roots together.
        let mut fetched = HashMap::new();
        for root in directories.roots() {
            let (closure, size_bytes) =
                directories.leaves_first(&root, &self.client, &mut fetched)?;
            let connection = Arc::clone(&self.client.connection);
            self.uploads
                .start(size_bytes, async move { send_closure(&connection, root, closure).await })?;
        }
        Ok(())
    }
}

impl WriteBatch for Batch {
    fn put_blob(&mut self, contents: Bytes) -> Result<BlobDigest> {
        if self.open.is_some() {
            return Err(Error::invalid("a blob is still being written in this batch"));
        }
        let digest = BlobDigest::of(&contents);
        self.attempt(|batch| batch.add_blob(digest, contents))?;
        Ok(digest)
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.attempt(|batch| {
            // An empty write begins a blob too.
            batch.open.get_or_insert_default();
            data.chunks(MAX_CHUNK_DATA_BYTES).try_for_each(|piece| batch.write_piece(piece))
        })
    }

    fn finish_blob(&mut self) -> Result<BlobDigest> {
        self.attempt(Self::finish_open)
    }

    fn put_directory(&mut self, directory: &Directory) -> Result<DirectoryDigest> {
        self.attempt(|batch| batch.directories.push(directory))
    }

    fn commit(mut self: Box<Self>) -> Result<()> {
        if self.open.is_some() {
            // Waiting for its upload would be waiting for ever.
            return Err(Error::invalid("a blob is still being written in this batch"));
        }
        self.attempt(|batch| {
            batch.send_waiting()?;
            // Contents first: a directory is never there before them.
            batch.uploads.finish()?;
            batch.send_directories()?;
            batch.uploads.finish()
        })
    }
}

/// The calls under way.
struct Uploads {
    client: Client,
    /// Each gives back how many bytes it held.
    tasks: JoinSet<(usize, Result<()>)>,
    held_bytes: usize,
}

impl Uploads {
    fn new(client: &Client) -> Self {
        Self { client: client.clone(), tasks: JoinSet::new(), held_bytes: 0 }
    }

    /// Starts a call that holds so many bytes, when there is room for it.
    fn start(
        &mut self,
        held_bytes: usize,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Result<()> {
        while self.tasks.len() >= MAX_UPLOADS
            || (!self.tasks.is_empty() && self.held_bytes + held_bytes > MAX_UPLOAD_BYTES)
        {
            self.settle()?;
        }
        self.held_bytes += held_bytes;
        let runtime = &self.client.connection.runtime;
        self.tasks.spawn_on(async move { (held_bytes, work.await) }, runtime);
        Ok(())
    }

    /// Waits for one call. False if there is none.
    fn settle(&mut self) -> Result<bool> {
        let Some(ended) = self.client.connection.runtime.block_on(self.tasks.join_next()) else {
            return Ok(false);
        };
        let (held_bytes, outcome) = ended.map_err(upload::ended)?;
        self.held_bytes -= held_bytes;
        outcome.map(|()| true)
    }

    /// Waits for all calls.
    fn finish(&mut self) -> Result<()> {
        while self.settle()? {}
        Ok(())
    }

    /// Why a call has ended before its time.
    fn reason(&mut self) -> Error {
        self.finish().err().unwrap_or_else(|| Error::unavailable("an upload ended early"))
    }
}

//! Directories from a server.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use granary_castore::{Directory, DirectoryDigest, DirectoryService, Error, Result};
use granary_proto::castore::{self, GetDirectoryRequest, get_directory_request::ByWhat};
use tonic::{Code, Status, Streaming};

use crate::{
    client::{Client, Connection},
    status,
};

impl DirectoryService for Client {
    fn directory(&self, digest: &DirectoryDigest) -> Result<Option<Directory>> {
        let connection = &self.connection;
        let message = connection.runtime.block_on(async {
            let mut messages = get(connection, digest, false).await?;
            messages.message().await
        });
        match message {
            Ok(Some(message)) => check(connection, message, digest).map(Some),
            Ok(None) => Ok(None),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status::to_error(&doing(digest), &status)),
        }
    }

    fn closure<'a>(
        &'a self,
        digest: &DirectoryDigest,
    ) -> Box<dyn Iterator<Item = Result<Directory>> + Send + 'a> {
        Box::new(Closure::new(&self.connection, *digest))
    }
}

async fn get(
    connection: &Connection,
    digest: &DirectoryDigest,
    recursive: bool,
) -> Result<Streaming<castore::Directory>, Status> {
    let by_what = Some(ByWhat::Digest(Bytes::copy_from_slice(digest.as_bytes())));
    let request = GetDirectoryRequest { recursive, by_what };
    connection.directories().get(request).await.map(tonic::Response::into_inner)
}

/// The directory of a message, if its digest is the one that was asked for.
fn check(
    connection: &Connection,
    message: castore::Directory,
    expected: &DirectoryDigest,
) -> Result<Directory> {
    let directory = Directory::try_from(message)
        .map_err(|error| status::bad_answer(&doing(expected), error))?;
    let actual = directory.digest();
    if actual == *expected {
        return Ok(directory);
    }
    let url = &connection.url;
    Err(Error::corrupt(format!("{url} sent directory {actual} in the place of {expected}")))
}

fn doing(digest: &DirectoryDigest) -> String {
    format!("reading directory {digest}")
}

/// A closure as it comes in, each directory held against the place it must have.
///
/// Memory grows with its distinct directories, 32 bytes for each that was seen and as much
/// for each that is still to come.
struct Closure {
    connection: Arc<Connection>,
    root: DirectoryDigest,
    messages: Option<Streaming<castore::Directory>>,
    waiting: VecDeque<DirectoryDigest>,
    seen: HashSet<DirectoryDigest>,
}

impl Closure {
    fn new(connection: &Arc<Connection>, root: DirectoryDigest) -> Self {
        Self {
            connection: Arc::clone(connection),
            root,
            messages: None,
            waiting: VecDeque::from([root]),
            seen: HashSet::from([root]),
        }
    }

    fn message(&mut self) -> Result<Option<castore::Directory>, Status> {
        let Self { connection, root, messages, .. } = self;
        connection.runtime.block_on(async {
            let messages = match messages {
                Some(messages) => messages,
                None => messages.insert(get(connection, root, true).await?),
            };
            messages.message().await
        })
    }

    fn advance(&mut self) -> Result<Option<Directory>> {
        let root = self.root;
        let doing = || format!("reading the closure of directory {root}");
        let Some(expected) = self.waiting.front().copied() else {
            // All are here: the server has nothing more to say.
            let more = self.messages.is_some() && self.is_more()?;
            self.messages = None;
            return if more {
                Err(Error::corrupt(format!("{}: more came than belongs to it", doing())))
            } else {
                Ok(None)
            };
        };
        let message = match self.message() {
            Ok(message) => message,
            Err(status) if status.code() == Code::NotFound && expected == self.root => None,
            Err(status) => return Err(status::to_error(&doing(), &status)),
        };
        let Some(message) = message else {
            return if expected == self.root {
                Ok(None)
            } else {
                Err(Error::corrupt(format!("{}: it ended before {expected}", doing())))
            };
        };
        let directory = check(&self.connection, message, &expected)?;
        self.waiting.pop_front();
        for (child, _) in directory.children() {
            if self.seen.insert(child) {
                self.waiting.push_back(child);
            }
        }
        Ok(Some(directory))
    }

    fn is_more(&mut self) -> Result<bool> {
        let message = self.message();
        let message = message.map_err(|status| status::to_error(&doing(&self.root), &status))?;
        Ok(message.is_some())
    }
}

impl Iterator for Closure {
    type Item = Result<Directory>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if !matches!(next, Some(Ok(_))) {
            // It has ended, one way or the other.
            self.waiting.clear();
            self.messages = None;
        }
        next
    }
}

//! Directories on their way to a server, which takes whole closures, leaves first.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use granary_castore::{
    Directory, DirectoryDigest, DirectoryService, Error, Result,
    closure::{MAX_UPLOAD_BYTES, MAX_UPLOAD_DIRECTORIES},
};
use granary_proto::{castore, directory_digest};

use crate::{
    client::{Client, Connection},
    status,
};

/// Directories by digest.
pub(crate) type Directories = HashMap<DirectoryDigest, Arc<Directory>>;

/// The directories of a batch, until it is committed: up to the limits that the server has
/// for one closure, [`MAX_UPLOAD_DIRECTORIES`] and [`MAX_UPLOAD_BYTES`].
#[derive(Default)]
pub(crate) struct OutgoingDirectories {
    by_digest: Directories,
    /// In the order in which they first came.
    order: Vec<DirectoryDigest>,
    encoded_bytes: usize,
}

impl OutgoingDirectories {
    pub(crate) fn push(&mut self, directory: &Directory) -> Result<DirectoryDigest> {
        let encoded = directory.encode();
        let digest = DirectoryDigest::of(&encoded);
        if self.by_digest.contains_key(&digest) {
            return Ok(digest);
        }
        self.encoded_bytes += encoded.len();
        if self.order.len() == MAX_UPLOAD_DIRECTORIES || self.encoded_bytes > MAX_UPLOAD_BYTES {
            return Err(Error::too_large(format!(
                "a batch holds at most {MAX_UPLOAD_DIRECTORIES} directories of together {MAX_UPLOAD_BYTES} bytes: commit it and begin another"
            )));
        }
        self.by_digest.insert(digest, Arc::new(directory.clone()));
        self.order.push(digest);
        Ok(digest)
    }

    /// Those that no other one refers to.
    pub(crate) fn roots(&self) -> Vec<DirectoryDigest> {
        let children = self.by_digest.values().flat_map(|directory| directory.children());
        let children: HashSet<_> = children.map(|(child, _)| child).collect();
        self.order.iter().filter(|digest| !children.contains(digest)).copied().collect()
    }

    /// The closure of `root`, leaves first, and how many bytes it is encoded. What is not in
    /// the batch is on the server already, but has to be sent with the rest all the same:
    /// it is read from there and kept in `fetched`.
    pub(crate) fn leaves_first(
        &self,
        root: &DirectoryDigest,
        server: &Client,
        fetched: &mut Directories,
    ) -> Result<(Vec<Arc<Directory>>, usize)> {
        let mut closure = Vec::new();
        let mut encoded_bytes = 0;
        let mut done = HashSet::new();
        // Each with whether its children have been put on top of it already. A directory may
        // be there several times; the topmost place comes first, and the others are skipped.
        let mut stack = vec![(*root, false)];
        while let Some((digest, is_expanded)) = stack.pop() {
            if done.contains(&digest) {
                continue;
            }
            let directory = self.find(&digest, server, fetched)?;
            if is_expanded {
                done.insert(digest);
                encoded_bytes += directory.encode().len();
                closure.push(directory);
                continue;
            }
            stack.push((digest, true));
            let children = directory.children().map(|(child, _)| child);
            stack
                .extend(children.filter(|child| !done.contains(child)).map(|child| (child, false)));
        }
        Ok((closure, encoded_bytes))
    }

    fn find(
        &self,
        digest: &DirectoryDigest,
        server: &Client,
        fetched: &mut Directories,
    ) -> Result<Arc<Directory>> {
        if let Some(directory) = self.by_digest.get(digest).or_else(|| fetched.get(digest)) {
            return Ok(Arc::clone(directory));
        }
        for directory in server.closure(digest) {
            let directory = directory?;
            if fetched.len() == MAX_UPLOAD_DIRECTORIES {
                return Err(Error::too_large(format!(
                    "the closure of directory {digest} has more than {MAX_UPLOAD_DIRECTORIES} directories"
                )));
            }
            fetched.insert(directory.digest(), Arc::new(directory));
        }
        fetched.get(digest).map(Arc::clone).ok_or_else(|| {
            let url = server.url();
            Error::invalid(format!(
                "directory {digest} is referred to, but is neither in the batch nor stored at {url}"
            ))
        })
    }
}

/// Sends a closure that is in the right order already.
pub(crate) async fn send_closure(
    connection: &Connection,
    root: DirectoryDigest,
    closure: Vec<Arc<Directory>>,
) -> Result<()> {
    let doing = || format!("storing directory {root} and what is below it");
    let messages = closure.into_iter().map(|directory| castore::Directory::from(&*directory));
    let answer = connection.directories().put(tokio_stream::iter(messages)).await;
    let answer = answer.map_err(|status| status::to_error(&doing(), &status))?.into_inner();
    let actual = directory_digest("root_digest", &answer.root_digest);
    let actual = actual.map_err(|error| status::bad_answer(&doing(), error))?;
    if actual == root {
        return Ok(());
    }
    let url = &connection.url;
    Err(Error::corrupt(format!("{url} stored directory {root} as {actual}")))
}

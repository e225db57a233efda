//! Whether the contents of a node are all there.

use std::collections::HashSet;

use granary_castore::{
    BlobDigest, Chain, Directory, DirectoryDigest, Error, Node, ObjectName, ObjectType, Result,
};

use super::Unreadable;
use crate::Store;

/// Most directories that are remembered as whole, 32 bytes each and some; then it begins anew,
/// and some are looked at again.
const MAX_WHOLE_DIRECTORIES: usize = 1 << 20;

/// Most places in one tree that are reported.
const MAX_HARM: usize = 1_000;

/// How many of them are described.
const DESCRIBED_HARM: usize = 3;

/// Looks at contents, each directory once.
pub(super) struct Contents<'a> {
    store: &'a Store,
    unreadable: &'a Unreadable,
    /// Directories below which everything is there.
    whole: HashSet<DirectoryDigest>,
}

/// Something in a tree that is not there or cannot be read.
#[derive(Debug)]
pub(super) struct Harm {
    /// Where in the tree, empty for its root.
    place: String,
    problem: String,
    pub(super) objects: Vec<ObjectName>,
}

/// A directory that was begun.
struct Open {
    digest: DirectoryDigest,
    directory: Directory,
    /// Position of the entry to look at next.
    next: usize,
    /// How much harm there was before.
    harm_before: usize,
}

impl<'a> Contents<'a> {
    pub(super) fn new(store: &'a Store, unreadable: &'a Unreadable) -> Self {
        Self { store, unreadable, whole: HashSet::new() }
    }

    /// Everything below `node` that is not there or cannot be read.
    pub(super) fn check(&mut self, node: &Node) -> Result<Vec<Harm>> {
        let (mut harm, mut open) = (Vec::new(), Vec::<Open>::new());
        self.look(node, &mut open, &mut harm)?;
        while let Some(top) = open.last_mut() {
            let Some((_, node)) = top.directory.entries().get(top.next) else {
                let ended = open.pop().expect("it is the last one");
                if harm.len() == ended.harm_before {
                    if self.whole.len() == MAX_WHOLE_DIRECTORIES {
                        self.whole.clear();
                    }
                    self.whole.insert(ended.digest);
                }
                continue;
            };
            let node = node.clone();
            top.next += 1;
            if harm.len() >= MAX_HARM {
                break;
            }
            self.look(&node, &mut open, &mut harm)?;
        }
        Ok(harm)
    }

    /// Looks at one node, and keeps it open if it is a directory that is not known as whole.
    fn look(&self, node: &Node, open: &mut Vec<Open>, harm: &mut Vec<Harm>) -> Result<()> {
        match node {
            Node::Symlink { .. } => Ok(()),
            Node::File { digest, size_bytes, .. } => {
                if let Some((problem, objects)) = self.blob(digest, *size_bytes)? {
                    harm.push(Harm { place: place(open), problem, objects });
                }
                Ok(())
            }
            Node::Directory { digest, size } => {
                if self.whole.contains(digest) {
                    return Ok(());
                }
                match self.directory(digest, *size)? {
                    Ok(directory) => {
                        let (digest, harm_before) = (*digest, harm.len());
                        open.push(Open { digest, directory, next: 0, harm_before });
                    }
                    Err(problem) => {
                        let kind = ObjectType::Directory;
                        let objects = vec![ObjectName { kind, digest: *digest.as_bytes() }];
                        harm.push(Harm { place: place(open), problem, objects });
                    }
                }
                Ok(())
            }
        }
    }

    fn directory(
        &self,
        digest: &DirectoryDigest,
        size: u64,
    ) -> Result<std::result::Result<Directory, String>> {
        match self.store.directories().directory(digest) {
            Ok(Some(directory)) if directory.size() == size => Ok(Ok(directory)),
            Ok(Some(directory)) => Ok(Err(format!(
                "directory {digest} has size {}, and not {size} as is claimed",
                directory.size()
            ))),
            Ok(None) => Ok(Err(format!("directory {digest} is missing"))),
            Err(error @ Error::Corrupt(_)) => Ok(Err(Chain(&error).to_string())),
            Err(error) => Err(error),
        }
    }

    /// What is wrong with a blob, and the objects that it is wrong because of.
    pub(super) fn blob(
        &self,
        digest: &BlobDigest,
        size_bytes: u64,
    ) -> Result<Option<(String, Vec<ObjectName>)>> {
        let itself = || vec![ObjectName { kind: ObjectType::Blob, digest: *digest.as_bytes() }];
        if let Some(causes) = self.unreadable.blobs.get(digest) {
            return Ok(Some((format!("blob {digest} is damaged"), causes.clone())));
        }
        match self.store.blobs().stat(digest) {
            Ok(Some(stat)) if stat.size_bytes == size_bytes => Ok(None),
            Ok(Some(stat)) => {
                let problem = format!(
                    "blob {digest} has {} bytes, and not {size_bytes} as is claimed",
                    stat.size_bytes
                );
                Ok(Some((problem, Vec::new())))
            }
            Ok(None) => Ok(Some((format!("blob {digest} is missing"), itself()))),
            Err(error @ Error::Corrupt(_)) => Ok(Some((Chain(&error).to_string(), itself()))),
            Err(error) => Err(error),
        }
    }
}

/// Where the entry lies that is being looked at.
fn place(open: &[Open]) -> String {
    let names = open.iter().filter_map(|open| {
        let position = open.next.checked_sub(1)?;
        let (name, _) = open.directory.entries().get(position)?;
        Some(String::from_utf8_lossy(name.as_bytes()).into_owned())
    });
    names.collect::<Vec<_>>().join("/")
}

/// What is wrong in a tree, in a line.
pub(super) fn describe(harm: &[Harm]) -> String {
    let described = harm.iter().take(DESCRIBED_HARM).map(|harm| match &*harm.place {
        "" => harm.problem.clone(),
        place => format!("{place}: {}", harm.problem),
    });
    let mut text = described.collect::<Vec<_>>().join("; ");
    if harm.len() > DESCRIBED_HARM {
        text = format!("{text}; and {} more", harm.len() - DESCRIBED_HARM);
    }
    text
}

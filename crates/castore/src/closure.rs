//! Closures of directories: reading one from its root, checking one that arrives.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;

use crate::{
    digest::DirectoryDigest,
    directory::{Directory, DirectoryService},
    error::{Error, Result},
    node::NodeName,
};

/// Most directories that one upload may hold. The upload is kept in memory until its root
/// is known, since nothing of it may become visible before.
pub const MAX_UPLOAD_DIRECTORIES: usize = 1_000_000;

/// Most bytes of encoded directories that one upload may hold, for the same reason.
pub const MAX_UPLOAD_BYTES: usize = 256 << 20;

/// The directories below a root, breadth first, each distinct one once.
pub struct BreadthFirst<'a, S: ?Sized> {
    service: &'a S,
    walk: Walk,
}

impl<'a, S: DirectoryService + ?Sized> BreadthFirst<'a, S> {
    /// Begins at `root`.
    pub fn new(service: &'a S, root: DirectoryDigest) -> Self {
        Self { service, walk: Walk::new(root) }
    }
}

impl<S: DirectoryService + ?Sized> Iterator for BreadthFirst<'_, S> {
    type Item = Result<Directory>;

    fn next(&mut self) -> Option<Self::Item> {
        self.walk.step(self.service)
    }
}

/// Where a walk over a closure stands. It borrows no service, so that it can rest between
/// two steps.
///
/// Memory grows with the number of distinct directories in the closure: 32 bytes for each
/// that was seen, and as much for each that is waiting.
#[derive(Debug)]
pub struct Walk {
    root: DirectoryDigest,
    waiting: VecDeque<DirectoryDigest>,
    seen: HashSet<DirectoryDigest>,
}

impl Walk {
    /// Begins at `root`.
    pub fn new(root: DirectoryDigest) -> Self {
        Self { root, waiting: VecDeque::from([root]), seen: HashSet::from([root]) }
    }

    /// The next directory, breadth first; `None` at the end, and at once if the root is not
    /// stored. After an error there is nothing more.
    pub fn step<S: DirectoryService + ?Sized>(&mut self, service: &S) -> Option<Result<Directory>> {
        let digest = self.waiting.pop_front()?;
        let directory = match service.directory(&digest) {
            Ok(Some(directory)) => directory,
            Ok(None) if digest == self.root => return None,
            Ok(None) => {
                self.waiting.clear();
                return Some(Err(Error::corrupt(format!(
                    "directory {digest} is missing, below {}",
                    self.root
                ))));
            }
            Err(error) => {
                self.waiting.clear();
                return Some(Err(error));
            }
        };
        for (child, _) in directory.children() {
            if self.seen.insert(child) {
                self.waiting.push_back(child);
            }
        }
        Some(Ok(directory))
    }
}

/// Checks an upload of directories that comes leaves first: each may refer only to ones
/// that came before it, with their right sizes, and all must be reachable from the last.
///
/// Memory grows with what is sent in canonical encoding, and with the number of directories:
/// nothing is kept of the buffers that the directories came in.
#[derive(Debug, Default)]
pub struct LeavesFirst {
    /// Encoded: entries take many times the memory otherwise.
    directories: Vec<Bytes>,
    sizes: HashMap<DirectoryDigest, u64>,
    /// Sent, but so far no later one refers to it.
    unreferenced: HashSet<DirectoryDigest>,
    encoded_bytes: usize,
    last: Option<DirectoryDigest>,
}

/// Why an upload of directories is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClosureError {
    /// It holds nothing.
    #[error("the upload has no directory in it")]
    Empty,
    /// An entry refers to a directory that was not sent before.
    #[error(
        "directories: entry \"{name}\" of directory {parent} has digest {child}, which was not sent before it"
    )]
    Dangling {
        /// The directory with the entry.
        parent: DirectoryDigest,
        /// Name of the entry.
        name: NodeName,
        /// What it refers to.
        child: DirectoryDigest,
    },
    /// An entry carries another size than the directory it refers to has.
    #[error(
        "directories: entry \"{name}\" of directory {parent} has size {claimed}, but {child} has size {actual}"
    )]
    WrongSize {
        /// The directory with the entry.
        parent: DirectoryDigest,
        /// Name of the entry.
        name: NodeName,
        /// What it refers to.
        child: DirectoryDigest,
        /// The size in the entry.
        claimed: u64,
        /// The size of the directory.
        actual: u64,
    },
    /// A directory cannot be reached from the last.
    #[error("directory {0} was sent but cannot be reached from the last one, the root")]
    Unreachable(DirectoryDigest),
    /// The upload passes [`MAX_UPLOAD_DIRECTORIES`] or [`MAX_UPLOAD_BYTES`].
    #[error(
        "the upload passes the limit of {MAX_UPLOAD_DIRECTORIES} directories or {MAX_UPLOAD_BYTES} bytes"
    )]
    TooLarge,
}

impl From<ClosureError> for Error {
    fn from(error: ClosureError) -> Self {
        match error {
            ClosureError::TooLarge => Self::too_large(error.to_string()),
            _ => Self::invalid(error.to_string()),
        }
    }
}

impl LeavesFirst {
    /// Takes the next directory. One that was sent before may come again.
    ///
    /// # Errors
    ///
    /// If it refers to what was not sent before, or the upload is too large.
    pub fn push(&mut self, directory: &Directory) -> Result<DirectoryDigest, ClosureError> {
        let encoded = directory.encode();
        let digest = DirectoryDigest::of(&encoded);
        self.check_children(digest, directory)?;
        self.last = Some(digest);
        if self.sizes.contains_key(&digest) {
            return Ok(digest);
        }
        self.encoded_bytes += encoded.len();
        if self.directories.len() == MAX_UPLOAD_DIRECTORIES || self.encoded_bytes > MAX_UPLOAD_BYTES
        {
            return Err(ClosureError::TooLarge);
        }
        for (child, _) in directory.children() {
            self.unreferenced.remove(&child);
        }
        self.sizes.insert(digest, directory.size());
        self.unreferenced.insert(digest);
        self.directories.push(encoded);
        Ok(digest)
    }

    fn check_children(
        &self,
        parent: DirectoryDigest,
        directory: &Directory,
    ) -> Result<(), ClosureError> {
        for (name, node) in directory.entries() {
            let crate::Node::Directory { digest: child, size: claimed } = node else { continue };
            let (name, child, claimed) = (name.clone(), *child, *claimed);
            match self.sizes.get(&child).copied() {
                None => return Err(ClosureError::Dangling { parent, name, child }),
                Some(actual) if actual != claimed => {
                    return Err(ClosureError::WrongSize { parent, name, child, claimed, actual });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Ends the upload: its directories in the order in which they first came, and the
    /// digest of the root.
    ///
    /// # Errors
    ///
    /// If there is none, or one cannot be reached from the root.
    pub fn finish(
        self,
    ) -> Result<(impl Iterator<Item = Directory>, DirectoryDigest), ClosureError> {
        let root = self.last.ok_or(ClosureError::Empty)?;
        // References only go backwards, so following them from what nobody refers to
        // reaches everything: only the root may be left.
        match self.unreferenced.iter().find(|digest| **digest != root) {
            Some(stray) => Err(ClosureError::Unreachable(*stray)),
            // The root itself was sent again as the last, but something else refers to it.
            None if !self.unreferenced.contains(&root) => {
                Err(ClosureError::Unreachable(self.first_not_below(root)))
            }
            None => Ok((self.directories.into_iter().map(|encoded| decode(&encoded)), root)),
        }
    }

    /// A directory that is not below `root`, for the message.
    fn first_not_below(&self, root: DirectoryDigest) -> DirectoryDigest {
        let by_digest: HashMap<_, _> = self
            .directories
            .iter()
            .map(|encoded| (DirectoryDigest::of(encoded), encoded))
            .collect();
        let mut reached = HashSet::from([root]);
        let mut waiting = vec![root];
        while let Some(digest) = waiting.pop() {
            for (child, _) in decode(by_digest[&digest]).children() {
                if reached.insert(child) {
                    waiting.push(child);
                }
            }
        }
        self.directories
            .iter()
            .map(|encoded| DirectoryDigest::of(encoded))
            .find(|digest| !reached.contains(digest))
            .unwrap_or(root)
    }
}

fn decode(encoded: &[u8]) -> Directory {
    Directory::decode(encoded).expect("it was just encoded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, Node, SymlinkTarget, batch::Castore};

    fn named(entries: &[(&str, &Directory)]) -> Directory {
        let entries = entries.iter().map(|(name, child)| {
            let node = Node::Directory { digest: child.digest(), size: child.size() };
            (NodeName::new(name.as_bytes().to_vec()).expect("valid"), node)
        });
        Directory::new(entries.collect()).expect("valid")
    }

    fn leaf(text: &str) -> Directory {
        let target = SymlinkTarget::new(text.as_bytes().to_vec()).expect("valid");
        let name = NodeName::new(&b"link"[..]).expect("valid");
        Directory::new(vec![(name, Node::Symlink { target })]).expect("valid")
    }

    fn check(upload: &[&Directory]) -> Result<DirectoryDigest, ClosureError> {
        let mut checker = LeavesFirst::default();
        for directory in upload {
            checker.push(directory)?;
        }
        checker.finish().map(|(_, root)| root)
    }

    #[test]
    fn accepts_closures() {
        let (a, b) = (leaf("a"), leaf("b"));
        let middle = named(&[("a", &a), ("b", &b), ("again", &a)]);
        let root = named(&[("m", &middle), ("a", &a)]);
        assert_eq!(check(&[&a]), Ok(a.digest()));
        assert_eq!(check(&[&a, &b, &a, &middle, &middle, &root]), Ok(root.digest()));
        assert_eq!(check(&[&a, &a]), Ok(a.digest()));
    }

    #[test]
    fn refuses_others() {
        let (a, b) = (leaf("a"), leaf("b"));
        let root = named(&[("a", &a)]);
        assert_eq!(check(&[]), Err(ClosureError::Empty));
        assert!(matches!(check(&[&root]), Err(ClosureError::Dangling { .. })));
        assert!(matches!(check(&[&root, &a]), Err(ClosureError::Dangling { .. })));
        assert_eq!(check(&[&a, &b, &root]), Err(ClosureError::Unreachable(b.digest())));
        assert_eq!(check(&[&a, &b]), Err(ClosureError::Unreachable(a.digest())));
        // The last one is the root, even if something that was sent before refers to it.
        assert_eq!(check(&[&a, &root, &a]), Err(ClosureError::Unreachable(root.digest())));
        let lying = Node::Directory { digest: a.digest(), size: 7 };
        let lying = Directory::new(vec![(NodeName::new(&b"a"[..]).expect("valid"), lying)]);
        let lying = lying.expect("valid");
        assert!(matches!(
            check(&[&a, &lying]),
            Err(ClosureError::WrongSize { claimed: 7, actual: 1, .. })
        ));
    }

    #[test]
    fn uploads_have_limits() {
        let mut many = LeavesFirst::default();
        for number in 0..MAX_UPLOAD_DIRECTORIES {
            many.push(&leaf(&number.to_string())).expect("within the limit");
        }
        assert_eq!(many.push(&leaf("more")), Err(ClosureError::TooLarge));
        many.push(&leaf("0")).expect("it is there already");

        let mut large = LeavesFirst::default();
        let long = |number: usize| leaf(&format!("{number:04095}"));
        let each = long(0).encode().len();
        for number in 0..MAX_UPLOAD_BYTES / each {
            large.push(&long(number)).expect("within the limit");
        }
        assert_eq!(large.push(&long(MAX_UPLOAD_BYTES)), Err(ClosureError::TooLarge));
    }

    #[test]
    fn reads_breadth_first_each_once() {
        let (a, b) = (leaf("a"), leaf("b"));
        let middle = named(&[("a", &a), ("b", &b)]);
        let root = named(&[("0", &b), ("m", &middle), ("z", &a)]);
        let store = MemoryStore::default();
        let mut batch = store.batch().expect("memory");
        for directory in [&a, &b, &middle, &root] {
            batch.put_directory(directory).expect("memory");
        }
        batch.commit().expect("memory");
        let read: Vec<_> = store.closure(&root.digest()).collect::<Result<_>>().expect("complete");
        assert_eq!(read, [root.clone(), b, middle, a]);
        assert_eq!(store.closure(&leaf("absent").digest()).count(), 0);
    }

    #[test]
    fn a_missing_child_is_an_error() {
        let root = named(&[("a", &leaf("a"))]);
        let store = MemoryStore::default();
        let mut batch = store.batch().expect("memory");
        batch.put_directory(&root).expect("memory");
        batch.commit().expect("memory");
        let read: Vec<_> = store.closure(&root.digest()).collect();
        assert_eq!(read.len(), 2);
        assert!(matches!(read[1], Err(Error::Corrupt(_))));
    }
}

//! Directories, and the service that reads them.

use bytes::Bytes;

use crate::{
    canonical::{self, DecodeError},
    closure::BreadthFirst,
    digest::DirectoryDigest,
    error::Result,
    node::{Node, NodeName},
};

/// Most entries of one directory. In memory, and in the messages that carry it, an entry takes up
/// to a hundred bytes more than its encoding, which may be shorter than ten.
pub const MAX_DIRECTORY_ENTRIES: usize = 1_000_000;

/// A directory: named nodes, sorted by name, each name once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    entries: Vec<(NodeName, Node)>,
    size: u64,
}

/// Why entries make no directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// A name stands for two entries.
    #[error("the name \"{0}\" occurs twice")]
    DuplicateName(NodeName),
    /// The number of entries below passes a `u64`.
    #[error("the sizes of the directories below add up to more than a u64 can hold")]
    SizeOverflow,
    /// It passes [`MAX_DIRECTORY_ENTRIES`].
    #[error("a directory has at most {MAX_DIRECTORY_ENTRIES} entries, this one {0}")]
    TooManyEntries(usize),
}

impl Directory {
    /// A directory of these entries, which may come in any order.
    ///
    /// # Errors
    ///
    /// If a name occurs twice, the size overflows, or there are too many.
    pub fn new(mut entries: Vec<(NodeName, Node)>) -> Result<Self, DirectoryError> {
        if entries.len() > MAX_DIRECTORY_ENTRIES {
            return Err(DirectoryError::TooManyEntries(entries.len()));
        }
        if !entries.is_sorted_by(|(a, _), (b, _)| a < b) {
            entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            if let Some(pair) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(DirectoryError::DuplicateName(pair[0].0.clone()));
            }
        }
        let mut size = entries.len() as u64;
        for (_, node) in &entries {
            if let Node::Directory { size: below, .. } = node {
                size = size.checked_add(*below).ok_or(DirectoryError::SizeOverflow)?;
            }
        }
        Ok(Self { entries, size })
    }

    /// The entries, sorted by name.
    pub fn entries(&self) -> &[(NodeName, Node)] {
        &self.entries
    }

    /// The entry of that name, if there is one.
    pub fn get(&self, name: &[u8]) -> Option<&Node> {
        let position =
            self.entries.binary_search_by(|(entry, _)| entry.as_bytes().cmp(name)).ok()?;
        Some(&self.entries[position].1)
    }

    /// How many entries lie in it and below it. This is what a [`Node::Directory`] that
    /// points to it carries.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The canonical encoding: what is hashed, stored and sent.
    pub fn encode(&self) -> Bytes {
        canonical::encode(self)
    }

    /// Reads a canonical encoding. Anything that [`encode`](Self::encode) would have
    /// written otherwise is refused.
    ///
    /// # Errors
    ///
    /// If `bytes` are no directory, or not in canonical form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        canonical::decode(bytes)
    }

    /// BLAKE3 of the canonical encoding.
    pub fn digest(&self) -> DirectoryDigest {
        DirectoryDigest::of(&self.encode())
    }

    /// Digest and size of each directory entry, in order of name.
    pub fn children(&self) -> impl Iterator<Item = (DirectoryDigest, u64)> + '_ {
        self.entries.iter().filter_map(|(_, node)| match node {
            Node::Directory { digest, size } => Some((*digest, *size)),
            Node::File { .. } | Node::Symlink { .. } => None,
        })
    }
}

/// Reads directories by digest.
pub trait DirectoryService: Send + Sync {
    /// The directory `digest`; `None` if it is not stored.
    ///
    /// # Errors
    ///
    /// If the store cannot tell, or what is stored is damaged.
    fn directory(&self, digest: &DirectoryDigest) -> Result<Option<Directory>>;

    /// The directory `digest` and all below it: breadth first, each distinct directory
    /// once. Nothing if the root is not stored; a directory below that is missing is an
    /// error.
    fn closure<'a>(
        &'a self,
        digest: &DirectoryDigest,
    ) -> Box<dyn Iterator<Item = Result<Directory>> + Send + 'a> {
        Box::new(BreadthFirst::new(self, *digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::SymlinkTarget;

    fn name(text: &str) -> NodeName {
        NodeName::new(text.as_bytes().to_vec()).expect("a valid name")
    }

    fn below(size: u64) -> Node {
        Node::Directory { digest: DirectoryDigest::of(b"x"), size }
    }

    #[test]
    fn sorts_and_counts() {
        let link = Node::Symlink { target: SymlinkTarget::new(&b"t"[..]).expect("valid") };
        let directory =
            Directory::new(vec![(name("b"), link.clone()), (name("a"), below(7))]).expect("valid");
        assert_eq!(directory.size(), 9);
        assert_eq!(directory.entries()[0].0, name("a"));
        assert_eq!(directory.get(b"b"), Some(&link));
        assert_eq!(directory.get(b"c"), None);
        assert_eq!(directory.children().count(), 1);
    }

    #[test]
    fn refuses_duplicates_and_overflow() {
        assert_eq!(
            Directory::new(vec![
                (name("b"), below(0)),
                (name("a"), below(0)),
                (name("b"), below(1))
            ]),
            Err(DirectoryError::DuplicateName(name("b")))
        );
        assert_eq!(
            Directory::new(vec![(name("a"), below(0)), (name("a"), below(0))]),
            Err(DirectoryError::DuplicateName(name("a")))
        );
        assert_eq!(
            Directory::new(vec![(name("a"), below(u64::MAX - 1)), (name("b"), below(0))]),
            Err(DirectoryError::SizeOverflow)
        );
    }

    #[test]
    fn entries_have_a_limit() {
        let target = crate::SymlinkTarget::new(&b"t"[..]).expect("valid");
        let entry = |number: usize| {
            (name(&format!("{number:07}")), Node::Symlink { target: target.clone() })
        };
        let mut entries: Vec<_> = (0..MAX_DIRECTORY_ENTRIES).map(entry).collect();
        let most = Directory::new(entries.clone()).expect("at the limit");
        let encoded = most.encode();
        assert_eq!(Directory::decode(&encoded), Ok(most));
        entries.push(entry(MAX_DIRECTORY_ENTRIES));
        let too_many = DirectoryError::TooManyEntries(MAX_DIRECTORY_ENTRIES + 1);
        assert_eq!(Directory::new(entries), Err(too_many.clone()));
        let one = Directory::new(vec![entry(MAX_DIRECTORY_ENTRIES)]).expect("one entry");
        let encoded = [encoded, one.encode()].concat();
        assert_eq!(Directory::decode(&encoded), Err(DecodeError::Entries(too_many)));
    }
}

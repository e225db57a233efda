//! Directories.

use bytes::Bytes;
use granary_castore::{Directory, DirectoryError, Node, NodeName};

use crate::{
    castore,
    field::{Breach, FieldError},
    node::{directory_node, file_node, node_name, symlink_node},
};

impl From<&Directory> for castore::Directory {
    fn from(directory: &Directory) -> Self {
        let mut message = Self::default();
        for (name, node) in directory.entries() {
            let name = Bytes::copy_from_slice(name.as_bytes());
            match node {
                Node::Directory { digest, size } => {
                    message.directories.push(castore::DirectoryNode {
                        name,
                        digest: Bytes::copy_from_slice(digest.as_bytes()),
                        size: *size,
                    });
                }
                Node::File { digest, size_bytes, executable } => {
                    message.files.push(castore::FileNode {
                        name,
                        digest: Bytes::copy_from_slice(digest.as_bytes()),
                        size: *size_bytes,
                        executable: *executable,
                    });
                }
                Node::Symlink { target } => message.symlinks.push(castore::SymlinkNode {
                    name,
                    target: Bytes::copy_from_slice(target.as_bytes()),
                }),
            }
        }
        message
    }
}

impl TryFrom<castore::Directory> for Directory {
    type Error = FieldError;

    fn try_from(message: castore::Directory) -> Result<Self, FieldError> {
        let castore::Directory { directories, files, symlinks } = message;
        let mut entries = Entries {
            lists: [directories.len(), files.len(), symlinks.len()],
            checked: Vec::with_capacity(directories.len() + files.len() + symlinks.len()),
            list: "",
            first: 0,
        };
        entries.begin("directories");
        for (index, mut node) in directories.into_iter().enumerate() {
            let name = std::mem::take(&mut node.name);
            entries.push(name, directory_node(&node, format_args!("directories[{index}]"))?)?;
        }
        entries.begin("files");
        for (index, mut node) in files.into_iter().enumerate() {
            let name = std::mem::take(&mut node.name);
            entries.push(name, file_node(&node, format_args!("files[{index}]"))?)?;
        }
        entries.begin("symlinks");
        for (index, mut node) in symlinks.into_iter().enumerate() {
            let name = std::mem::take(&mut node.name);
            entries.push(name, symlink_node(node, format_args!("symlinks[{index}]"))?)?;
        }
        entries.finish()
    }
}

/// Entries of a directory in the order of its message: list by list.
struct Entries {
    /// How many entries each list has.
    lists: [usize; 3],
    checked: Vec<(NodeName, Node)>,
    /// The list that is being read.
    list: &'static str,
    /// Where it begins in `checked`.
    first: usize,
}

impl Entries {
    fn begin(&mut self, list: &'static str) {
        self.list = list;
        self.first = self.checked.len();
    }

    /// Adds the next entry of the list.
    fn push(&mut self, name: Bytes, node: Node) -> Result<(), FieldError> {
        let Self { list, first, .. } = *self;
        let index = self.checked.len() - first;
        let name = node_name(name, format_args!("{list}[{index}]"))?;
        if let Some((previous, _)) = self.checked[first..].last()
            && name <= *previous
        {
            let breach = if name == *previous {
                Breach::Duplicate { name, other: format!("{list}[{}]", index - 1) }
            } else {
                Breach::NotSorted { name, previous: previous.clone() }
            };
            return Err(FieldError::new(format_args!("{list}[{index}].name"), breach));
        }
        self.checked.push((name, node));
        Ok(())
    }

    fn finish(self) -> Result<Directory, FieldError> {
        if let Some((first, second)) = self.duplicate() {
            let (name, other) = (self.checked[second].0.clone(), self.place(first));
            let field = format!("{}.name", self.place(second));
            return Err(FieldError::new(field, Breach::Duplicate { name, other }));
        }
        Directory::new(self.checked).map_err(|error| {
            let field = match error {
                DirectoryError::SizeOverflow => "directories.size",
                DirectoryError::DuplicateName(_) | DirectoryError::TooManyEntries(_) => "directory",
            };
            FieldError::new(field, Breach::Entries(error))
        })
    }

    /// Positions of two entries of different lists that have the same name, if there are any.
    fn duplicate(&self) -> Option<(usize, usize)> {
        let [directories, files, _] = self.lists;
        // Each is sorted.
        let (first, behind) = self.checked.split_at(directories);
        let (second, third) = behind.split_at(files);
        let find = |list: &[(NodeName, Node)], name: &NodeName| {
            list.binary_search_by(|(other, _)| other.cmp(name)).ok()
        };
        let in_second =
            second.iter().enumerate().filter(|_| !first.is_empty()).find_map(|(at, (name, _))| {
                find(first, name).map(|found| (found, directories + at))
            });
        in_second.or_else(|| {
            third.iter().enumerate().find_map(|(at, (name, _))| {
                let found = find(first, name)
                    .or_else(|| find(second, name).map(|found| directories + found));
                found.map(|found| (found, directories + files + at))
            })
        })
    }

    /// The path of the entry at that position.
    fn place(&self, position: usize) -> String {
        let [directories, files, _] = self.lists;
        if position < directories {
            format!("directories[{position}]")
        } else if position < directories + files {
            format!("files[{}]", position - directories)
        } else {
            format!("symlinks[{}]", position - directories - files)
        }
    }
}

#[cfg(test)]
mod tests {
    use granary_castore::{BlobDigest, DirectoryDigest, SymlinkTarget};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::node::named_node;

    fn bytes(text: &[u8]) -> Bytes {
        Bytes::copy_from_slice(text)
    }

    fn directory(name: &[u8], size: u64) -> castore::DirectoryNode {
        castore::DirectoryNode { name: bytes(name), digest: bytes(&[1; 32]), size }
    }

    fn file(name: &[u8]) -> castore::FileNode {
        castore::FileNode { name: bytes(name), digest: bytes(&[2; 32]), size: 3, executable: true }
    }

    fn symlink(name: &[u8]) -> castore::SymlinkNode {
        castore::SymlinkNode { name: bytes(name), target: bytes(b"t") }
    }

    fn refused(message: castore::Directory) -> String {
        Directory::try_from(message).expect_err("a breach").to_string()
    }

    #[test]
    fn every_breach_names_its_field() {
        let files =
            |files: Vec<castore::FileNode>| castore::Directory { files, ..Default::default() };
        let short = castore::FileNode { digest: bytes(&[0; 31]), ..file(b"b") };
        assert_eq!(
            refused(files(vec![file(b"a"), short])),
            "files[1].digest: it has 31 bytes instead of 32"
        );
        assert_eq!(
            refused(files(vec![file(b"b"), file(b"a")])),
            "files[1].name: \"a\" comes after \"b\", but the list must be sorted by name"
        );
        assert_eq!(
            refused(files(vec![file(b"a"), file(b"a")])),
            "files[1].name: \"a\" is also the name of files[0]"
        );
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
            let message = refused(files(vec![file(name)]));
            assert!(message.starts_with("files[0].name: "), "{message}");
        }
        for target in [&b""[..], b"a\0", &[b'x'; 4096]] {
            let link = castore::SymlinkNode { target: bytes(target), ..symlink(b"l") };
            let message =
                refused(castore::Directory { symlinks: vec![link], ..Default::default() });
            assert!(message.starts_with("symlinks[0].target: "), "{message}");
        }
        let overflowing = castore::Directory {
            directories: vec![directory(b"a", u64::MAX - 1), directory(b"b", 0)],
            ..Default::default()
        };
        assert!(refused(overflowing).starts_with("directories.size: "));
    }

    #[test]
    fn a_name_stands_in_one_list_only() {
        let message = castore::Directory {
            directories: vec![directory(b"a", 0), directory(b"x", 0)],
            files: vec![file(b"b")],
            symlinks: vec![symlink(b"a"), symlink(b"y")],
        };
        assert_eq!(refused(message), "symlinks[0].name: \"a\" is also the name of directories[0]");
        let message = castore::Directory {
            directories: vec![directory(b"x", 0)],
            files: vec![file(b"b"), file(b"x")],
            ..Default::default()
        };
        assert_eq!(refused(message), "files[1].name: \"x\" is also the name of directories[0]");
    }

    #[test]
    fn other_encodings_of_the_same_are_accepted() {
        let canonical = castore::Directory { files: vec![file(b"a")], ..Default::default() };
        let checked = Directory::try_from(canonical.clone()).expect("valid");
        // A field that nobody knows, and a symlink list before the files.
        let mut encoded = vec![0x7a, 2, b'h', b'i'];
        castore::Directory { symlinks: vec![symlink(b"b")], ..Default::default() }
            .encode(&mut encoded)
            .expect("a Vec grows");
        canonical.encode(&mut encoded).expect("a Vec grows");
        let odd = castore::Directory::decode(&*encoded).expect("a message");
        let odd = Directory::try_from(odd).expect("valid");
        assert_eq!(odd.get(b"a"), checked.get(b"a"));
        assert_eq!(odd.entries().len(), 2);
        assert_ne!(odd.encode(), encoded);
        assert_eq!(castore::Directory::from(&odd).encode_to_vec(), odd.encode());
    }

    fn node() -> impl Strategy<Value = Node> {
        let target = prop::collection::vec(1_u8.., 1..50);
        prop_oneof![
            (any::<[u8; 32]>(), 0..u64::from(u32::MAX)).prop_map(|(digest, size)| {
                Node::Directory { digest: DirectoryDigest::from_bytes(digest), size }
            }),
            (any::<[u8; 32]>(), any::<u64>(), any::<bool>()).prop_map(
                |(digest, size_bytes, executable)| Node::File {
                    digest: BlobDigest::from_bytes(digest),
                    size_bytes,
                    executable
                }
            ),
            target.prop_map(|target| Node::Symlink {
                target: SymlinkTarget::new(target).expect("no NUL")
            }),
        ]
    }

    fn entries() -> impl Strategy<Value = Vec<(NodeName, Node)>> {
        let name = prop::collection::vec(any::<u8>(), 1..20)
            .prop_filter_map("no name", |name| NodeName::new(name).ok());
        prop::collection::btree_map(name, node(), 0..30)
            .prop_map(|entries| entries.into_iter().collect())
    }

    proptest! {
        #[test]
        fn the_message_is_the_canonical_encoding(entries in entries()) {
            let directory = Directory::new(entries).expect("distinct names");
            let message = castore::Directory::from(&directory);
            prop_assert_eq!(message.encode_to_vec(), directory.encode());
            let decoded = castore::Directory::decode(directory.encode()).expect("a message");
            prop_assert_eq!(&decoded, &message);
            prop_assert_eq!(Directory::try_from(decoded).expect("valid"), directory);
        }

        #[test]
        fn any_message_is_refused_or_canonical(
            directories in prop::collection::vec("[a-c]{0,2}", 0..3),
            files in prop::collection::vec("[a-c]{0,2}", 0..3),
        ) {
            let message = castore::Directory {
                directories: directories.iter().map(|n| directory(n.as_bytes(), 1)).collect(),
                files: files.iter().map(|n| file(n.as_bytes())).collect(),
                symlinks: Vec::new(),
            };
            let mut names = [&directories[..], &files].concat();
            names.sort();
            let valid = names.iter().all(|name| !name.is_empty())
                && names.windows(2).all(|pair| pair[0] != pair[1])
                && directories.is_sorted()
                && files.is_sorted();
            match Directory::try_from(message.clone()) {
                Ok(checked) => {
                    prop_assert!(valid);
                    prop_assert_eq!(checked.encode(), message.encode_to_vec());
                }
                Err(error) => prop_assert!(!valid, "{}", error),
            }
        }

        #[test]
        fn nodes_come_back(node in node(), name in prop::collection::vec(any::<u8>(), 0..5)) {
            let message = named_node(name.clone(), &node);
            let message = castore::Node::decode(&*message.encode_to_vec()).expect("a message");
            let (_, back_name, back) = crate::node::split(message, "node").expect("valid");
            prop_assert_eq!((back_name.as_ref(), back), (&*name, node));
        }
    }
}

//! Puts the directories of a tree together while it is read in the order of its NAR.

use granary_castore::{
    BlobDigest, Directory, Error, MAX_DIRECTORY_ENTRIES, Node, NodeName, Result, SymlinkTarget,
    WriteBatch,
};

/// Most entries that the directories open at one time may have, in all. They are kept in
/// memory until their directory is complete.
pub const MAX_OPEN_ENTRIES: usize = 4_000_000;

/// The directories that are open, the outermost first.
#[derive(Default)]
pub(crate) struct TreeBuilder {
    open: Vec<OpenDirectory>,
    open_entries: usize,
    root: Option<Node>,
    /// The file whose contents come next: executable or not, and its size.
    open_file: Option<(bool, u64)>,
}

#[derive(Default)]
struct OpenDirectory {
    entries: Vec<(NodeName, Node)>,
    /// The name of the node that comes next.
    next_name: Option<NodeName>,
}

impl TreeBuilder {
    /// Begins a directory.
    pub(crate) fn directory(&mut self) {
        self.open.push(OpenDirectory::default());
    }

    /// Names the next node of the innermost directory.
    pub(crate) fn entry(&mut self, name: Vec<u8>) -> Result<()> {
        let name = NodeName::new(name)
            .map_err(|error| Error::invalid("a directory entry has a bad name").because(error))?;
        if self.open_entries == MAX_OPEN_ENTRIES {
            return Err(Error::too_large(format!(
                "the directories around \"{name}\" have more than {MAX_OPEN_ENTRIES} entries, the limit"
            )));
        }
        let directory = self.open.last_mut().ok_or_else(out_of_order)?;
        if directory.entries.len() == MAX_DIRECTORY_ENTRIES {
            return Err(Error::too_large(format!(
                "the directory of \"{name}\" has more than {MAX_DIRECTORY_ENTRIES} entries, the limit"
            )));
        }
        directory.next_name = Some(name);
        self.open_entries += 1;
        Ok(())
    }

    /// Adds a symlink.
    pub(crate) fn symlink(&mut self, target: Vec<u8>) -> Result<()> {
        let target = SymlinkTarget::new(target)
            .map_err(|error| Error::invalid("a symlink has a bad target").because(error))?;
        self.node(Node::Symlink { target })
    }

    /// Begins a file, whose contents come next.
    pub(crate) fn file(&mut self, executable: bool, size_bytes: u64) {
        self.open_file = Some((executable, size_bytes));
    }

    /// Ends the file, whose contents were `digest`.
    pub(crate) fn end_file(&mut self, digest: BlobDigest) -> Result<()> {
        let (executable, size_bytes) = self.open_file.take().ok_or_else(out_of_order)?;
        self.node(Node::File { digest, size_bytes, executable })
    }

    fn node(&mut self, node: Node) -> Result<()> {
        match self.open.last_mut() {
            Some(directory) => {
                let name = directory.next_name.take().ok_or_else(out_of_order)?;
                directory.entries.push((name, node));
            }
            None => self.root = Some(node),
        }
        Ok(())
    }

    /// Ends the innermost directory, which goes into `batch`: behind all that are below it.
    pub(crate) fn end_directory(&mut self, batch: &mut dyn WriteBatch) -> Result<()> {
        let OpenDirectory { entries, .. } = self.open.pop().ok_or_else(out_of_order)?;
        self.open_entries -= entries.len();
        let directory = Directory::new(entries)
            .map_err(|error| Error::invalid("entries make no directory").because(error))?;
        let digest = batch.put_directory(&directory)?;
        self.node(Node::Directory { digest, size: directory.size() })
    }

    /// The root of the complete tree.
    pub(crate) fn finish(self) -> Result<Node> {
        match self.root {
            Some(root) if self.open.is_empty() => Ok(root),
            _ => Err(out_of_order()),
        }
    }
}

fn out_of_order() -> Error {
    Error::invalid("the steps of the tree are not in the order of a NAR")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds symlinks to the innermost directory until that fails, and returns how many it took.
    fn fill(builder: &mut TreeBuilder) -> (usize, Error) {
        for number in 0.. {
            if let Err(error) = builder.entry(format!("{number:07}").into_bytes()) {
                return (number, error);
            }
            builder.symlink(b"t".to_vec()).expect("an entry was named");
        }
        unreachable!("memory would be used up before")
    }

    #[test]
    fn entries_have_a_limit() {
        let mut builder = TreeBuilder::default();
        for _ in 0..MAX_OPEN_ENTRIES / MAX_DIRECTORY_ENTRIES {
            builder.directory();
            let (count, error) = fill(&mut builder);
            // The name that leads further down is an entry, too, and makes room for none.
            assert!(MAX_DIRECTORY_ENTRIES - count <= 1, "{count}");
            assert!(matches!(error, Error::TooLarge(_)), "{error}");
            builder.open.last_mut().expect("it is open").entries.pop();
            builder.open_entries -= 1;
            builder.entry(b"z".to_vec()).expect("there is room for one");
        }
        builder.directory();
        let (count, error) = fill(&mut builder);
        assert_eq!(count, 0, "all directories together are full");
        assert!(matches!(error, Error::TooLarge(_)), "{error}");
    }
}

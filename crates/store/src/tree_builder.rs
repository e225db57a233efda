//! Puts the directories of a tree together while it is read in the order of its NAR.

use granary_castore::{Directory, Error, Node, NodeName, Result, WriteBatch};

/// Most entries that the directories open at one time may have, in all. They are kept in
/// memory until their directory is complete.
pub const MAX_OPEN_ENTRIES: usize = 4_000_000;

/// The directories that are open, the outermost first.
#[derive(Default)]
pub(crate) struct TreeBuilder {
    open: Vec<OpenDirectory>,
    open_entries: usize,
    root: Option<Node>,
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
        self.open_entries += 1;
        self.open.last_mut().ok_or_else(out_of_order)?.next_name = Some(name);
        Ok(())
    }

    /// Adds a file or a symlink.
    pub(crate) fn node(&mut self, node: Node) -> Result<()> {
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

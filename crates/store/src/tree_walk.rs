//! Walks a stored tree in the order of its NAR, without recursion.

use granary_castore::{BlobDigest, Directory, DirectoryService, Error, Node, Result};

/// Most entries that one tree may have to be walked. It bounds what a plan or a listing
/// costs: directories can share what is below them, so that a small upload can stand for a
/// tree without end.
pub const MAX_TREE_ENTRIES: u64 = 4_000_000;

/// What is told of a tree, in the order of its NAR: a node, or a directory, its entries
/// each followed by its node, and the directory's end.
pub(crate) trait Visitor {
    fn directory(&mut self) -> Result<()>;
    fn entry(&mut self, name: &[u8]) -> Result<()>;
    fn end_entry(&mut self) -> Result<()>;
    fn end_directory(&mut self) -> Result<()>;
    fn file(&mut self, digest: &BlobDigest, size_bytes: u64, executable: bool) -> Result<()>;
    fn symlink(&mut self, target: &[u8]) -> Result<()>;
}

/// A directory that was begun.
struct Open {
    directory: Directory,
    /// Position of the entry to visit next.
    next: usize,
}

/// Tells `visitor` of everything below `root`; `false` if a directory is not stored, and
/// then it was told only a part.
pub(crate) fn walk(
    directories: &dyn DirectoryService,
    root: &Node,
    visitor: &mut impl Visitor,
) -> Result<bool> {
    let mut open = Vec::new();
    if let Node::Directory { size, .. } = root
        && *size > MAX_TREE_ENTRIES
    {
        return Err(too_many());
    }
    if !begin(directories, root, visitor, &mut open)? {
        return Ok(false);
    }
    let mut entries = 0;
    while let Some(top) = open.last_mut() {
        let Some((name, node)) = top.directory.entries().get(top.next) else {
            open.pop();
            visitor.end_directory()?;
            if !open.is_empty() {
                visitor.end_entry()?;
            }
            continue;
        };
        top.next += 1;
        entries += 1;
        if entries > MAX_TREE_ENTRIES {
            return Err(too_many());
        }
        visitor.entry(name.as_bytes())?;
        if matches!(node, Node::Directory { .. }) {
            let node = node.clone();
            if !begin(directories, &node, visitor, &mut open)? {
                return Ok(false);
            }
        } else {
            leaf(node, visitor)?;
            visitor.end_entry()?;
        }
    }
    Ok(true)
}

/// Visits a node, and keeps it open if it is a directory.
fn begin(
    directories: &dyn DirectoryService,
    node: &Node,
    visitor: &mut impl Visitor,
    open: &mut Vec<Open>,
) -> Result<bool> {
    let Node::Directory { digest, size } = node else {
        leaf(node, visitor)?;
        return Ok(true);
    };
    let Some(directory) = directories.directory(digest)? else { return Ok(false) };
    if directory.size() != *size {
        let message = format!(
            "directory {digest} has size {}, and not {size} as is claimed",
            directory.size()
        );
        // The root comes from a caller, the others were checked when they were stored.
        return Err(if open.is_empty() {
            Error::invalid(message)
        } else {
            Error::corrupt(message)
        });
    }
    visitor.directory()?;
    open.push(Open { directory, next: 0 });
    Ok(true)
}

fn leaf(node: &Node, visitor: &mut impl Visitor) -> Result<()> {
    match node {
        Node::File { digest, size_bytes, executable } => {
            if *size_bytes == 0 && *digest != BlobDigest::of(b"") {
                return Err(Error::corrupt(format!(
                    "blob {digest} has a size of 0, but is not empty"
                )));
            }
            visitor.file(digest, *size_bytes, *executable)
        }
        Node::Symlink { target } => visitor.symlink(target.as_bytes()),
        Node::Directory { .. } => Ok(()),
    }
}

fn too_many() -> Error {
    Error::too_large(format!("the tree has more than {MAX_TREE_ENTRIES} entries, the limit"))
}

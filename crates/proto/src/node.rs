//! Nodes. On the wire the name of a node is part of it; the checked types keep them apart.

use std::fmt::Display;

use bytes::Bytes;
use granary_castore::{Node, NodeName, SymlinkTarget};

use crate::{
    castore::{self, node::Node as Kind},
    field::{Breach, FieldError, blob_digest, directory_digest},
};

/// The message for `node` under `name`, which may be empty.
pub fn named_node(name: impl Into<Bytes>, node: &Node) -> castore::Node {
    let name = name.into();
    let kind = match node {
        Node::Directory { digest, size } => Kind::Directory(castore::DirectoryNode {
            name,
            digest: Bytes::copy_from_slice(digest.as_bytes()),
            size: *size,
        }),
        Node::File { digest, size_bytes, executable } => Kind::File(castore::FileNode {
            name,
            digest: Bytes::copy_from_slice(digest.as_bytes()),
            size: *size_bytes,
            executable: *executable,
        }),
        Node::Symlink { target } => Kind::Symlink(castore::SymlinkNode {
            name,
            target: Bytes::copy_from_slice(target.as_bytes()),
        }),
    };
    castore::Node { node: Some(kind) }
}

/// The node of a message that carries no name.
///
/// # Errors
///
/// If it is not set, breaks a rule, or has a name.
pub fn anonymous_node(message: castore::Node) -> Result<Node, FieldError> {
    let (at, name, node) = split(message, "node")?;
    if name.is_empty() {
        Ok(node)
    } else {
        Err(FieldError::new(format_args!("{at}.name"), Breach::NameNotEmpty))
    }
}

/// The checked node of a message, and its unchecked name; `field` is where the message is
/// found. Also returns the path of the one of its fields that is set.
pub(crate) fn split(
    message: castore::Node,
    field: &str,
) -> Result<(String, Bytes, Node), FieldError> {
    let kind = message.node.ok_or_else(|| FieldError::new(field, Breach::Missing))?;
    match kind {
        Kind::Directory(node) => {
            let at = format!("{field}.directory");
            let name = node.name.clone();
            directory_node(&node, &at).map(|node| (at, name, node))
        }
        Kind::File(node) => {
            let at = format!("{field}.file");
            let name = node.name.clone();
            file_node(&node, &at).map(|node| (at, name, node))
        }
        Kind::Symlink(node) => {
            let at = format!("{field}.symlink");
            let name = node.name.clone();
            symlink_node(node, &at).map(|node| (at, name, node))
        }
    }
}

pub(crate) fn directory_node(
    message: &castore::DirectoryNode,
    at: impl Display,
) -> Result<Node, FieldError> {
    let digest = directory_digest(format_args!("{at}.digest"), &message.digest)?;
    Ok(Node::Directory { digest, size: message.size })
}

pub(crate) fn file_node(message: &castore::FileNode, at: impl Display) -> Result<Node, FieldError> {
    let digest = blob_digest(format_args!("{at}.digest"), &message.digest)?;
    Ok(Node::File { digest, size_bytes: message.size, executable: message.executable })
}

pub(crate) fn symlink_node(
    message: castore::SymlinkNode,
    at: impl Display,
) -> Result<Node, FieldError> {
    let target = SymlinkTarget::new(message.target)
        .map_err(|error| FieldError::new(format_args!("{at}.target"), Breach::Target(error)))?;
    Ok(Node::Symlink { target })
}

pub(crate) fn node_name(name: Bytes, at: impl Display) -> Result<NodeName, FieldError> {
    NodeName::new(name)
        .map_err(|error| FieldError::new(format_args!("{at}.name"), Breach::Name(error)))
}

//! `.ls` listings: the JSON in which a cache describes the tree inside a NAR, so that a
//! client can read one file with a range request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of the format, the only one there is.
const VERSION: u32 = 1;

/// How many directories may lie inside each other in a listing that is built. Listings are
/// written and dropped by recursion, which a deeper tree would turn into a stack overflow.
pub const MAX_DEPTH: usize = 256;

/// The longest listing that is read, in bytes: some hundred thousand files.
pub const MAX_LISTING_BYTES: usize = 64 * 1024 * 1024;

/// The contents of a `.ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The tree.
    pub root: ListingNode,
    version: u32,
}

/// A node of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum ListingNode {
    /// A directory.
    Directory {
        /// Its entries by name.
        entries: BTreeMap<String, ListingNode>,
    },
    /// A file.
    Regular {
        /// Whether it is executable.
        #[serde(default, skip_serializing_if = "is_false")]
        executable: bool,
        /// Where in the NAR its contents begin, in bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nar_offset: Option<u64>,
        /// Its size in bytes.
        size: u64,
    },
    /// A symlink.
    Symlink {
        /// Its target.
        target: String,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Why there is no listing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListingError {
    /// A name that JSON cannot hold.
    #[error("name \"{}\" is not UTF-8, and a listing cannot hold it", name.escape_ascii())]
    Name {
        /// The name.
        name: Vec<u8>,
    },
    /// A symlink target that JSON cannot hold.
    #[error(
        "symlink target \"{}\" is not UTF-8, and a listing cannot hold it",
        target.escape_ascii()
    )]
    Target {
        /// The target.
        target: Vec<u8>,
    },
    /// The tree is nested deeper than [`MAX_DEPTH`].
    #[error("directories nested deeper than {MAX_DEPTH}, the limit for a listing")]
    TooDeep,
    /// The calls of a builder make no tree.
    #[error("listing builder: {call} was called where it makes no tree")]
    Call {
        /// The method called.
        call: &'static str,
    },
    /// The JSON is over [`MAX_LISTING_BYTES`].
    #[error("listing of {len} bytes, over the limit of {MAX_LISTING_BYTES}")]
    TooLarge {
        /// Its length.
        len: usize,
    },
    /// The JSON has another version.
    #[error("listing of version {found}, and only {VERSION} is known")]
    Version {
        /// The version found.
        found: u32,
    },
    /// The JSON is no listing.
    #[error("listing is not valid")]
    Json(#[from] serde_json::Error),
}

impl Listing {
    /// A listing of this tree.
    pub const fn new(root: ListingNode) -> Self {
        Self { root, version: VERSION }
    }

    /// Reads the JSON of a listing. Its directories may be nested about 60 deep: the JSON
    /// parser's own limit.
    ///
    /// # Errors
    /// When it is too large or nested too deep, is no listing, or has another version.
    pub fn from_json(json: &[u8]) -> Result<Self, ListingError> {
        if json.len() > MAX_LISTING_BYTES {
            return Err(ListingError::TooLarge { len: json.len() });
        }
        let listing: Self = serde_json::from_slice(json)?;
        if listing.version != VERSION {
            return Err(ListingError::Version { found: listing.version });
        }
        Ok(listing)
    }

    /// The listing as JSON, in one line and with the keys in Nix's order.
    ///
    /// # Errors
    /// When the tree, put together without a [`ListingBuilder`], is too deep.
    pub fn to_json(&self) -> Result<String, ListingError> {
        check_depth(&self.root)?;
        Ok(serde_json::to_string(self)?)
    }
}

/// Walks the tree level by level, without recursion.
fn check_depth(root: &ListingNode) -> Result<(), ListingError> {
    let mut level = vec![root];
    for _ in 0..=MAX_DEPTH {
        let children = level.into_iter().flat_map(|node| match node {
            ListingNode::Directory { entries } => entries.values().collect(),
            _ => Vec::new(),
        });
        level = children.collect();
        if level.is_empty() {
            return Ok(());
        }
    }
    Err(ListingError::TooDeep)
}

/// Builds a listing by the steps in which a NAR is written or read.
#[derive(Debug, Default)]
pub struct ListingBuilder {
    /// The open directories, and the name under which each next node comes.
    open: Vec<(BTreeMap<String, ListingNode>, Option<String>)>,
    root: Option<ListingNode>,
}

impl ListingBuilder {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a directory.
    ///
    /// # Errors
    /// When the nesting is too deep, or no node is due.
    pub fn directory(&mut self) -> Result<(), ListingError> {
        self.check_node_due("directory")?;
        if self.open.len() == MAX_DEPTH {
            return Err(ListingError::TooDeep);
        }
        self.open.push((BTreeMap::new(), None));
        Ok(())
    }

    /// Names the next node of the innermost directory.
    ///
    /// # Errors
    /// When the name is not UTF-8, or no entry is due.
    pub fn entry(&mut self, name: &[u8]) -> Result<(), ListingError> {
        let Some((_, next_name @ None)) = self.open.last_mut() else {
            return Err(ListingError::Call { call: "entry" });
        };
        let name = str::from_utf8(name).map_err(|_| ListingError::Name { name: name.to_vec() })?;
        *next_name = Some(name.to_owned());
        Ok(())
    }

    /// Ends the innermost directory.
    ///
    /// # Errors
    /// When no directory is open, or an entry has no node yet.
    pub fn end_directory(&mut self) -> Result<(), ListingError> {
        match self.open.pop() {
            Some((entries, None)) => self.node("end_directory", ListingNode::Directory { entries }),
            _ => Err(ListingError::Call { call: "end_directory" }),
        }
    }

    /// Adds a file whose contents begin at `nar_offset` in the NAR.
    ///
    /// # Errors
    /// When no node is due.
    pub fn file(
        &mut self,
        executable: bool,
        size: u64,
        nar_offset: u64,
    ) -> Result<(), ListingError> {
        let node = ListingNode::Regular { executable, nar_offset: Some(nar_offset), size };
        self.node("file", node)
    }

    /// Adds a symlink.
    ///
    /// # Errors
    /// When the target is not UTF-8, or no node is due.
    pub fn symlink(&mut self, target: &[u8]) -> Result<(), ListingError> {
        let target =
            str::from_utf8(target).map_err(|_| ListingError::Target { target: target.to_vec() })?;
        self.node("symlink", ListingNode::Symlink { target: target.to_owned() })
    }

    /// The listing of the tree.
    ///
    /// # Errors
    /// When the tree is not complete.
    pub fn finish(self) -> Result<Listing, ListingError> {
        self.root.map(Listing::new).ok_or(ListingError::Call { call: "finish" })
    }

    fn check_node_due(&self, call: &'static str) -> Result<(), ListingError> {
        let due = match self.open.last() {
            Some((_, next_name)) => next_name.is_some(),
            None => self.root.is_none(),
        };
        if due { Ok(()) } else { Err(ListingError::Call { call }) }
    }

    fn node(&mut self, call: &'static str, node: ListingNode) -> Result<(), ListingError> {
        self.check_node_due(call)?;
        match self.open.last_mut() {
            Some((entries, next_name)) => {
                let name = next_name.take().ok_or(ListingError::Call { call })?;
                entries.insert(name, node);
            }
            None => self.root = Some(node),
        }
        Ok(())
    }
}

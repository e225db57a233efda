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
    version: u32,
    /// The tree.
    pub root: ListingNode,
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
        /// Its size in bytes.
        size: u64,
        /// Whether it is executable.
        #[serde(default, skip_serializing_if = "is_false")]
        executable: bool,
        /// Where in the NAR its contents begin, in bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nar_offset: Option<u64>,
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
        Self { version: VERSION, root }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> ListingNode {
        ListingNode::Symlink { target: "target".to_owned() }
    }

    #[test]
    fn builds_what_it_writes_and_reads() {
        let mut builder = ListingBuilder::new();
        builder.directory().expect("the root");
        builder.entry(b"a").expect("a name");
        builder.file(true, 3, 100).expect("a file");
        builder.entry(b"z").expect("a name");
        builder.symlink(b"a").expect("a symlink");
        builder.entry("\u{e9}".as_bytes()).expect("a name");
        builder.directory().expect("a directory");
        builder.end_directory().expect("its end");
        builder.end_directory().expect("the end");
        let listing = builder.finish().expect("a tree");
        let json = listing.to_json().expect("not deep");
        assert_eq!(
            json,
            concat!(
                r#"{"version":1,"root":{"type":"directory","entries":{"#,
                r#""a":{"type":"regular","size":3,"executable":true,"narOffset":100},"#,
                r#""z":{"type":"symlink","target":"a"},"#,
                "\"\u{e9}\":{\"type\":\"directory\",\"entries\":{}}}}}",
            )
        );
        assert_eq!(Listing::from_json(json.as_bytes()).expect("what was written"), listing);
    }

    #[test]
    fn bytes_that_are_not_utf8() {
        let mut builder = ListingBuilder::new();
        let error = builder.symlink(b"\xff/x").expect_err("not UTF-8");
        assert!(error.to_string().contains(r"\xff/x"), "{error}");
        builder.directory().expect("the root");
        let error = builder.entry(b"caf\xe9").expect_err("not UTF-8");
        assert!(error.to_string().contains(r"caf\xe9"), "{error}");
    }

    #[test]
    fn calls_that_make_no_tree() {
        let call = |result: Result<(), ListingError>| {
            assert!(matches!(result, Err(ListingError::Call { .. })), "{result:?}");
        };
        let mut builder = ListingBuilder::new();
        call(builder.entry(b"a"));
        call(builder.end_directory());
        builder.directory().expect("the root");
        call(builder.directory());
        call(builder.file(false, 0, 0));
        builder.entry(b"a").expect("a name");
        call(builder.entry(b"b"));
        assert!(ListingBuilder::new().finish().is_err());
        assert!(builder.finish().is_err());
        let mut builder = ListingBuilder::new();
        builder.symlink(b"a").expect("the root");
        call(builder.symlink(b"b"));
    }

    #[test]
    fn depth_is_limited() {
        let mut builder = ListingBuilder::new();
        for _ in 1..MAX_DEPTH {
            builder.directory().expect("not too deep");
            builder.entry(b"d").expect("a name");
        }
        builder.directory().expect("the deepest");
        builder.entry(b"d").expect("a name");
        assert!(matches!(builder.directory(), Err(ListingError::TooDeep)));
        builder.symlink(b"x").expect("a leaf");
        for _ in 0..MAX_DEPTH {
            builder.end_directory().expect("an end");
        }
        let listing = builder.finish().expect("a tree");
        let json = listing.to_json().expect("not too deep");
        // Deeper than the parser goes, and an error, not a panic.
        assert!(matches!(Listing::from_json(json.as_bytes()), Err(ListingError::Json(_))));
        let deeper = BTreeMap::from([("d".to_owned(), listing.root)]);
        let deeper = Listing::new(ListingNode::Directory { entries: deeper });
        assert!(matches!(deeper.to_json(), Err(ListingError::TooDeep)));
    }

    #[test]
    fn depth_that_is_read() {
        let mut root = link();
        for _ in 0..60 {
            root = ListingNode::Directory { entries: BTreeMap::from([("d".to_owned(), root)]) };
        }
        let listing = Listing::new(root);
        let json = listing.to_json().expect("not too deep");
        assert_eq!(Listing::from_json(json.as_bytes()).expect("60 deep"), listing);
    }

    #[test]
    fn wrong_json() {
        let read = |json: &str| Listing::from_json(json.as_bytes());
        let root = r#"{"type":"symlink","target":"target"}"#;
        let listing = read(&format!(r#"{{"root":{root},"version":1}}"#)).expect("any order");
        assert_eq!(listing, Listing::new(link()));
        let newer = read(&format!(r#"{{"root":{root},"version":2}}"#));
        assert!(matches!(newer, Err(ListingError::Version { found: 2 })));
        for json in [
            "",
            "{}",
            r#"{"version":1}"#,
            r#"{"version":1,"root":{"type":"socket"}}"#,
            r#"{"version":1,"root":{"type":"regular"}}"#,
            r#"{"version":1,"root":{"type":"regular","size":-1}}"#,
        ] {
            assert!(matches!(read(json), Err(ListingError::Json(_))), "{json}");
        }
        let large = vec![b' '; MAX_LISTING_BYTES + 1];
        assert!(matches!(Listing::from_json(&large), Err(ListingError::TooLarge { .. })));
    }
}

//! What a command is about: a store path, and possibly a place in it.

use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt as _};

use granary_castore::Node;
use granary_nix_formats::{STORE_DIR, StorePath, StorePathHash};
use granary_store::PathInfo;

use crate::{
    error::{CliError, Result},
    target::Target,
};

/// Length of a hash part in characters.
const HASH_CHARS: usize = 32;

/// A store path (`/nix/store/<hash>-<name>`, `<hash>-<name>`, or just `<hash>`), and the
/// names that lead to a place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreePath {
    hash: StorePathHash,
    /// The name, if it was given.
    store_path: Option<StorePath>,
    /// Names of directory entries; they need not be UTF-8.
    names: Vec<Vec<u8>>,
}

impl TreePath {
    /// Reads what stands on the command line.
    pub(crate) fn parse(argument: &OsStr) -> Result<Self> {
        let text = argument.as_bytes();
        let store_dir = [STORE_DIR.as_bytes(), b"/"].concat();
        let text = text.strip_prefix(&store_dir[..]).unwrap_or(text);
        let mut names = text.split(|byte| *byte == b'/');
        let usage = |problem: &dyn fmt::Display| {
            CliError::Usage(format!(
                "{} is no store path: {problem}; write {STORE_DIR}/HASH-NAME, HASH-NAME or HASH",
                argument.display()
            ))
        };
        let first = names.next().unwrap_or_default();
        let first = str::from_utf8(first).map_err(|error| usage(&error))?;
        let (hash, store_path) = if first.len() == HASH_CHARS {
            (StorePathHash::parse(first).map_err(|error| usage(&error))?, None)
        } else {
            let store_path = StorePath::from_base_name(first).map_err(|error| usage(&error))?;
            (*store_path.hash(), Some(store_path))
        };
        let names: Vec<_> =
            names.filter(|name| !matches!(*name, b"" | b".")).map(<[u8]>::to_vec).collect();
        if names.iter().any(|name| name == b"..") {
            return Err(usage(&"\"..\" has no meaning in a store path"));
        }
        Ok(Self { hash, store_path, names })
    }

    /// As [`parse`](Self::parse), for a command that is about a store path as a whole.
    pub(crate) fn parse_whole(argument: &OsStr) -> Result<Self> {
        let path = Self::parse(argument)?;
        if path.names.is_empty() {
            return Ok(path);
        }
        Err(CliError::Usage(format!(
            "{} leads into a store path, but this command takes one as a whole",
            argument.display()
        )))
    }

    /// The hash part of the store path.
    pub(crate) const fn hash(&self) -> &StorePathHash {
        &self.hash
    }

    /// Finds the path info.
    pub(crate) fn path_info(&self, target: &Target) -> Result<PathInfo> {
        let Some(path_info) = target.path_infos().path_info(&self.hash)? else {
            let asked = match &self.store_path {
                Some(store_path) => store_path.absolute(),
                None => format!("{STORE_DIR}/{}-…", self.hash),
            };
            return Err(CliError::NoPath(format!("{asked} is not in {target}")));
        };
        match &self.store_path {
            Some(asked) if *asked != path_info.store_path => Err(CliError::NoPath(format!(
                "{} is not in {target}, but {} is, with the same hash part",
                asked.absolute(),
                path_info.store_path.absolute()
            ))),
            _ => Ok(path_info),
        }
    }

    /// Finds the place: the path info, and the node that the names lead to.
    pub(crate) fn node(&self, target: &Target) -> Result<(PathInfo, Node)> {
        let path_info = self.path_info(target)?;
        let mut node = path_info.node.clone();
        let mut walked = path_info.store_path.absolute();
        for name in &self.names {
            let digest = match node {
                Node::Directory { digest, .. } => digest,
                Node::File { .. } => {
                    return Err(CliError::NoPlace(format!("{walked} is a file")));
                }
                Node::Symlink { target } => {
                    return Err(CliError::NoPlace(format!(
                        "{walked} is a symlink to {target}, and symlinks are not followed"
                    )));
                }
            };
            let directory = target.castore().directory(&digest)?.ok_or_else(|| {
                CliError::NoContents(format!("directory {digest} of {walked} is not stored"))
            })?;
            let entry = directory.get(name).cloned();
            walked = format!("{walked}/{}", String::from_utf8_lossy(name));
            node = entry.ok_or_else(|| CliError::NoPlace(format!("{walked} does not exist")))?;
        }
        Ok((path_info, node))
    }

    /// The names that lead to the place, joined.
    pub(crate) fn sub_path(&self) -> Vec<u8> {
        self.names.join(&b'/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "slnq0qwffq4zk8fvimrid70czkss4kch";

    fn parse(text: &[u8]) -> Result<TreePath> {
        TreePath::parse(OsStr::from_bytes(text))
    }

    #[test]
    fn every_form() {
        for prefix in [format!("/nix/store/{HASH}-a"), format!("{HASH}-a"), HASH.to_owned()] {
            for (rest, sub_path) in
                [(&b""[..], &b""[..]), (b"/", b""), (b"/b/c", b"b/c"), (b"//b/./\xff/", b"b/\xff")]
            {
                let path = parse(&[prefix.as_bytes(), rest].concat()).expect("a path");
                assert_eq!(path.hash.to_string(), HASH);
                assert_eq!(path.store_path.is_some(), prefix != HASH);
                assert_eq!(path.sub_path(), sub_path);
            }
        }
    }

    #[test]
    fn what_is_none() {
        let long = format!("{HASH}-a/../b");
        for text in [&b""[..], b"/nix/store/", b"a", b"/etc/passwd", long.as_bytes(), b"\xff"] {
            let error = parse(text).expect_err("it is no path");
            assert!(matches!(error, CliError::Usage(_)), "{error}");
        }
        let inside = format!("{HASH}/a");
        assert!(TreePath::parse_whole(OsStr::new(&inside)).is_err());
        assert!(TreePath::parse_whole(OsStr::new(HASH)).is_ok());
    }
}

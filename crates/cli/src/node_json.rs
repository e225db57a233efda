//! Nodes and paths in the JSON that commands print.

use data_encoding::BASE64;
use granary_castore::Node;
use serde::Serialize;

/// A node. What it does not have is left out.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum NodeJson {
    Directory {
        digest: String,
        /// Entries below it, those of its directories counted as well.
        entries: u64,
    },
    File {
        digest: String,
        size: u64,
        executable: bool,
    },
    Symlink {
        #[serde(flatten)]
        target: TargetJson,
    },
}

/// Where a symlink points: text, or base64 if it is not UTF-8.
#[derive(Debug, Serialize)]
pub(crate) enum TargetJson {
    #[serde(rename = "target")]
    Text(String),
    #[serde(rename = "targetBase64")]
    Base64(String),
}

/// A path within a tree: text, or base64 if it is not UTF-8.
#[derive(Debug, Serialize)]
pub(crate) enum PathJson {
    #[serde(rename = "path")]
    Text(String),
    #[serde(rename = "pathBase64")]
    Base64(String),
}

impl NodeJson {
    pub(crate) fn new(node: &Node) -> Self {
        match node {
            Node::Directory { digest, size } => {
                Self::Directory { digest: digest.to_string(), entries: *size }
            }
            Node::File { digest, size_bytes, executable } => Self::File {
                digest: digest.to_string(),
                size: *size_bytes,
                executable: *executable,
            },
            Node::Symlink { target } => {
                let target = target.as_bytes();
                Self::Symlink {
                    target: match str::from_utf8(target) {
                        Ok(text) => TargetJson::Text(text.to_owned()),
                        Err(_) => TargetJson::Base64(BASE64.encode(target)),
                    },
                }
            }
        }
    }
}

impl PathJson {
    pub(crate) fn new(path: &[u8]) -> Self {
        match str::from_utf8(path) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(BASE64.encode(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use granary_castore::SymlinkTarget;

    use super::*;

    #[test]
    fn what_is_not_utf8_is_told_apart() {
        let symlink = |target: &[u8]| {
            let target = SymlinkTarget::new(target.to_vec()).expect("a target");
            serde_json::to_string(&NodeJson::new(&Node::Symlink { target })).expect("JSON")
        };
        assert_eq!(symlink(b"a"), r#"{"type":"symlink","target":"a"}"#);
        assert_eq!(symlink(b"\xff"), r#"{"type":"symlink","targetBase64":"/w=="}"#);
        let path = |path: &[u8]| serde_json::to_string(&PathJson::new(path)).expect("JSON");
        assert_eq!(path(b"a/b"), r#"{"path":"a/b"}"#);
        assert_eq!(path(b"\xff"), r#"{"pathBase64":"/w=="}"#);
    }
}

//! Nodes and names in the JSON that commands print.

use granary_castore::Node;
use serde::Serialize;

/// A node. What it does not have is left out.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
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
        target: TextJson,
    },
}

/// Bytes that are text as a rule, under `target`: as a string, or in base64 under
/// `targetBase64` if they are no UTF-8.
#[derive(Debug, Serialize)]
pub(crate) enum TextJson {
    #[serde(rename = "target")]
    Text(String),
    #[serde(rename = "targetBase64")]
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
            Node::Symlink { target } => Self::Symlink {
                target: match str::from_utf8(target.as_bytes()) {
                    Ok(text) => TextJson::Text(text.to_owned()),
                    Err(_) => TextJson::Base64(base64(target.as_bytes())),
                },
            },
        }
    }
}

/// Bytes in standard base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

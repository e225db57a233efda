//! The castore URL: a NAR's URL that says what is in it, so that a client that knows
//! castore can fetch just the nodes that it lacks.

use data_encoding::BASE64URL_NOPAD;
use granary_castore::{Chain, Node};
use prost::Message as _;

use super::Failure;

/// What stands before the encoded node, under the old name and the new, which is written.
const SNIX_PREFIX: &str = "snix-castore/";
const TVIX_PREFIX: &str = "tvix-castore/";

/// Longest encoded node, in bytes: a symlink with the longest target has room.
const MAX_ENCODED_BYTES: usize = 8 * 1024;

/// The URL of the NAR of `node`, relative to the cache.
pub(super) fn of(node: &Node, nar_size: u64) -> String {
    let encoded = BASE64URL_NOPAD.encode(&granary_proto::named_node("", node).encode_to_vec());
    format!("nar/{SNIX_PREFIX}{encoded}?narsize={nar_size}")
}

/// The encoded node in a path below `nar/`, if it has one.
pub(super) fn encoded_node(path: &str) -> Option<&str> {
    path.strip_prefix(SNIX_PREFIX).or_else(|| path.strip_prefix(TVIX_PREFIX))
}

/// The node that `encoded` stands for.
///
/// # Errors
///
/// If it is none.
pub(super) fn decode(encoded: &str) -> Result<Node, Failure> {
    if encoded.len() > MAX_ENCODED_BYTES {
        return Err(Failure::bad_request(format!(
            "a castore URL with {} bytes of node, over the limit of {MAX_ENCODED_BYTES}",
            encoded.len()
        )));
    }
    let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|error| {
        Failure::bad_request(format!("the node of a castore URL is not base64url: {error}"))
    })?;
    let message = granary_proto::castore::Node::decode(&bytes[..]).map_err(|error| {
        Failure::bad_request(format!("the node of a castore URL is not protobuf: {error}"))
    })?;
    granary_proto::anonymous_node(message).map_err(|error| {
        Failure::bad_request(format!("the node of a castore URL is not valid: {}", Chain(&error)))
    })
}

/// The node of a narinfo's URL, if it is a castore URL.
///
/// # Errors
///
/// If it is one, but a broken one.
pub(super) fn parse(url: &str) -> Result<Option<Node>, Failure> {
    let path = url.split_once('?').map_or(url, |(path, _)| path);
    path.strip_prefix("nar/").and_then(encoded_node).map(decode).transpose()
}

#[cfg(test)]
mod tests {
    use granary_castore::{BlobDigest, DirectoryDigest, SymlinkTarget};

    use super::*;

    #[test]
    fn round_trips() {
        let nodes = [
            Node::Directory { digest: DirectoryDigest::from_bytes([0xfb; 32]), size: 7 },
            Node::File { digest: BlobDigest::of(b"x"), size_bytes: 1, executable: true },
            Node::Symlink { target: SymlinkTarget::new(vec![b'x'; 4095]).expect("valid") },
        ];
        for node in nodes {
            let url = of(&node, 120);
            assert!(url.starts_with("nar/snix-castore/"), "{url}");
            assert!(url.ends_with("?narsize=120"), "{url}");
            assert!(!url.contains(['=', '+']) || url.matches('=').count() == 1, "{url}");
            assert_eq!(parse(&url).expect("valid"), Some(node.clone()));
            let old = url.replace("snix-castore", "tvix-castore");
            assert_eq!(parse(&old).expect("valid"), Some(node));
        }
    }

    #[test]
    fn tells_the_broken_from_the_others() {
        assert_eq!(parse("nar/x.nar.xz").expect("not a castore URL"), None);
        assert_eq!(parse("http://elsewhere/nar/snix-castore/Cg").expect("elsewhere"), None);
        for url in ["nar/snix-castore/", "nar/snix-castore/***", "nar/tvix-castore/AAAA"] {
            assert!(parse(url).is_err(), "{url}");
        }
        assert!(decode(&"A".repeat(MAX_ENCODED_BYTES + 4)).is_err());
    }
}

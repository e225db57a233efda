//! Store paths as Nix uploads and fetches them.

use granary_nix_formats::{NarHash, NarInfo, StorePath};
use granary_testkit::tree::Tree;
use sha2::{Digest as _, Sha256};

use crate::http::{Answer, get, request};

/// A store path that is one file, as Nix uploads it.
pub(crate) struct Upload {
    pub(crate) store_path: StorePath,
    pub(crate) nar: Vec<u8>,
    pub(crate) nar_url: String,
    narinfo: String,
}

impl Upload {
    pub(crate) fn new(name: &str, contents: Vec<u8>) -> Self {
        let nar = Tree::file(contents).to_nar();
        let nar_hash = NarHash::from_bytes(Sha256::digest(&nar).into());
        let store_path = StorePath::for_source(name, &nar_hash).expect("a valid name");
        let hash = nar_hash.to_nix_string();
        let hash = hash.strip_prefix("sha256:").expect("the algorithm comes first");
        let nar_url = format!("nar/{hash}.nar");
        let narinfo = format!(
            "StorePath: {}\nURL: {nar_url}\nCompression: none\nFileHash: {nar_hash}\n\
             FileSize: {size}\nNarHash: {nar_hash}\nNarSize: {size}\nReferences: \n",
            store_path.absolute(),
            size = nar.len()
        );
        NarInfo::parse(&narinfo).expect("it is valid");
        Self { store_path, nar, nar_url, narinfo }
    }

    /// Uploads it as Nix does, the NAR first: the last answer, none if the daemon is gone.
    pub(crate) fn put(&self, address: &str) -> Option<Answer> {
        let answer = request(address, "PUT", &self.nar_url, &self.nar)?;
        if !answer.is_success() {
            return Some(answer);
        }
        let path = format!("{}.narinfo", self.store_path.hash());
        request(address, "PUT", &path, self.narinfo.as_bytes())
    }
}

/// The NAR of a store path as Nix gets it, by way of its narinfo.
pub(crate) fn fetch(address: &str, hash: &str) -> Vec<u8> {
    let narinfo = String::from_utf8(get(address, &format!("{hash}.narinfo"))).expect("text");
    let narinfo = NarInfo::parse(&narinfo).expect("it is valid");
    get(address, &narinfo.url)
}

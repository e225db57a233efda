//! Proofs that hold no more.

use std::collections::HashSet;

use bytes::Bytes;
use granary_castore::{RecordKind, RecordWrite, Result};
use granary_nix_formats::StorePath;

use crate::{PathInfoService as _, Store, kinds, node_record::NodeKey, upload};

/// How many records are looked at, and written, together.
const PAGE: usize = 1_000;

impl Store {
    /// Forgets that the NARs of `paths` were proved, and which uploads they came by: they are
    /// served again once all of their contents are there, and uploaded again by who sees that
    /// they are not.
    ///
    /// # Errors
    ///
    /// If it could not be made durable.
    pub fn doubt(&self, paths: &[StorePath]) -> Result<()> {
        let mut nodes = HashSet::new();
        for path in paths {
            if let Some(found) = self.path_info(path.hash())? {
                nodes.extend(NodeKey::of(&found.node));
            }
        }
        let mut doubted = Vec::new();
        for node in &nodes {
            doubted.push(removal(kinds::NAR_DIGEST, Bytes::copy_from_slice(node.as_bytes())));
        }
        let mut after: Option<Bytes> = None;
        while !nodes.is_empty() {
            let page = self.records().scan_records(kinds::UPLOADED_NAR, after.as_deref(), PAGE)?;
            for (key, value) in &page {
                let uploaded = upload::decode_record(key, value);
                let node = uploaded.ok().and_then(|uploaded| NodeKey::of(&uploaded.node));
                if node.is_some_and(|node| nodes.contains(&node)) {
                    doubted.push(removal(kinds::UPLOADED_NAR, key.clone()));
                }
            }
            if page.len() < PAGE {
                break;
            }
            after = page.last().map(|(key, _)| key.clone());
        }
        for writes in doubted.chunks(PAGE) {
            self.records().write_records(writes.to_vec())?;
        }
        Ok(())
    }
}

fn removal(kind: RecordKind, key: Bytes) -> RecordWrite {
    RecordWrite { kind, key, value: None }
}

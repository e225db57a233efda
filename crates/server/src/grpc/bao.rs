//! What verifies a range of a blob: its length, and the hashes inside its BLAKE3 tree.

use std::io::{self, Read};

use bao_tree::{
    BaoTree, BlockSize,
    io::{outboard::PreOrderOutboard, sync},
};
use bytes::Bytes;
use granary_castore::{BlobDigest, BlobReader, BlobService, Error, Result};

/// The leaves of the tree that is sent: 2^4 BLAKE3 chunks of 1 KiB, 16 KiB.
const GROUP: BlockSize = BlockSize::from_chunk_log(4);

/// How much is asked of the store at a time.
const READ_BYTES: usize = 1 << 20;

/// Bytes before the outboard: the length of the blob.
const LENGTH_BYTES: u64 = 8;

/// How many bytes [`encode`] gives for a blob of that length.
pub(super) fn encoded_len(size_bytes: u64) -> u64 {
    LENGTH_BYTES + BaoTree::new(size_bytes, GROUP).outboard_size()
}

/// The length of the blob `digest` as 8 bytes, little endian, and the pre-order outboard of
/// its tree; `None` if it is not stored. Beside the result, this takes the memory of one
/// read: the blob is read once from front to back.
pub(super) fn encode(blobs: &dyn BlobService, digest: &BlobDigest) -> Result<Option<Bytes>> {
    let Some(reader) = blobs.open(digest)? else { return Ok(None) };
    let size_bytes = reader.size_bytes();
    let tree = BaoTree::new(size_bytes, GROUP);
    let too_large = |_| Error::too_large(format!("the hash tree of blob {digest} has no room"));
    let hashes = vec![0; usize::try_from(tree.outboard_size()).map_err(too_large)?];

    let mut source = Source { reader, offset: 0, waiting: Bytes::new(), failed: None };
    let mut outboard = PreOrderOutboard { root: blake3_of_nothing(), tree, data: hashes };
    let root = match sync::outboard(&mut source, tree, &mut outboard) {
        Ok(root) => BlobDigest::from(root),
        Err(error) => {
            return Err(source.failed.unwrap_or_else(|| {
                Error::corrupt(format!("blob {digest} is shorter than its length")).because(error)
            }));
        }
    };
    if root != *digest {
        return Err(Error::corrupt(format!("the contents of blob {digest} have digest {root}")));
    }
    Ok(Some([&size_bytes.to_le_bytes()[..], &outboard.data].concat().into()))
}

/// What stands for the root until it is known.
fn blake3_of_nothing() -> bao_tree::blake3::Hash {
    bao_tree::blake3::hash(&[])
}

/// A blob, read in order.
struct Source {
    reader: Box<dyn BlobReader>,
    offset: u64,
    /// Read, but not taken.
    waiting: Bytes,
    /// Why a read failed; an `io::Error` cannot carry it back whole.
    failed: Option<Error>,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.waiting.is_empty() {
            self.waiting = self.reader.read_at(self.offset, READ_BYTES).map_err(|error| {
                self.failed = Some(error.clone());
                io::Error::other(error)
            })?;
            self.offset += self.waiting.len() as u64;
        }
        let taken = self.waiting.split_to(buffer.len().min(self.waiting.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

#[cfg(test)]
mod tests {
    use granary_castore::{Castore, MemoryStore};

    use super::*;

    fn encoded(contents: &[u8]) -> Bytes {
        let store = MemoryStore::default();
        let mut batch = store.batch().expect("memory");
        let digest = batch.put_blob(Bytes::copy_from_slice(contents)).expect("memory");
        batch.commit().expect("memory");
        let encoded = encode(&store, &digest).expect("memory").expect("it is stored");
        assert_eq!(encoded.len() as u64, encoded_len(contents.len() as u64));
        encoded
    }

    #[test]
    fn a_blob_of_one_group_has_only_its_length() {
        assert_eq!(&*encoded(b""), [0; 8]);
        assert_eq!(&*encoded(b"abc"), [3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encoded(&[7; 16 << 10]).len(), 8);
    }

    #[test]
    fn two_groups_have_one_pair_of_hashes() {
        let contents = vec![7; (16 << 10) + 1];
        let encoded = encoded(&contents);
        assert_eq!(encoded.len(), 8 + 64);
        assert_eq!(encoded[..8], (contents.len() as u64).to_le_bytes());
    }

    #[test]
    fn what_is_not_stored_has_none() {
        let absent = BlobDigest::of(b"absent");
        assert!(encode(&MemoryStore::default(), &absent).expect("memory").is_none());
    }
}

//! Ranges of a blob, verified with what Stat sent.

use std::sync::Arc;

use bao_tree::{
    BaoTree, BlockSize, ByteRanges, ChunkRanges,
    io::{outboard::PreOrderOutboard, round_up_to_chunks, sync},
};
use bytes::Bytes;
use granary_castore::{
    BlobDigest, BlobReader, BlobService, BlobStat, Castore, ChunkMeta, Directory, DirectoryDigest,
    DirectoryService, Error, Result, WriteBatch,
};
use granary_proto::castore::StatBlobRequest;

use super::{Server, noise};

const GROUP_BYTES: u64 = 16 << 10;

async fn bao_of(server: &Server, digest: &Bytes) -> Bytes {
    let request = StatBlobRequest { digest: digest.clone(), send_chunks: false, send_bao: true };
    server.blobs().stat(request).await.expect("it is stored").into_inner().bao
}

/// Takes what Stat sent apart.
fn outboard(digest: &Bytes, bao: &[u8]) -> PreOrderOutboard<Vec<u8>> {
    let (length, hashes) = bao.split_first_chunk::<8>().expect("a length");
    let group = BlockSize::from_bytes(GROUP_BYTES).expect("a power of two");
    let tree = BaoTree::new(u64::from_le_bytes(*length), group);
    let root = <[u8; 32]>::try_from(&digest[..]).expect("32 bytes").into();
    PreOrderOutboard { root, tree, data: hashes.to_vec() }
}

/// The chunks of BLAKE3 that a range of bytes touches, in whole groups.
fn chunks(range: std::ops::Range<u64>) -> ChunkRanges {
    let groups = range.start / GROUP_BYTES * GROUP_BYTES..range.end.next_multiple_of(GROUP_BYTES);
    round_up_to_chunks(&ByteRanges::from(groups))
}

/// Whether `data`, of which only `range` has to be there, belongs to the blob.
fn verifies(
    outboard: &PreOrderOutboard<Vec<u8>>,
    data: &[u8],
    range: std::ops::Range<u64>,
) -> bool {
    let ranges = chunks(range);
    let mut encoded = Vec::new();
    if sync::encode_ranges_validated(data, outboard, &ranges, &mut encoded).is_err() {
        return false;
    }
    // And as whoever receives the range from elsewhere, with nothing but the root.
    let mut decoded = vec![0; data.len()];
    let mut fresh = PreOrderOutboard { root: outboard.root, tree: outboard.tree, data: Vec::new() };
    sync::decode_ranges(&*encoded, &ranges, &mut decoded, &mut fresh).is_ok()
}

#[tokio::test]
async fn any_range_of_a_large_blob_can_be_verified() {
    let server = Server::start().await;
    let contents = noise((20 << 20) + 12_345);
    let digest = server.put(&contents, 1 << 20).await;
    let bao = bao_of(&server, &digest).await;
    assert_eq!(bao[..8], (contents.len() as u64).to_le_bytes());
    let groups = contents.len().div_ceil(16 << 10);
    assert_eq!(bao.len(), 8 + (groups - 1) * 64, "a pair of hashes for each inner node");

    let sent = outboard(&digest, &bao);
    for range in [0..1, 7_000_000..7_100_000, contents.len() as u64 - 5..contents.len() as u64] {
        // A reader that fetched this range only, in whole groups.
        let start = usize::try_from(range.start / GROUP_BYTES * GROUP_BYTES).expect("small");
        let end = usize::try_from(range.end.next_multiple_of(GROUP_BYTES)).expect("small");
        let end = end.min(contents.len());
        let mut sparse = vec![0; contents.len()];
        sparse[start..end].copy_from_slice(&contents[start..end]);
        assert!(verifies(&sent, &sparse, range.clone()), "{range:?}");
        sparse[start] ^= 1;
        assert!(!verifies(&sent, &sparse, range.clone()), "{range:?} was changed");
    }

    let mut tampered = bao.to_vec();
    tampered[8] ^= 1;
    assert!(!verifies(&outboard(&digest, &tampered), &contents, 0..1));
}

#[tokio::test]
async fn it_is_sent_only_if_asked_for() {
    let server = Server::start().await;
    let digest = server.put(&noise(100_000), 1 << 20).await;
    let request = StatBlobRequest { digest, send_chunks: true, send_bao: false };
    let known = server.blobs().stat(request).await.expect("it is stored").into_inner();
    assert!(known.bao.is_empty());
}

/// A store of one blob that is too large to be read here.
struct Huge {
    size_bytes: u64,
}

const HUGE: BlobDigest = BlobDigest::from_bytes([7; 32]);

impl BlobService for Huge {
    fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>> {
        Ok((*digest == HUGE).then_some(BlobStat { size_bytes: self.size_bytes }))
    }

    fn chunks(&self, _digest: &BlobDigest, _max_chunks: usize) -> Result<Option<Vec<ChunkMeta>>> {
        Ok(Some(Vec::new()))
    }

    fn open(&self, _digest: &BlobDigest) -> Result<Option<Box<dyn BlobReader>>> {
        Err(Error::unavailable("it should not be read"))
    }
}

impl DirectoryService for Huge {
    fn directory(&self, _digest: &DirectoryDigest) -> Result<Option<Directory>> {
        Ok(None)
    }
}

impl Castore for Huge {
    fn batch(&self) -> Result<Box<dyn WriteBatch>> {
        Err(Error::unavailable("it takes no writes"))
    }
}

#[tokio::test]
async fn a_tree_too_large_for_a_message_is_left_out() {
    let digest = Bytes::copy_from_slice(HUGE.as_bytes());
    // The hashes of 1 GiB and a little are what just passes 4 MiB.
    for size_bytes in [(1 << 30) + (1 << 20), 1 << 50, u64::MAX] {
        let server = Server::over(Arc::new(Huge { size_bytes })).await;
        assert!(bao_of(&server, &digest).await.is_empty());
    }
    // Below that the blob is read, which this one refuses.
    let server = Server::over(Arc::new(Huge { size_bytes: (1 << 30) - (1 << 20) })).await;
    let request = StatBlobRequest { digest, send_chunks: false, send_bao: true };
    let status = server.blobs().stat(request).await.expect_err("it cannot be read");
    assert_eq!(status.code(), tonic::Code::Unavailable);
}

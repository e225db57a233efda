//! NARs cut into pieces, over blobs that are kept in extents.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use granary_castore::{BlobDigest, Castore, Error, Result};
use granary_store::{NarPiece, NarPieces, NarPlan, PIECE_BYTES, StoredBytes};
use granary_testkit::{FramedStore, Random};
use proptest::prelude::*;

use crate::support::{Tree, any_tree, put_tree};

fn plan(castore: &dyn Castore, tree: &Tree) -> Arc<NarPlan> {
    let node = put_tree(castore, tree).node;
    Arc::new(NarPlan::new(castore, &node).expect("memory").expect("complete"))
}

fn cut(
    castore: &dyn Castore,
    plan: &Arc<NarPlan>,
    range: Range<u64>,
) -> impl Iterator<Item = Result<NarPiece>> {
    let mut pieces = NarPieces::new(Arc::clone(plan), range);
    std::iter::from_fn(move || pieces.next(castore).transpose())
}

fn read(castore: &dyn Castore, plan: &Arc<NarPlan>, range: Range<u64>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for piece in cut(castore, plan, range) {
        bytes.extend(piece?.read()?.concat());
    }
    Ok(bytes)
}

/// The bytes of a range, read as they are stored and decompressed, and how many frames there
/// were.
fn read_stored(
    castore: &dyn Castore,
    plan: &Arc<NarPlan>,
    range: Range<u64>,
) -> Result<(Vec<u8>, usize)> {
    let (mut bytes, mut frames) = (Vec::new(), 0);
    for piece in cut(castore, plan, range) {
        piece?.read_stored(|stored| {
            match stored {
                StoredBytes::Literal(literal) => bytes.extend_from_slice(literal),
                StoredBytes::Plain(plain) => bytes.extend_from_slice(&plain),
                StoredBytes::Zstd { frame, size_bytes } => {
                    let limit = usize::try_from(size_bytes).expect("small");
                    let decoded = zstd::bulk::decompress(&frame, limit).expect("a frame");
                    assert_eq!(decoded.len(), limit);
                    bytes.extend(decoded);
                    frames += 1;
                }
            }
            Ok(())
        })?;
    }
    Ok((bytes, frames))
}

/// Files of many sizes, in a NAR of several pieces.
fn large_tree() -> Tree {
    let mut random = Random::new(5);
    let sizes = [3 << 20, 1, 70_000, 0, 255 << 10, (256 << 10) + 1, 2_000_000, 40_000, 131_072];
    let files = sizes
        .into_iter()
        .enumerate()
        .map(|(number, size)| (format!("{number}"), Tree::file(random.compressible(size))));
    let small = (0..3_000)
        .map(|number| (format!("s{number}"), Tree::file(format!("the contents of {number}"))));
    Tree::directory(files.chain(small))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_range_is_part_of_the_whole(
        tree in any_tree(),
        max_extent_bytes in 1..3_000usize,
        joins in any::<bool>(),
        start in any::<prop::sample::Index>(),
        len in 0..6_000usize,
    ) {
        let castore = if joins {
            FramedStore::joining(max_extent_bytes)
        } else {
            FramedStore::new(max_extent_bytes)
        };
        let plan = plan(&castore, &tree);
        let nar = tree.nar();
        let start = start.index(nar.len() + 2);
        let expected = &nar[start.min(nar.len())..(start + len).min(nar.len())];
        let range = start as u64..(start + len) as u64;
        prop_assert_eq!(&read(&castore, &plan, range.clone()).expect("complete"), expected);
        let (stored, _) = read_stored(&castore, &plan, range).expect("complete");
        prop_assert_eq!(&stored, expected);
    }
}

#[test]
fn pieces_are_large_and_whole() {
    let tree = large_tree();
    let nar = tree.nar();
    for max_extent_bytes in [5_000, 200_000, 1 << 20] {
        let castore = FramedStore::new(max_extent_bytes);
        let plan = plan(&castore, &tree);
        let pieces: Vec<NarPiece> =
            cut(&castore, &plan, 0..u64::MAX).collect::<Result<_>>().expect("complete");
        let sizes: Vec<u64> = pieces.iter().map(NarPiece::size_bytes).collect();
        assert_eq!(sizes.iter().sum::<u64>(), nar.len() as u64);
        let (_, all_but_last) = sizes.split_last().expect("several");
        let most = PIECE_BYTES + (max_extent_bytes as u64).max(256 << 10);
        let fits = |size: &u64| (PIECE_BYTES..most).contains(size);
        assert!(all_but_last.len() > 3 && all_but_last.iter().all(fits), "{sizes:?}");
        // In whatever order they are read.
        let mut read: Vec<(usize, Vec<Bytes>)> = pieces
            .into_iter()
            .enumerate()
            .rev()
            .map(|(number, piece)| (number, piece.read().expect("complete")))
            .collect();
        read.reverse();
        for ((number, buffers), size) in read.iter().zip(&sizes) {
            assert_eq!(buffers.concat().len() as u64, *size, "piece {number}");
        }
        let read: Vec<u8> = read.into_iter().flat_map(|(_, buffers)| buffers.concat()).collect();
        assert!(read == nar, "other bytes");
    }
}

#[test]
fn blobs_are_opened_once_and_extents_read_once() {
    let tree = large_tree();
    for stored in [false, true] {
        let castore = FramedStore::new(300_000);
        let plan = plan(&castore, &tree);
        let mut frames = 0;
        if stored {
            frames = read_stored(&castore, &plan, 0..u64::MAX).expect("complete").1;
            assert!(frames > 5);
        } else {
            read(&castore, &plan, 0..u64::MAX).expect("complete");
        }
        let counts = castore.counts();
        assert_eq!(counts.len(), plan.blobs().len());
        for (digest, counts) in &counts {
            assert_eq!(counts.opened, 1, "{digest}");
            assert!(counts.read.values().all(|read| *read == 1), "{digest}: {counts:?}");
        }
        assert_eq!(counts.values().map(|counts| counts.frames).sum::<usize>(), frames);
    }
}

#[test]
fn a_frame_is_given_only_for_a_whole_extent() {
    let castore = FramedStore::new(300_000);
    let contents = Random::new(6).compressible(2_000_000);
    let plan = plan(&castore, &Tree::file(contents));
    let blob = *plan.blobs().next().expect("one");
    let quarter = blob.size_bytes / 4;
    let (_, all) = read_stored(&castore, &plan, 0..u64::MAX).expect("complete");
    let middle = blob.nar_offset + quarter..blob.nar_offset + 3 * quarter;
    let (_, some) = read_stored(&castore, &plan, middle).expect("complete");
    assert!(some > 0 && some < all, "{some} of {all}");
    assert_eq!(read_stored(&castore, &plan, 0..blob.nar_offset).expect("complete").1, 0);
}

#[test]
fn what_is_large_is_not_copied() {
    let castore = FramedStore::new(1 << 20);
    let plan = plan(&castore, &Tree::file(vec![7; 3 << 20]));
    let pointers = || -> Vec<*const u8> {
        let pieces = cut(&castore, &plan, 0..u64::MAX);
        let buffers = pieces.flat_map(|piece| piece.expect("complete").read().expect("complete"));
        buffers.filter(|buffer| buffer.len() >= 128 << 10).map(|buffer| buffer.as_ptr()).collect()
    };
    let first = pointers();
    assert!(first.len() >= 3);
    assert_eq!(first, pointers());
}

#[test]
fn what_is_small_is_packed() {
    let castore = FramedStore::new(1 << 20);
    let tree =
        Tree::directory((0..200).map(|number| {
            (format!("{number}"), Tree::file(format!("contents {number}").repeat(100)))
        }));
    let plan = plan(&castore, &tree);
    let mut pieces = NarPieces::new(plan, 0..u64::MAX);
    let piece = pieces.next(&castore).expect("complete").expect("one");
    assert_eq!(piece.read().expect("complete").len(), 1);
    assert!(pieces.next(&castore).expect("the end is no error").is_none());
}

#[test]
fn damage_is_an_error() {
    let castore = FramedStore::new(200_000);
    let plan = plan(&castore, &large_tree());
    castore.fail_from(1 << 20, Error::corrupt("damaged"));
    assert!(matches!(read(&castore, &plan, 0..u64::MAX), Err(Error::Corrupt(_))));
    assert!(matches!(read_stored(&castore, &plan, 0..u64::MAX), Err(Error::Corrupt(_))));
    // What is before it can be read.
    assert_eq!(read(&castore, &plan, 0..1_000).expect("whole").len(), 1_000);
}

#[test]
fn blobs_are_planned_alone() {
    let castore = FramedStore::new(1_000);
    let contents = Random::new(7).compressible(12_345);
    let mut batch = castore.batch().expect("memory");
    let digest = batch.put_blob(contents.clone().into()).expect("memory");
    batch.commit().expect("memory");
    let plan = Arc::new(NarPlan::of_blob(digest, 12_345));
    assert_eq!(plan.nar_size(), 12_345);
    assert!(read(&castore, &plan, 0..u64::MAX).expect("complete") == contents);
    assert!(read(&castore, &plan, 5..12_000).expect("complete") == contents[5..12_000]);
    let empty = Arc::new(NarPlan::of_blob(BlobDigest::of(b""), 0));
    assert!(read(&castore, &empty, 0..1).expect("nothing is needed").is_empty());
    let wrong = Arc::new(NarPlan::of_blob(digest, 12_346));
    assert!(matches!(read(&castore, &wrong, 0..1), Err(Error::Corrupt(_))));
}

//! Files of a NAR that are stored together, with what lies between them.

use std::{fs, sync::Arc};

use granary_castore::Node;
use granary_engine::Engine;
use granary_store::{NarPieces, NarPlan, StoredBytes, ingest_nar, ingest_path};
use granary_testkit::{Random, tree::Tree};
use tempfile::TempDir;

use crate::support::open;

fn put(engine: &Engine, tree: &Tree) -> Node {
    use granary_castore::Castore as _;
    let mut batch = engine.batch().expect("open");
    let ingested = ingest_nar(&tree.to_nar()[..], &mut *batch).expect("a NAR");
    batch.commit().expect("committed");
    ingested.node
}

fn pieces(engine: &Engine, node: &Node) -> NarPieces {
    let plan = NarPlan::new(engine, node).expect("readable").expect("complete");
    NarPieces::new(Arc::new(plan), 0..u64::MAX)
}

/// Checks both ways to read the NAR of `tree`, and says how many of its bytes could be had as
/// stored.
fn check(engine: &Engine, node: &Node, tree: &Tree) -> usize {
    let (mut read, mut stored, mut as_stored) = (Vec::new(), Vec::new(), 0);
    let mut plain = pieces(engine, node);
    while let Some(piece) = plain.next(engine).expect("readable") {
        read.extend(piece.read().expect("readable").concat());
    }
    let mut frames = pieces(engine, node);
    while let Some(piece) = frames.next(engine).expect("readable") {
        let take = |bytes: StoredBytes<'_>| {
            match bytes {
                StoredBytes::Literal(bytes) => stored.extend_from_slice(bytes),
                StoredBytes::Plain(bytes) => stored.extend_from_slice(&bytes),
                StoredBytes::Zstd { frame, size_bytes } => {
                    let len = usize::try_from(size_bytes).expect("small");
                    stored.extend(zstd::bulk::decompress(&frame, len).expect("a frame"));
                    as_stored += len;
                }
            }
            Ok(())
        };
        piece.read_stored(take).expect("readable");
    }
    let nar = tree.to_nar();
    assert!(read == nar, "the NAR is another");
    assert!(stored == nar, "the NAR as it is stored is another");
    assert_eq!(engine.stats().expect("counted").damaged_count, 0);
    as_stored
}

/// Small files, symlinks, empty files and directories, and a large file in the middle.
fn mixed_tree(seed: u64) -> Tree {
    let mut random = Random::new(seed);
    let mut directory = |count: usize| {
        Tree::directory((0..count).map(|number| {
            let tree = match number % 7 {
                0 => Tree::symlink(format!("to/{number}")),
                1 => Tree::file(""),
                2 => Tree::executable(random.compressible(number * 50)),
                3 => Tree::directory([("below", Tree::file(random.compressible(3_000)))]),
                _ => Tree::file(random.compressible(number * 30)),
            };
            (format!("{number}"), tree)
        }))
    };
    let (first, last) = (directory(200), directory(300));
    let large = Tree::file(Random::new(seed + 1).compressible(3_000_000));
    Tree::directory([("a", first), ("b", large), ("c", last)])
}

#[test]
fn a_nar_can_be_had_as_it_is_stored() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("opens");
    let tree = mixed_tree(1);
    let node = put(&engine, &tree);
    let len = tree.to_nar().len();
    let as_stored = check(&engine, &node, &tree);
    // But for what is before the first file and behind the last, and a few literals between
    // frames.
    assert!(len - as_stored < 4_000, "{as_stored} of {len} bytes");
    engine.close().expect("closed");
    drop(engine);
    let engine = open(dir.path()).expect("opens");
    assert_eq!(check(&engine, &node, &tree), as_stored);
}

/// Several times what is under way at a time, so that buffers are used again.
#[test]
fn what_was_imported_can_be_had_as_it_is_stored() {
    use granary_castore::Castore as _;
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(&dir.path().join("store")).expect("opens");
    let mut random = Random::new(7);
    let mut small = |count: usize, len: usize| {
        Tree::directory((0..count).map(|number| {
            // None of them is there twice, which would part what follows on each other.
            let file = Tree::file(random.incompressible(20 + number * 7_919 % len));
            (format!("{number:05}"), file)
        }))
    };
    let tree = Tree::directory([
        ("a-small", small(2_000, 20_000)),
        ("b-tiny", small(20_000, 100)),
        ("c-mixed", mixed_tree(8)),
        ("d-larger", small(60, 700_000)),
        ("e-largest", Tree::file(Random::new(30).compressible(1 << 20))),
        ("f-large", Tree::file(Random::new(31).compressible((1 << 20) + 1))),
    ]);
    let path = dir.path().join("tree");
    tree.write_to(&path).expect("the disk takes it");
    let mut batch = engine.batch().expect("open");
    let imported = ingest_path(&path, &mut *batch, &()).expect("readable");
    batch.commit().expect("committed");
    let nar = tree.to_nar();
    assert!(nar.len() > 40 << 20, "{}", nar.len());
    assert_eq!(imported.nar.nar_size, nar.len() as u64);
    let as_stored = check(&engine, &imported.node, &tree);
    // What lies between frames, of which there are some fifty.
    assert!(nar.len() - as_stored < 50_000, "{as_stored} of {} bytes", nar.len());
    // By a NAR, it is the same, and there already.
    assert_eq!(check(&engine, &put(&engine, &tree), &tree), as_stored);
}

#[test]
fn the_same_files_under_other_names_are_read_right() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("opens");
    let contents: Vec<_> = (0..100).map(|seed| Random::new(seed).compressible(3_000)).collect();
    let tree = |name: &dyn Fn(usize) -> String| {
        let entries = contents.iter().enumerate();
        Tree::directory(entries.map(|(number, file)| (name(number), Tree::file(file.clone()))))
    };
    let first = tree(&|number| format!("file-{number:03}"));
    let node = put(&engine, &first);
    assert!(check(&engine, &node, &first) > 290_000);
    let chunks = engine.stats().expect("counted").chunk_count;
    // Literals of the same length, of another length, and other neighbours.
    let same_length = tree(&|number| format!("FILE-{number:03}"));
    let longer = tree(&|number| format!("file-with-a-longer-name-{number:03}"));
    let shuffled = tree(&|number| format!("file-{:03}", (number * 37) % 100));
    for other in [same_length, longer, shuffled] {
        let node = put(&engine, &other);
        assert_eq!(check(&engine, &node, &other), 0);
    }
    assert_eq!(engine.stats().expect("counted").chunk_count, chunks, "nothing is stored twice");
}

#[test]
fn a_file_of_many_names_is_read_from_memory() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("opens");
    let file = Tree::file(Random::new(5).compressible(3_000_000));
    let tree = Tree::directory((0..4).map(|number| (format!("{number}"), file.clone())));
    let node = put(&engine, &tree);
    let plan = Arc::new(NarPlan::new(&engine, &node).expect("readable").expect("complete"));
    let read = |engine: &Engine| {
        let (mut pieces, mut read) = (NarPieces::new(Arc::clone(&plan), 0..u64::MAX), Vec::new());
        while let Some(piece) = pieces.next(engine)? {
            read.extend(piece.read()?.concat());
        }
        Ok::<_, granary_castore::Error>(read)
    };
    assert!(read(&engine).expect("readable") == tree.to_nar());
    for pack in fs::read_dir(dir.path().join("packs")).expect("packs") {
        let pack = pack.expect("listed").path();
        let mut bytes = fs::read(&pack).expect("readable");
        bytes.iter_mut().skip(1_000).step_by(1_000).for_each(|byte| *byte ^= 1);
        fs::write(&pack, bytes).expect("written over");
    }
    // Nothing on the disk is right any more, and nothing of it is asked for.
    assert!(read(&engine).expect("kept") == tree.to_nar());
    drop(engine);
    let engine = open(dir.path()).expect("opens");
    read(&engine).expect_err("what was kept is gone");
}

#[test]
fn what_is_stored_already_or_has_references_parts_a_sequence() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("opens");
    let known = Random::new(1).compressible(20_000);
    put(&engine, &Tree::file(known.clone()));
    let patched = Random::new(2).with_references(20_000, 3, 5_000, 1);
    let files = |seed: u64| {
        (0..60).map(move |number| {
            let contents = Random::new(seed * 1_000 + number).compressible(2_500);
            (format!("{seed}-{number:02}"), Tree::file(contents))
        })
    };
    let others = [("1-known", Tree::file(known)), ("2-patched", Tree::file(patched))];
    let others = others.map(|(name, tree)| (name.to_owned(), tree));
    let tree = Tree::directory(files(0).chain(files(1)).chain(files(2)).chain(others));
    let node = put(&engine, &tree);
    let as_stored = check(&engine, &node, &tree);
    let all = 3 * 60 * 2_500;
    assert!((all..all + 60_000).contains(&as_stored), "{as_stored}");
}

#[test]
fn more_literals_than_fit_part_a_sequence() {
    let dir = TempDir::new().expect("a temporary directory");
    let engine = open(dir.path()).expect("opens");
    let file = |seed| Tree::file(Random::new(seed).compressible(100_000));
    let links = (0..1_000).map(|number| (format!("b{number:03}"), Tree::symlink("x".repeat(100))));
    let ends = [("a".to_owned(), file(1)), ("c".to_owned(), file(2))];
    let tree = Tree::directory(links.chain(ends));
    let node = put(&engine, &tree);
    assert_eq!(check(&engine, &node, &tree), 200_000);
}

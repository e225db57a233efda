//! What a batch is told to lie between the contents of files.

use bytes::Bytes;
use granary_castore::{BlobDigest, Directory, DirectoryDigest, Result, WriteBatch};
use granary_store::{ingest_nar, ingest_path};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::{Tree, any_tree};

/// Puts together what it is told, in order.
#[derive(Default)]
struct Recorder {
    bytes: Vec<u8>,
    open: Vec<u8>,
    most_literals: usize,
}

impl WriteBatch for Recorder {
    fn put_blob(&mut self, contents: Bytes) -> Result<BlobDigest> {
        self.bytes.extend_from_slice(&contents);
        Ok(BlobDigest::of(&contents))
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.open.extend_from_slice(data);
        Ok(())
    }

    fn finish_blob(&mut self) -> Result<BlobDigest> {
        let contents = std::mem::take(&mut self.open);
        self.put_blob(contents.into())
    }

    fn put_literals(&mut self, bytes: &[u8]) -> Result<()> {
        assert!(self.open.is_empty(), "literals within a file");
        self.most_literals = self.most_literals.max(bytes.len());
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn put_directory(&mut self, directory: &Directory) -> Result<DirectoryDigest> {
        Ok(directory.digest())
    }

    fn commit(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Literals and contents are the NAR, but for what is behind a file that is its root.
fn check(tree: &Tree) {
    let nar = tree.nar();
    let mut from_nar = Recorder::default();
    ingest_nar(&nar[..], &mut from_nar).expect("a NAR");
    assert!(nar.starts_with(&from_nar.bytes));
    // Of a directory, it is all of it.
    let mut longer = Recorder::default();
    let with_last = Tree::directory([("a", tree.clone()), ("b", Tree::file("the last"))]);
    ingest_nar(&with_last.nar()[..], &mut longer).expect("a NAR");
    assert!(longer.bytes == with_last.nar());

    let parent = TempDir::new().expect("a temporary directory");
    let path = parent.path().join("tree");
    with_last.create(&path).expect("the disk takes it");
    let mut from_path = Recorder::default();
    ingest_path(&path, &mut from_path, &()).expect("readable");
    assert!(from_path.bytes == longer.bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn with_contents_they_are_the_nar(tree in any_tree()) {
        check(&tree);
    }
}

#[test]
fn a_large_file_comes_in_pieces() {
    check(&Tree::directory([("large", Tree::file(vec![7; 3 << 20])), ("small", Tree::file("x"))]));
}

#[test]
fn a_tree_without_contents_does_not_gather_literals() {
    let links = |count: usize| {
        Tree::directory(
            (0..count).map(|number| (format!("{number:03}"), Tree::Symlink(vec![b'x'; 900]))),
        )
    };
    let empty = (0..300).map(|number| (format!("e{number:03}"), Tree::file("")));
    let tree =
        Tree::directory((0..50).map(|number| (format!("d{number:03}"), links(100))).chain(empty));
    let mut recorder = Recorder::default();
    ingest_nar(&tree.nar()[..], &mut recorder).expect("a NAR");
    assert!(tree.nar().starts_with(&recorder.bytes) && recorder.bytes.len() > 5_000_000);
    // As they lie in one buffer.
    assert!(recorder.most_literals < 1_200_000, "{} bytes at once", recorder.most_literals);
}

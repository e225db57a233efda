//! What a batch is told to lie between the contents of files, and where all of it lies.

use std::{
    io::{self, ErrorKind, Read},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use granary_castore::{BlobDigest, Directory, DirectoryDigest, Result, WriteBatch};
use granary_nix_formats::nar;
use granary_store::{IngestError, ingest_nar, ingest_path};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::{Tree, any_tree};

/// Puts together what it is told, in order.
#[derive(Default)]
struct Recorder {
    bytes: Vec<u8>,
    open: Vec<u8>,
    /// How much was read of what it is told of.
    read: Arc<AtomicUsize>,
    /// How much of that it was not told of yet, at most.
    most_gathered: usize,
    /// Of what it was told last in which piece of memory, the end; `None` behind contents that came in pieces.
    piece: Bytes,
    end: Option<usize>,
    /// How often something lay right behind what came before it.
    neighbours: usize,
}

impl Recorder {
    /// What follows each other in one piece of memory lies there as it does in the NAR.
    fn place(&mut self, piece: &Bytes, range: &Range<usize>) {
        let is_same = (piece.as_ptr(), piece.len()) == (self.piece.as_ptr(), self.piece.len());
        if let Some(end) = self.end
            && is_same
        {
            assert_eq!(range.start, end, "it lies elsewhere");
            self.neighbours += 1;
        }
        // Kept, so that nothing else comes to lie there.
        self.piece = piece.clone();
        self.end = Some(range.end);
    }
}

impl WriteBatch for Recorder {
    fn put_blob(&mut self, contents: Bytes) -> Result<BlobDigest> {
        self.bytes.extend_from_slice(&contents);
        Ok(BlobDigest::of(&contents))
    }

    fn put_blob_within(&mut self, archive: &Bytes, range: Range<usize>) -> Result<BlobDigest> {
        self.place(archive, &range);
        self.put_blob(archive.slice(range))
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.open.extend_from_slice(data);
        Ok(())
    }

    fn finish_blob(&mut self) -> Result<BlobDigest> {
        self.end = None;
        let contents = std::mem::take(&mut self.open);
        self.put_blob(contents.into())
    }

    fn put_literals_within(&mut self, archive: &Bytes, range: Range<usize>) -> Result<()> {
        assert!(self.open.is_empty(), "literals within a file");
        let gathered = self.read.load(Ordering::Relaxed).saturating_sub(self.bytes.len());
        self.most_gathered = self.most_gathered.max(gathered);
        self.place(archive, &range);
        self.bytes.extend_from_slice(&archive[range]);
        Ok(())
    }

    fn put_directory(&mut self, directory: &Directory) -> Result<DirectoryDigest> {
        Ok(directory.digest())
    }

    fn commit(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Gives at most so many bytes at a time, with an interruption before each thousand times, and then ends or fails.
struct Pieces<'a> {
    bytes: &'a [u8],
    piece_bytes: usize,
    reads: usize,
    read: Arc<AtomicUsize>,
    fails: bool,
}

impl<'a> Pieces<'a> {
    fn new(bytes: &'a [u8], piece_bytes: usize) -> Self {
        Self { bytes, piece_bytes, reads: 0, read: Arc::default(), fails: false }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        if self.reads % 1_000 == 1 {
            return Err(ErrorKind::Interrupted.into());
        }
        if self.bytes.is_empty() && self.fails {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let len = buf.len().min(self.piece_bytes);
        let read = self.bytes.read(&mut buf[..len])?;
        self.read.fetch_add(read, Ordering::Relaxed);
        Ok(read)
    }
}

/// What a batch is told of a NAR that comes in such pieces.
fn record(nar: &[u8], piece_bytes: usize) -> Recorder {
    let pieces = Pieces::new(nar, piece_bytes);
    let mut recorder = Recorder { read: Arc::clone(&pieces.read), ..Recorder::default() };
    ingest_nar(pieces, &mut recorder).expect("a NAR");
    recorder
}

/// Literals and contents are the NAR, in whatever pieces that comes.
fn check(tree: &Tree, piece_bytes: usize) {
    let nar = tree.nar();
    assert!(record(&nar, usize::MAX).bytes == nar);
    assert!(record(&nar, piece_bytes).bytes == nar);

    let parent = TempDir::new().expect("a temporary directory");
    let path = parent.path().join("tree");
    tree.create(&path).expect("the disk takes it");
    let mut from_path = Recorder::default();
    ingest_path(&path, &mut from_path, &()).expect("readable");
    assert!(from_path.bytes == nar);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn with_contents_they_are_the_nar(
        tree in any_tree(),
        piece_bytes in prop_oneof![1..100_usize, 1_000..100_000_usize],
    ) {
        check(&tree, piece_bytes);
    }
}

#[test]
fn a_large_file_comes_in_pieces() {
    let tree = [("large", Tree::file(vec![7; 3 << 20])), ("small", Tree::file("x"))];
    check(&Tree::directory(tree), 5_000);
}

/// Files of all sizes up to the largest that are added as a whole.
fn many_sizes() -> Tree {
    let sizes = (0..=20).flat_map(|log| [(1 << log) - 1, 1 << log]);
    Tree::directory(sizes.enumerate().map(|(number, size)| {
        let byte = number.to_le_bytes()[0];
        (format!("{number:02}"), Tree::file(vec![byte; size]))
    }))
}

#[test]
fn files_and_what_lies_between_them_stay_where_they_were_read() {
    let nar = many_sizes().nar();
    for piece_bytes in [999, usize::MAX] {
        let recorder = record(&nar, piece_bytes);
        assert!(recorder.bytes == nar);
        // Of 42 files and what lies before and between them; as they are moved together when a piece ends, some lie
        // in the next one.
        assert!(recorder.neighbours > 40, "{} with pieces of {piece_bytes}", recorder.neighbours);
    }
}

#[test]
fn a_nar_that_ends_or_fails_anywhere_is_none() {
    let nar = many_sizes().nar();
    for cut in (0..700).chain((700..nar.len()).step_by(40_009)) {
        let mut batch = Recorder::default();
        let ended = ingest_nar(Pieces::new(&nar[..cut], 30_000), &mut batch);
        assert!(
            matches!(&ended, Err(IngestError::Malformed(nar::Error::Truncated { offset })) if *offset == cut as u64),
            "{ended:?} after {cut} bytes"
        );
        let failing = Pieces { fails: true, ..Pieces::new(&nar[..cut], 30_000) };
        let failed = ingest_nar(failing, &mut Recorder::default());
        assert!(
            matches!(&failed, Err(IngestError::Read(error)) if error.kind() == ErrorKind::ConnectionReset),
            "{failed:?} after {cut} bytes"
        );
    }
}

#[test]
fn a_tree_without_contents_does_not_gather_literals() {
    let links = |count: usize| {
        Tree::directory(
            (0..count).map(|number| (format!("{number:03}"), Tree::Symlink(vec![b'x'; 900]))),
        )
    };
    let directories = (0..50).map(|number| (format!("d{number:03}"), links(100)));
    let nar = Tree::directory(directories).nar();
    assert!(nar.len() > 5_000_000);
    for piece_bytes in [1, 5_000, usize::MAX] {
        let recorder = record(&nar, piece_bytes);
        assert!(recorder.bytes == nar);
        // What was read and what comes next.
        let gathered = recorder.most_gathered;
        assert!(gathered < 2_300_000, "{gathered} bytes with pieces of {piece_bytes}");
    }
}

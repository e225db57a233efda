//! Trees survive encoding and decoding, however the bytes come in pieces.

use std::io::{self, Read};

use granary_nix_formats::nar::{Error, Event, MAX_DEPTH, Reader, Reason, Writer};
use proptest::prelude::*;

use crate::tree::{Slow, Tree};

fn any_tree() -> impl Strategy<Value = Tree> {
    let name = proptest::collection::vec(any::<u8>(), 1..12).prop_filter("allowed", |name| {
        !name.contains(&0) && !name.contains(&b'/') && name != b"." && name != b".."
    });
    let contents = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        (0..200_000_usize).prop_map(|len| vec![7; len]),
    ];
    let leaf = prop_oneof![
        (any::<bool>(), contents)
            .prop_map(|(executable, contents)| Tree::File { executable, contents }),
        proptest::collection::vec(1..=255_u8, 1..40).prop_map(Tree::Symlink),
    ];
    leaf.prop_recursive(5, 24, 6, move |node| {
        proptest::collection::btree_map(name.clone(), node, 0..6).prop_map(Tree::Directory)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn trees(tree in any_tree(), piece in 1..100_000_usize, at_once in 1..100_000_usize) {
        let nar = tree.to_nar(piece).expect("a valid tree");
        prop_assert_eq!(nar.len() % 8, 0);
        let read = Tree::from_nar(Slow::new(&nar, at_once), piece).expect("a valid NAR");
        prop_assert_eq!(&read, &tree);
        // Nobody wants the contents: the events are the same, and the end is found.
        let mut reader = Reader::new(&nar[..]);
        while reader.next().expect("a valid NAR").is_some() {}
        prop_assert_eq!(reader.position(), nar.len() as u64);
        prop_assert!(reader.finish().expect("nothing behind").is_empty());
    }
}

#[test]
fn contents_are_skipped_where_they_are_not_read() -> Result<(), Error> {
    let file = |len| Tree::File { executable: false, contents: vec![1; len] };
    let entries = [(b"a".to_vec(), file(300_000)), (b"b".to_vec(), file(5))];
    let nar = Tree::Directory(entries.into()).to_nar(4096)?;
    let mut reader = Reader::new(&nar[..]);
    assert_eq!(reader.next()?, Some(Event::Directory));
    assert_eq!(reader.next()?, Some(Event::Entry { name: b"a".to_vec() }));
    assert_eq!(reader.read_data(&mut [0; 8])?, 0, "no file is open");
    assert_eq!(reader.next()?, Some(Event::File { executable: false, size: 300_000 }));
    assert_eq!(reader.read_data(&mut [0; 7])?, 7);
    assert_eq!(reader.next()?, Some(Event::Entry { name: b"b".to_vec() }));
    reader.finish()?;
    Ok(())
}

/// A source that notes the largest buffer it was given.
struct Watched<'a> {
    bytes: &'a [u8],
    largest: usize,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.largest = self.largest.max(buf.len());
        self.bytes.read(buf)
    }
}

#[test]
fn large_contents_go_straight_into_a_large_buffer() -> Result<(), Error> {
    let contents = vec![3; 4 << 20];
    let nar = Tree::File { executable: false, contents: contents.clone() }.to_nar(1 << 20)?;
    let mut reader = Reader::new(Watched { bytes: &nar, largest: 0 });
    reader.next()?;
    let (mut buf, mut read) = (vec![0; contents.len()], 0);
    while read < buf.len() {
        read += reader.read_data(&mut buf[read..])?;
    }
    assert_eq!(buf, contents);
    let source = reader.finish()?;
    assert!(source.largest > 3 << 20, "{}", source.largest);
    Ok(())
}

#[test]
fn depth_is_limited_for_both() -> Result<(), Error> {
    let mut writer = Writer::new(Vec::new())?;
    for _ in 1..MAX_DEPTH {
        writer.directory()?;
        writer.entry(b"d")?;
    }
    writer.directory()?;
    let mut too_deep = Writer::new(writer.get_ref().clone())?;
    for _ in 1..MAX_DEPTH {
        too_deep.directory()?;
        too_deep.entry(b"d")?;
    }
    too_deep.directory()?;
    too_deep.entry(b"d")?;
    let error = too_deep.directory().expect_err("one too many");
    assert!(matches!(error, Error::Invalid { reason: Reason::TooDeep, .. }), "{error}");

    writer.end_directory()?;
    for _ in 1..MAX_DEPTH {
        writer.end_entry()?;
        writer.end_directory()?;
    }
    let nar = writer.finish()?;
    let mut reader = Reader::new(&nar[..]);
    let mut directories = 0;
    while let Some(event) = reader.next()? {
        directories += usize::from(event == Event::Directory);
    }
    assert_eq!(directories, MAX_DEPTH);

    // One directory more, around the root.
    let node = &nar[24..];
    let inner = Tree::Directory([(b"d".to_vec(), Tree::Symlink(b"x".to_vec()))].into());
    let shell = inner.to_nar(1)?;
    let link = Tree::Symlink(b"x".to_vec()).to_nar(1)?.split_off(24);
    let at = shell.len() - 32 - link.len();
    let deeper = [&shell[..at], node, &shell[at + link.len()..]].concat();
    let error = Reader::new(&deeper[..]).finish().expect_err("one too many");
    assert!(matches!(error, Error::Invalid { reason: Reason::TooDeep, .. }), "{error}");
    Ok(())
}

//! Trees survive encoding and decoding, however the bytes come in pieces.

use std::collections::BTreeMap;

use granary_nix_formats::nar::{Error, Event, MAX_DEPTH, Reader, Reason, Writer};
use proptest::prelude::*;

use crate::tree::{Tree, slow};

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
        let read = Tree::from_nar(slow(&nar, at_once), piece).expect("a valid NAR");
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

#[test]
fn contents_are_given_where_they_lie() -> Result<(), Error> {
    let contents = vec![3; 4 << 20];
    let nar = Tree::File { executable: false, contents: contents.clone() }.to_nar(1 << 20)?;
    let mut reader = Reader::new(&nar[..]);
    reader.next()?;
    let data = reader.data()?;
    assert_eq!(data, contents);
    assert!(nar.as_ptr_range().contains(&data.as_ptr()), "nothing was copied");
    reader.consume_data(1 << 20);
    assert_eq!(reader.data()?.len(), 3 << 20);
    // What is left is passed over.
    assert_eq!(reader.next()?, None);
    assert_eq!(reader.data()?, b"");
    reader.finish()?;
    Ok(())
}

#[test]
fn pieces_may_end_anywhere() -> Result<(), Error> {
    let tree = Tree::Directory(BTreeMap::from([
        (b"executable".to_vec(), Tree::File { executable: true, contents: vec![7; 1000] }),
        (b"file".to_vec(), Tree::File { executable: false, contents: vec![8; 1001] }),
        (b"link".to_vec(), Tree::Symlink(b"some/where".to_vec())),
        (b"none".to_vec(), Tree::Directory(BTreeMap::new())),
    ]));
    let nar = tree.to_nar(100)?;
    for piece in (1..100).chain([nar.len() - 1, nar.len()]) {
        assert_eq!(Tree::from_nar(slow(&nar, piece), 64)?, tree, "{piece}");
        for len in 0..nar.len() {
            let read = Reader::new(slow(&nar[..len], piece)).finish();
            let end = len as u64;
            let is_end = |error| matches!(error, Error::Truncated { offset } if offset == end);
            assert!(read.is_err_and(is_end), "{piece} {len}");
        }
    }
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

//! What is not a NAR is rejected, with the reason and the place, and never panics.

use granary_nix_formats::nar::{Error, Reader, Reason};

use crate::{
    golden,
    tree::{Tree, slow},
};

/// The strings of a NAR, encoded one by one and apart from the code under test.
fn encode(strings: &[&[u8]]) -> Vec<u8> {
    let mut nar = Vec::new();
    for string in strings {
        nar.extend_from_slice(&(string.len() as u64).to_le_bytes());
        nar.extend_from_slice(string);
        nar.resize(nar.len().next_multiple_of(8), 0);
    }
    nar
}

fn text(strings: &str) -> Vec<u8> {
    encode(&strings.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

/// Where and why a NAR is rejected.
fn rejected(nar: &[u8]) -> (u64, Reason) {
    let whole = rejection(Reader::new(nar).finish());
    for piece in [1, 7, 8, 24, 1000] {
        assert_eq!(
            rejection(Reader::new(slow(nar, piece)).finish()),
            whole,
            "in pieces of {piece}"
        );
    }
    whole
}

fn rejection<R: std::fmt::Debug>(read: Result<R, Error>) -> (u64, Reason) {
    match read {
        Err(Error::Invalid { offset, reason }) => (offset, reason),
        other => panic!("{other:?}"),
    }
}

/// A directory with these names, each a symlink.
fn with_names(names: &[&[u8]]) -> Vec<u8> {
    let mut strings: Vec<&[u8]> = vec![b"nix-archive-1", b"(", b"type", b"directory"];
    for name in names {
        strings.extend([&b"entry"[..], b"(", b"name", name, b"node"]);
        strings.extend([&b"("[..], b"type", b"symlink", b"target", b"t", b")", b")"]);
    }
    strings.push(b")");
    encode(&strings)
}

fn with_target(target: &[u8]) -> Vec<u8> {
    encode(&[b"nix-archive-1", b"(", b"type", b"symlink", b"target", target, b")"])
}

#[test]
fn cut_at_every_byte() {
    for name in golden::NARS {
        let nar = golden::read(name);
        Reader::new(&nar[..]).finish().expect("the whole is valid");
        for len in 0..nar.len() {
            let skipped = Reader::new(&nar[..len]).finish().err();
            let read = Tree::from_nar(&nar[..len], 16).err();
            for error in [skipped, read] {
                let offset = len as u64;
                assert!(
                    matches!(error, Some(Error::Truncated { offset: found }) if found == offset),
                    "{name} cut at {len}: {error:?}"
                );
            }
        }
    }
}

#[test]
fn every_bit_flipped() {
    for name in golden::NARS {
        let nar = golden::read(name);
        for bit in 0..nar.len() * 8 {
            let mut damaged = nar.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // Some bits lie in contents, names and targets. Then it is another tree's NAR,
            // and that has exactly these bytes.
            if let Ok(tree) = Tree::from_nar(&damaged[..], 4096) {
                assert_eq!(tree.to_nar(4096).expect("it was read"), damaged, "{name}, bit {bit}");
            }
        }
    }
}

#[test]
fn magic_and_end() {
    assert_eq!(rejected(&text("nix-archive-2 ( type regular contents x )")), (16, Reason::Magic));
    assert_eq!(rejected(b"<html>"), (0, Reason::Magic));
    let mut nar = text("nix-archive-1 ( type regular contents x )");
    let len = nar.len() as u64;
    nar.push(0);
    assert_eq!(rejected(&nar), (len, Reason::TrailingBytes));
    assert!(matches!(Reader::new(&[][..]).finish(), Err(Error::Truncated { offset: 0 })));
}

#[test]
fn unknown_tokens() {
    for strings in [
        "nix-archive-1 [ type regular contents x )",
        "nix-archive-1 ( typo regular contents x )",
        "nix-archive-1 ( type fifo contents x )",
        "nix-archive-1 ( type regular ) )",
        "nix-archive-1 ( type regular content x )",
        "nix-archive-1 ( type regular executable  executable  contents x )",
        "nix-archive-1 ( type regular contents x contents x )",
        "nix-archive-1 ( type symlink contents x )",
        "nix-archive-1 ( type symlink target x ]",
        "nix-archive-1 ( type directory entries )",
        "nix-archive-1 ( type directorz )",
        "nix-archive-1 ( type directory entry ( node x name x ) )",
        "nix-archive-1 ( type directory entry ( name x nodes ( type regular contents x ) ) )",
        "nix-archive-1 ( type directory entry ( name x node ( type regular contents x ) ] )",
        "nix-archive-1 ( type directory entry ( name x node ( type regular contents x ) entry )",
    ] {
        let (_, reason) = rejected(&text(strings));
        assert!(matches!(reason, Reason::Token { .. }), "{strings}: {reason}");
    }
    // The offset is that of the word that is wrong.
    let nar = text("nix-archive-1 ( typo regular contents x )");
    assert_eq!(rejected(&nar).0, 24 + 16 + 8);
}

#[test]
fn executable_marker() {
    let nar = text("nix-archive-1 ( type regular executable x contents x )");
    assert_eq!(rejected(&nar), (24 + 32 + 16 + 24, Reason::ExecutableMarker));
}

#[test]
fn names() {
    let reason = |names: &[&[u8]]| rejected(&with_names(names)).1;
    assert!(Reader::new(&with_names(&[b"A", b"a", &[0xff; 255]])[..]).finish().is_ok());
    assert_eq!(reason(&[b""]), Reason::NameEmpty);
    assert_eq!(reason(&[b"."]), Reason::NameDots);
    assert_eq!(reason(&[b".."]), Reason::NameDots);
    assert_eq!(reason(&[b"a/b"]), Reason::NameBytes);
    assert_eq!(reason(&[b"a\0b"]), Reason::NameBytes);
    assert_eq!(reason(&[&[b'a'; 256]]), Reason::NameTooLong { len: 256 });
    assert_eq!(reason(&[b"b", b"a"]), Reason::NameOrder);
    assert_eq!(reason(&[b"a", b"A"]), Reason::NameOrder);
    assert_eq!(reason(&[b"a", b"a"]), Reason::NameTwice);
}

#[test]
fn targets() {
    assert!(Reader::new(&with_target(&[b'a'; 4095])[..]).finish().is_ok());
    assert_eq!(rejected(&with_target(b"")).1, Reason::TargetEmpty);
    assert_eq!(rejected(&with_target(b"a\0")).1, Reason::TargetBytes);
    assert_eq!(rejected(&with_target(&[b'a'; 4096])).1, Reason::TargetTooLong { len: 4096 });
}

#[test]
fn lengths_that_are_only_claimed() {
    let claim = |before: &str| {
        let mut nar = text(before);
        nar.extend_from_slice(&u64::MAX.to_le_bytes());
        rejected(&nar).1
    };
    let len = u64::MAX;
    let name = "nix-archive-1 ( type directory entry ( name";
    assert_eq!(claim(name), Reason::NameTooLong { len });
    assert_eq!(claim("nix-archive-1 ( type symlink target"), Reason::TargetTooLong { len });
    let file = "nix-archive-1 ( type regular contents";
    assert_eq!(claim(file), Reason::FileTooLarge { size: len });
    // A size that is believed, and is not there.
    let mut nar = text(file);
    nar.extend_from_slice(&(u64::MAX / 2).to_le_bytes());
    nar.extend_from_slice(b"some");
    assert!(matches!(Tree::from_nar(&nar[..], 1 << 16), Err(Error::Truncated { .. })));
}

#[test]
fn padding() {
    for (mut nar, from_end) in [
        (text("nix-archive-1 ( type regular contents x )"), 17),
        (with_target(b"x"), 17),
        (with_names(&[b"x"]), 16 * 9 + 1),
    ] {
        let position = nar.len() - from_end;
        assert_eq!(nar[position], 0);
        nar[position] = 1;
        assert_eq!(rejected(&nar).1, Reason::Padding, "{from_end}");
    }
}

#[test]
fn nothing_comes_after_an_error() {
    let nar = with_names(&[b"b", b"a"]);
    let mut reader = Reader::new(&nar[..]);
    while let Ok(event) = reader.next() {
        assert!(event.is_some(), "the names are out of order");
    }
    let after = |error| matches!(error, Error::Invalid { reason: Reason::AfterError, .. });
    assert!(reader.next().is_err_and(after));
    assert!(reader.read_data(&mut [0; 8]).is_err_and(after));
    assert!(reader.finish().is_err_and(after));
}

//! The canonical encoding of a directory.
//!
//! Its digest names a directory for every client, so the bytes are those of the wire's
//! `Directory` message: directories (field 1), files (2), symlinks (3), each list sorted by
//! name; in each entry the fields in number order, default values left out. This crate
//! writes and reads exactly that form by itself, so that identity does not hang on what a
//! general encoder happens to do.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    digest::{BlobDigest, DIGEST_BYTES, DigestLengthError, DirectoryDigest},
    directory::{Directory, DirectoryError, MAX_DIRECTORY_ENTRIES},
    node::{Node, NodeName, NodeNameError, SymlinkTarget, SymlinkTargetError},
};

const DIRECTORIES: u8 = 1;
const FILES: u8 = 2;
const SYMLINKS: u8 = 3;

const VARINT: u8 = 0;
const DELIMITED: u8 = 2;

/// Why bytes are no canonical directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end within a field.
    #[error("the encoded directory ends within a field")]
    Truncated,
    /// It is a message, but not in the one canonical form.
    #[error("the encoded directory is not in canonical form")]
    NotCanonical,
    /// A name breaks the rules.
    #[error("the encoded directory has a bad name")]
    Name(#[from] NodeNameError),
    /// A symlink target breaks the rules.
    #[error("the encoded directory has a bad symlink target")]
    Target(#[from] SymlinkTargetError),
    /// A digest has the wrong length.
    #[error("the encoded directory has a bad digest")]
    Digest(#[from] DigestLengthError),
    /// The entries make no directory.
    #[error("the encoded entries make no directory")]
    Entries(#[from] DirectoryError),
}

pub(crate) fn encode(directory: &Directory) -> Bytes {
    let lens = directory.entries().iter().map(|(name, node)| delimited_len(entry_len(name, node)));
    // Exactly: who keeps many encodings keeps nothing else.
    let mut out = BytesMut::with_capacity(lens.sum());
    for list in [DIRECTORIES, FILES, SYMLINKS] {
        for (name, node) in directory.entries() {
            if list_of(node) == list {
                put_key(&mut out, list, DELIMITED);
                put_varint(&mut out, entry_len(name, node) as u64);
                put_entry(&mut out, name, node);
            }
        }
    }
    out.freeze()
}

fn list_of(node: &Node) -> u8 {
    match node {
        Node::Directory { .. } => DIRECTORIES,
        Node::File { .. } => FILES,
        Node::Symlink { .. } => SYMLINKS,
    }
}

fn entry_len(name: &NodeName, node: &Node) -> usize {
    let name_len = delimited_len(name.as_bytes().len());
    let digest_len = delimited_len(DIGEST_BYTES);
    name_len
        + match node {
            Node::Directory { size, .. } => digest_len + uint_len(*size),
            Node::File { size_bytes, executable, .. } => {
                digest_len + uint_len(*size_bytes) + if *executable { 2 } else { 0 }
            }
            Node::Symlink { target } => delimited_len(target.as_bytes().len()),
        }
}

fn put_entry(out: &mut BytesMut, name: &NodeName, node: &Node) {
    put_bytes(out, 1, name.as_bytes());
    match node {
        Node::Directory { digest, size } => {
            put_bytes(out, 2, digest.as_bytes());
            put_uint(out, 3, *size);
        }
        Node::File { digest, size_bytes, executable } => {
            put_bytes(out, 2, digest.as_bytes());
            put_uint(out, 3, *size_bytes);
            put_uint(out, 4, u64::from(*executable));
        }
        Node::Symlink { target } => put_bytes(out, 2, target.as_bytes()),
    }
}

fn put_key(out: &mut BytesMut, field: u8, wire_type: u8) {
    out.put_u8(field << 3 | wire_type);
}

fn put_bytes(out: &mut BytesMut, field: u8, bytes: &[u8]) {
    put_key(out, field, DELIMITED);
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

fn put_uint(out: &mut BytesMut, field: u8, value: u64) {
    if value != 0 {
        put_key(out, field, VARINT);
        put_varint(out, value);
    }
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn delimited_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn uint_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Directory, DecodeError> {
    let mut input = Input(bytes);
    let mut entries = Vec::new();
    let mut last_list = DIRECTORIES;
    while !input.0.is_empty() {
        let key = input.byte()?;
        let list = key >> 3;
        if key & 7 != DELIMITED || list < last_list || list > SYMLINKS {
            return Err(DecodeError::NotCanonical);
        }
        let entry = decode_entry(list, input.delimited()?)?;
        if list == last_list
            && let Some((previous, _)) = entries.last()
            && *previous >= entry.0
        {
            return Err(DecodeError::NotCanonical);
        }
        last_list = list;
        if entries.len() == MAX_DIRECTORY_ENTRIES {
            return Err(DirectoryError::TooManyEntries(entries.len() + 1).into());
        }
        entries.push(entry);
    }
    Ok(Directory::new(entries)?)
}

fn decode_entry(list: u8, bytes: &[u8]) -> Result<(NodeName, Node), DecodeError> {
    let mut input = Input(bytes);
    let name = NodeName::new(input.bytes_field(1)?.to_vec())?;
    let second = input.bytes_field(2)?;
    let node = match list {
        DIRECTORIES => Node::Directory {
            digest: DirectoryDigest::try_from(second)?,
            size: input.uint_field(3)?,
        },
        FILES => Node::File {
            digest: BlobDigest::try_from(second)?,
            size_bytes: input.uint_field(3)?,
            executable: match input.uint_field(4)? {
                0 => false,
                1 => true,
                _ => return Err(DecodeError::NotCanonical),
            },
        },
        _ => Node::Symlink { target: SymlinkTarget::new(second.to_vec())? },
    };
    if input.0.is_empty() { Ok((name, node)) } else { Err(DecodeError::NotCanonical) }
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.0.split_first().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(first)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::NotCanonical);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // A last byte of zero is a longer spelling of the same number.
                let canonical = byte != 0 || shift == 0;
                return if canonical { Ok(value) } else { Err(DecodeError::NotCanonical) };
            }
        }
        Err(DecodeError::NotCanonical)
    }

    fn delimited(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        let (taken, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A field that is always there: no name, digest or target is empty.
    fn bytes_field(&mut self, field: u8) -> Result<&'a [u8], DecodeError> {
        if self.byte()? == field << 3 | DELIMITED {
            self.delimited()
        } else {
            Err(DecodeError::NotCanonical)
        }
    }

    /// A field that is left out when it is zero.
    fn uint_field(&mut self, field: u8) -> Result<u64, DecodeError> {
        if self.0.first() != Some(&(field << 3 | VARINT)) {
            return Ok(0);
        }
        self.byte()?;
        match self.varint()? {
            0 => Err(DecodeError::NotCanonical),
            value => Ok(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn any_name() -> impl Strategy<Value = NodeName> {
        vec(1..=255u8, 1..12).prop_filter_map("a forbidden name", |bytes| NodeName::new(bytes).ok())
    }

    fn any_node() -> impl Strategy<Value = Node> {
        prop_oneof![
            (any::<[u8; 32]>(), 0..u64::from(u32::MAX)).prop_map(|(digest, size)| {
                Node::Directory { digest: DirectoryDigest::from_bytes(digest), size }
            }),
            (any::<[u8; 32]>(), any::<u64>(), any::<bool>()).prop_map(
                |(digest, size_bytes, executable)| Node::File {
                    digest: BlobDigest::from_bytes(digest),
                    size_bytes,
                    executable
                }
            ),
            vec(1..=255u8, 1..40).prop_map(|target| Node::Symlink {
                target: SymlinkTarget::new(target).expect("no NUL, not empty")
            }),
        ]
    }

    fn any_directory() -> impl Strategy<Value = Directory> {
        proptest::collection::btree_map(any_name(), any_node(), 0..20)
            .prop_map(|entries| Directory::new(entries.into_iter().collect()).expect("unique"))
    }

    proptest! {
        #[test]
        fn round_trips(directory in any_directory()) {
            prop_assert_eq!(decode(&directory.encode()), Ok(directory));
        }

        /// Whatever decodes is canonical: it encodes to the same bytes.
        #[test]
        fn decodes_one_form_only(
            directory in any_directory(),
            position in any::<prop::sample::Index>(),
            flip in 1..=255u8,
        ) {
            let mut bytes = directory.encode().to_vec();
            if !bytes.is_empty() {
                let position = position.index(bytes.len());
                bytes[position] ^= flip;
                if let Ok(other) = decode(&bytes) {
                    prop_assert_eq!(other.encode(), bytes);
                }
            }
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in vec(any::<u8>(), 0..200)) {
            if let Ok(directory) = decode(&bytes) {
                prop_assert_eq!(directory.encode(), bytes);
            }
        }

        #[test]
        fn every_truncation_is_noticed(directory in any_directory()) {
            let bytes = directory.encode();
            for len in 0..bytes.len() {
                if let Ok(shorter) = decode(&bytes[..len]) {
                    prop_assert!(shorter.entries().len() < directory.entries().len());
                }
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let digest = [0xaa; 32];
        let name = |text: &str| NodeName::new(text.as_bytes().to_vec()).expect("valid");
        let directory = Directory::new(vec![
            (name("l"), Node::Symlink { target: SymlinkTarget::new(&b"to"[..]).expect("valid") }),
            (
                name("f"),
                Node::File {
                    digest: BlobDigest::from_bytes(digest),
                    size_bytes: 300,
                    executable: true,
                },
            ),
            (name("z"), Node::Directory { digest: DirectoryDigest::from_bytes(digest), size: 0 }),
        ])
        .expect("valid");
        let mut expected = vec![0x0a, 37, 0x0a, 1, b'z', 0x12, 32];
        expected.extend(digest);
        expected.extend([0x12, 42, 0x0a, 1, b'f', 0x12, 32]);
        expected.extend(digest);
        expected.extend([0x18, 0xac, 0x02, 0x20, 1]);
        expected.extend([0x1a, 7, 0x0a, 1, b'l', 0x12, 2, b't', b'o']);
        assert_eq!(directory.encode(), expected);
        assert_eq!(Directory::default().encode(), Bytes::new());
    }

    #[test]
    fn refuses_other_spellings() {
        let link = [0x1a, 6, 0x0a, 1, b'l', 0x12, 1, b't'];
        assert!(decode(&link).is_ok());
        // An overlong length, an unknown field, fields out of order, a list out of order.
        let overlong = [0x1a, 0x86, 0, 0x0a, 1, b'l', 0x12, 1, b't'];
        let unknown = [0x1a, 8, 0x0a, 1, b'l', 0x12, 1, b't', 0x48, 1];
        let swapped = [0x1a, 6, 0x12, 1, b't', 0x0a, 1, b'l'];
        for bytes in [&overlong[..], &unknown, &swapped, &[link, link].concat()] {
            assert_eq!(decode(bytes), Err(DecodeError::NotCanonical), "{bytes:x?}");
        }
    }
}

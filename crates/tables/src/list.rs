//! The file that says which tables there are.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use twox_hash::XxHash3_128;

use crate::{
    error::{Damage, Error, failed, unreadable},
    integer::take_array,
};

/// Its name in the directory.
pub const LIST_FILE: &str = "list";

/// What takes its place, once it is written.
const NEW_LIST_FILE: &str = "list.new";

/// What it begins with: what it is, and which version of the layout it has.
const MAGIC: [u8; 8] = *b"GRLIST\x00\x01";

/// It takes 32 bytes for each table, and there are dozens as long as they can be merged.
const MAX_LIST_BYTES: u64 = 1 << 20;

/// Bytes of the checksum at its end.
const CHECKSUM_BYTES: usize = 16;

/// What the list says of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: u64,
    /// Length of the file in bytes.
    pub(crate) len: u64,
    /// XXH3 of the whole file.
    pub(crate) checksum: u128,
}

/// The tables in `dir`, the newest first; `None` if there is no list.
pub(crate) fn read(dir: &Path) -> Result<Option<Vec<Listed>>, Error> {
    let path = dir.join(LIST_FILE);
    let read = || -> io::Result<_> {
        if fs::metadata(&path)?.len() > MAX_LIST_BYTES {
            return Ok(Err(Damage("it is too long")));
        }
        Ok(decode(&fs::read(&path)?))
    };
    match read() {
        Ok(listed) => listed.map(Some).map_err(|damage| Error::damaged(&path, damage)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable("read", &path)(error)),
    }
}

/// Replaces the list of `dir` in one step. If it fails, the old one is there.
pub(crate) fn replace(dir: &Path, listed: &[Listed]) -> Result<(), Error> {
    // IMPORTANT: the tables' names must be durable before the list that has them.
    sync(dir)?;
    let new = dir.join(NEW_LIST_FILE);
    let write = || -> io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(&encode(listed))?;
        file.sync_data()
    };
    write().map_err(failed("write", &new))?;
    fs::rename(&new, dir.join(LIST_FILE)).map_err(failed("rename", &new))
}

/// Makes the names in `dir` durable, and with them which list is the newest.
pub(crate) fn sync(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync the directory", dir))
}

fn encode(listed: &[Listed]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for Listed { id, len, checksum } in listed {
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&checksum.to_le_bytes());
    }
    bytes.extend_from_slice(&XxHash3_128::oneshot(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Vec<Listed>, Damage> {
    let cut_off = Damage("it is cut off");
    let (mut rest, mut checksum) =
        bytes.split_at_checked(bytes.len().saturating_sub(CHECKSUM_BYTES)).ok_or(cut_off)?;
    if XxHash3_128::oneshot(rest) != u128::from_le_bytes(take_array(&mut checksum)?) {
        return Err(Damage("its checksum is wrong"));
    }
    if take_array(&mut rest)? != MAGIC {
        return Err(Damage("it is not a list of tables"));
    }
    let mut listed = Vec::new();
    while !rest.is_empty() {
        let id = u64::from_le_bytes(take_array(&mut rest)?);
        let len = u64::from_le_bytes(take_array(&mut rest)?);
        let checksum = u128::from_le_bytes(take_array(&mut rest)?);
        listed.push(Listed { id, len, checksum });
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: [Listed; 2] = [
        Listed { id: 7, len: 8, checksum: 9 },
        Listed { id: u64::MAX, len: 1, checksum: u128::MAX },
    ];

    #[test]
    fn round_trips() {
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        assert_eq!(read(dir.path()).expect("there is none"), None);
        for listed in [&LISTED[..], &[], &LISTED[1..]] {
            replace(dir.path(), listed).expect("written");
            assert_eq!(read(dir.path()).expect("readable").as_deref(), Some(listed));
        }
        assert!(!dir.path().join(NEW_LIST_FILE).exists());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_shows() {
        let bytes = encode(&LISTED);
        assert_eq!(decode(&bytes).as_deref(), Ok(&LISTED[..]));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_not_read() {
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        let file = File::create(dir.path().join(LIST_FILE)).expect("created");
        file.set_len(MAX_LIST_BYTES + 1).expect("it can be long");
        assert!(matches!(read(dir.path()), Err(Error::Damaged { .. })));
    }
}

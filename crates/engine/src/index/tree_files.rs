//! The files of a tree, checked before the crate reads them.
//!
//! It believes lengths in them before it has looked at a checksum: over a flipped bit it would
//! ask for more memory than there is, which ends the process, or panic. The layouts are those of
//! the crates `lsm_tree` and `sfa`.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use twox_hash::{XxHash3_128, xxhash3_128};

use crate::format::{Cursor, Malformed};

/// The file that says which version of the tree is current, and what its checksum is.
pub(super) const TREE_FILE: &str = "current";

/// Where the tables of every tree lie.
pub(super) const TABLES_DIR: &str = "tables";

/// The list of tables takes some dozen bytes for each.
const MAX_VERSION_BYTES: u64 = 64 << 20;

/// A table of contents has a few entries of some dozen bytes.
const MAX_CONTENTS_BYTES: u64 = 64 << 10;

/// What a file with a table of contents ends with: magic, version, kind of checksum, checksum,
/// place and length of the table of contents.
const TRAILER_BYTES: u64 = 38;

/// Magic, version and kind of checksum.
const TRAILER_START: &[u8; 6] = b"SFA!\x01\x00";

/// Tables are checked in pieces of this size.
const CHECK_BUFFER_BYTES: usize = 1 << 20;

/// Why the files cannot be used.
pub(super) enum Problem {
    Malformed(Malformed),
    Io(io::Error),
}

impl From<Malformed> for Problem {
    fn from(problem: Malformed) -> Self {
        Self::Malformed(problem)
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Checks the files in `dir`, where there is a tree.
pub(super) fn check(dir: &Path) -> Result<(), Problem> {
    check_version(dir)?;
    let tables = match fs::read_dir(dir.join(TABLES_DIR)) {
        Ok(tables) => tables,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for table in tables {
        check_contents(&table?.path())?;
    }
    Ok(())
}

/// Checks the current list of tables, which is a file of its own, as a whole.
fn check_version(dir: &Path) -> Result<(), Problem> {
    let current = fs::read(dir.join(TREE_FILE))?;
    let mut cursor = Cursor::new(&current);
    let (number, checksum) = (cursor.u64()?, u128::from_le_bytes(cursor.array()?));
    let path = dir.join(format!("v{number}"));
    if fs::metadata(&path)?.len() > MAX_VERSION_BYTES {
        return Err(Malformed("the list of tables is too long").into());
    }
    if XxHash3_128::oneshot(&fs::read(path)?) == checksum {
        Ok(())
    } else {
        Err(Malformed("the checksum of the list of tables is wrong").into())
    }
}

/// Checks the table of contents of a table. A file that has none was not finished, and is of no
/// interest.
fn check_contents(path: &Path) -> Result<(), Problem> {
    let mut file = File::open(path)?;
    let Some(trailer_at) = file.metadata()?.len().checked_sub(TRAILER_BYTES) else { return Ok(()) };
    let trailer = read_at(&mut file, trailer_at, TRAILER_BYTES)?;
    let mut cursor = Cursor::new(&trailer);
    if cursor.array()? != *TRAILER_START {
        return Ok(());
    }
    let checksum = u128::from_le_bytes(cursor.array()?);
    let at = cursor.u64()?;
    let wrong = Malformed("the contents of a table are not where they should be");
    let len = trailer_at.checked_sub(at).filter(|len| *len <= MAX_CONTENTS_BYTES).ok_or(wrong)?;
    if XxHash3_128::oneshot(&read_at(&mut file, at, len)?) == checksum {
        Ok(())
    } else {
        Err(Malformed("the checksum of the contents of a table is wrong").into())
    }
}

/// Checks a table as a whole: damage in a part that is read only when it is needed would show
/// while the store is in use, when it is too late to build the index anew.
pub(super) fn check_table(dir: &Path, id: u64, checksum: u128) -> Result<(), Problem> {
    let mut file = File::open(dir.join(TABLES_DIR).join(id.to_string()))?;
    let mut hasher = xxhash3_128::Hasher::new();
    let mut buffer = vec![0; CHECK_BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.write(&buffer[..read]),
        }
    }
    if hasher.finish_128() == checksum {
        Ok(())
    } else {
        Err(Malformed("the checksum of a table is wrong").into())
    }
}

fn read_at(file: &mut File, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

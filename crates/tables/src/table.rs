//! One table: a file of entries whose keys ascend.
//!
//! What finds a block, and the filter, are in memory as long as the table is open; blocks are
//! read when they are asked for, and the page cache keeps them.

use std::path::{Path, PathBuf};

use crate::{
    block::Block,
    directory::{self, Directory},
    error::{Damage, Error},
    file::ReadFile,
    filter::{Filter, KeyHash, LINE_BYTES},
    integer::take_array,
    list::Listed,
};

/// What a table begins with: what it is, and which version of the layout it has.
pub(crate) const MAGIC: [u8; 8] = *b"GRTABLE\x01";

/// What it ends with: how many entries, blocks, and lines of the filter there are.
pub(crate) const FOOTER_BYTES: usize = 24;

/// An open table.
#[derive(Debug)]
pub(crate) struct Table {
    listed: Listed,
    file: ReadFile,
    entries: u64,
    directory: Directory,
    filter: Filter,
}

impl Table {
    /// Opens a table of the list, after a look at all of it: damage in a part that is read only
    /// when it is needed would show while the tables are in use.
    pub(crate) fn open(path: PathBuf, listed: Listed) -> Result<Self, Error> {
        let file = ReadFile::open(path)?;
        if file.measure()? != (listed.len, listed.checksum) {
            return Err(file.damaged(Damage("its checksum is wrong")));
        }
        Self::read(file, listed)
    }

    /// Opens a table that was just written.
    pub(crate) fn open_unchecked(path: PathBuf, listed: Listed) -> Result<Self, Error> {
        Self::read(ReadFile::open(path)?, listed)
    }

    fn read(file: ReadFile, listed: Listed) -> Result<Self, Error> {
        let damaged = |damage| file.damaged(damage);
        let cut_off = || damaged(Damage("it is too short for what it says to hold"));

        let footer_at = listed.len.checked_sub(FOOTER_BYTES as u64).ok_or_else(cut_off)?;
        let footer = file.read(footer_at, FOOTER_BYTES)?;
        let mut rest = &footer[..];
        let mut field = || take_array(&mut rest).map(u64::from_le_bytes).map_err(damaged);
        let (entries, blocks, lines) = (field()?, field()?, field()?);
        // Each takes a byte or more.
        if lines == 0 || entries < blocks || entries > listed.len {
            return Err(damaged(Damage("it says to hold what it cannot")));
        }

        let part = |behind: u64, count: u64, each: usize| {
            let len = count.checked_mul(each as u64)?;
            let start = behind.checked_sub(len)?;
            Some((start, usize::try_from(len).ok()?))
        };
        let (filter_at, filter_len) = part(footer_at, lines, LINE_BYTES).ok_or_else(cut_off)?;
        let filter = Filter::decode(&file.read(filter_at, filter_len)?).map_err(damaged)?;
        let (directory_at, directory_len) =
            part(filter_at, blocks, directory::ENTRY_BYTES).ok_or_else(cut_off)?;
        let start = MAGIC.len() as u64;
        if directory_at < start || file.read(0, MAGIC.len())? != MAGIC {
            return Err(damaged(Damage("it is not a table")));
        }
        let directory = file.read(directory_at, directory_len)?;
        let directory = Directory::decode(&directory, start..directory_at).map_err(damaged)?;
        Ok(Self { listed, file, entries, directory, filter })
    }

    pub(crate) fn listed(&self) -> &Listed {
        &self.listed
    }

    /// How many entries it has.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// What `read` makes of what it has for a key.
    pub(crate) fn find<T>(
        &self,
        key: &[u8],
        hash: KeyHash,
        read: impl FnOnce(Option<&[u8]>) -> T,
    ) -> Result<Option<T>, Error> {
        if !self.filter.may_hold(hash) {
            return Ok(None);
        }
        let Some((_, block)) = self.block_of(key)? else { return Ok(None) };
        let found = block.find(key).map_err(|damage| self.file.damaged(damage))?;
        Ok(found.map(read))
    }

    /// The last block that begins with `key` or before it, and its number.
    pub(crate) fn block_of(&self, key: &[u8]) -> Result<Option<(usize, Block)>, Error> {
        let mut candidates = self.directory.candidates(key);
        let mut found = None;
        // Mostly there is one. If there are many, the last is as good to begin with as any.
        let mut next = candidates.end.wrapping_sub(1);
        while !candidates.is_empty() {
            let block = self.block(next)?;
            if block.begins_by(key).map_err(|damage| self.file.damaged(damage))? {
                candidates.start = next + 1;
                found = Some((next, block));
            } else {
                candidates.end = next;
            }
            next = candidates.start + candidates.len() / 2;
        }
        Ok(found)
    }

    /// How many blocks it has.
    pub(crate) fn blocks(&self) -> usize {
        self.directory.len()
    }

    /// A block, checked.
    pub(crate) fn block(&self, number: usize) -> Result<Block, Error> {
        let place = self.directory.place(number);
        // The directory says so: it was checked, and it knows lengths of 32 bits.
        let len = usize::try_from(place.end - place.start).expect("it came of a u32");
        let bytes = self.file.read(place.start, len)?;
        Block::check(bytes).map_err(|damage| self.file.damaged(damage))
    }

    pub(crate) fn damaged(&self, damage: Damage) -> Error {
        self.file.damaged(damage)
    }
}

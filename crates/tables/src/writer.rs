//! Writing one table.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    mem,
    path::{Path, PathBuf},
};

use twox_hash::xxhash3_128;

use crate::{
    block::BlockBuilder,
    directory::head,
    error::{Error, failed},
    filter::{Filter, KeyHash},
    table::MAGIC,
};

/// Bytes that are written together, where a multiple of them begins: the kernel then keeps them
/// together, and finds a block of a large table in less time.
const BUFFER_BYTES: usize = 1 << 20;

/// Bytes behind which the file is synced: at the end of a large one, a sync of all of it would hold
/// up everybody who waits for this thread.
const SYNC_BYTES: u64 = 64 << 20;

/// What a key and its value have at most.
const MAX_ENTRY_BYTES: usize = 1 << 30;

/// A table in the making. Unless it is [finished](Self::finish), the file is removed again.
pub(crate) struct TableWriter {
    out: Out,
    block: BlockBuilder,
    directory: Vec<u8>,
    filter: Filter,
    entries: u64,
    blocks: u64,
}

impl TableWriter {
    /// Makes a file for up to `max_entries` entries.
    pub(crate) fn create(path: PathBuf, max_entries: u64) -> Result<Self, Error> {
        let mut out = Out::create(path)?;
        out.write(&MAGIC)?;
        let filter = Filter::for_keys(max_entries);
        let (block, directory, entries, blocks) = Default::default();
        Ok(Self { out, block, directory, filter, entries, blocks })
    }

    /// Adds an entry, whose key is behind those of all before it.
    pub(crate) fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
        if key.len() + value.map_or(0, <[u8]>::len) > MAX_ENTRY_BYTES {
            let too_large = io::Error::new(io::ErrorKind::InvalidInput, "an entry is too large");
            return Err(failed("write", &self.out.path)(too_large));
        }
        self.block.push(key, value);
        self.filter.insert(KeyHash::of(key));
        self.entries += 1;
        if self.block.is_full() { self.finish_block() } else { Ok(()) }
    }

    fn finish_block(&mut self) -> Result<(), Error> {
        if self.block.is_empty() {
            return Ok(());
        }
        let first = head(self.block.first_key());
        let len = self.out.write_with(|buffer| self.block.finish(buffer))?;
        let len =
            u32::try_from(len).expect("no entry has 4 GiB, and a block at most one more than fits");
        self.directory.extend_from_slice(&first.to_be_bytes());
        self.directory.extend_from_slice(&len.to_le_bytes());
        self.blocks += 1;
        Ok(())
    }

    /// Makes it durable. Its length and checksum; `None` if it has no entries, and then there is
    /// no file.
    pub(crate) fn finish(mut self) -> Result<Option<(u64, u128)>, Error> {
        if self.entries == 0 {
            return Ok(None);
        }
        self.finish_block()?;
        self.out.write(&self.directory)?;
        for line in self.filter.encoded() {
            self.out.write(&line)?;
        }
        for count in [self.entries, self.blocks, self.filter.lines() as u64] {
            self.out.write(&count.to_le_bytes())?;
        }
        self.out.finish().map(Some)
    }
}

/// A new file, which is removed when it is dropped before it is finished.
struct Out {
    path: PathBuf,
    file: File,
    is_finished: bool,
    buffer: Vec<u8>,
    hasher: xxhash3_128::Hasher,
    written: u64,
    synced: u64,
}

impl Out {
    fn create(path: PathBuf) -> Result<Self, Error> {
        let file = File::create_new(&path).map_err(failed("create", &path))?;
        let (buffer, hasher) =
            (Vec::with_capacity(BUFFER_BYTES + BUFFER_BYTES / 4), xxhash3_128::Hasher::new());
        Ok(Self { path, file, is_finished: false, buffer, hasher, written: 0, synced: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.write_with(|buffer| buffer.extend_from_slice(bytes)).map(drop)
    }

    /// Has something added to the buffer; how many bytes it was.
    fn write_with(&mut self, add: impl FnOnce(&mut Vec<u8>)) -> Result<usize, Error> {
        let before = self.buffer.len();
        add(&mut self.buffer);
        let added = self.buffer.len() - before;
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_out(self.buffer.len() / BUFFER_BYTES * BUFFER_BYTES)?;
        }
        Ok(added)
    }

    /// Writes the first `len` bytes of the buffer.
    fn write_out(&mut self, len: usize) -> Result<(), Error> {
        self.hasher.write(&self.buffer[..len]);
        self.file.write_all(&self.buffer[..len]).map_err(failed("write", &self.path))?;
        self.written += len as u64;
        self.buffer.drain(..len);
        if self.written - self.synced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        // The length is part of what fdatasync promises.
        self.file.sync_data().map_err(failed("sync", &self.path))?;
        self.synced = self.written;
        Ok(())
    }

    fn finish(mut self) -> Result<(u64, u128), Error> {
        self.write_out(self.buffer.len())?;
        self.sync()?;
        self.is_finished = true;
        let hasher = mem::replace(&mut self.hasher, xxhash3_128::Hasher::new());
        Ok((self.written, hasher.finish_128()))
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if !self.is_finished {
            remove(&self.path);
        }
    }
}

/// Removes a file that no list names. If it stays, the next start removes it.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "a table that is not used is left behind");
    }
}

//! Going through one table.

use std::{mem, sync::Arc};

use crate::{
    block::Block,
    error::{Damage, Error},
    table::Table,
};

/// A place in a table: an entry, or the end.
#[derive(Debug)]
pub(crate) struct Cursor {
    table: Arc<Table>,
    /// The block of the entry; `None` at the end.
    block: Option<Block>,
    next_block: usize,
    /// Bytes of the entries behind this one in the block.
    rest_len: usize,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    /// The key before, if there was one.
    last_key: Vec<u8>,
    has_last: bool,
}

impl Cursor {
    /// At the first entry whose key is `start` or behind it.
    pub(crate) fn seek(table: Arc<Table>, start: &[u8]) -> Result<Self, Error> {
        let found = table.block_of(start)?;
        let (next_block, block) = match found {
            Some((number, block)) => (number + 1, Some(block)),
            None if table.blocks() > 0 => (1, Some(table.block(0)?)),
            None => (0, None),
        };
        let rest_len = block.as_ref().map_or(0, |block| block.entries().len_bytes());
        let (key, value, last_key, has_last) = Default::default();
        let mut cursor =
            Self { table, block, next_block, rest_len, key, value, last_key, has_last };
        cursor.advance()?;
        while cursor.key().is_some_and(|key| key < start) {
            cursor.advance()?;
        }
        Ok(cursor)
    }

    /// Key of the entry; `None` at the end.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.block.as_ref().map(|_| &self.key[..])
    }

    /// Its value; `None` if the key was removed.
    pub(crate) fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// Goes to the next entry.
    pub(crate) fn advance(&mut self) -> Result<(), Error> {
        while let Some(block) = &self.block {
            let mut entries = block.last_entries(self.rest_len);
            let next = entries.next().map_err(|damage| self.table.damaged(damage))?;
            if let Some((suffix, value)) = next {
                mem::swap(&mut self.key, &mut self.last_key);
                self.key.clear();
                self.key.extend_from_slice(block.shared());
                self.key.extend_from_slice(suffix);
                // Whoever writes what was read relies on it.
                if self.has_last && self.key <= self.last_key {
                    return Err(self.table.damaged(Damage("its keys do not ascend")));
                }
                self.has_last = true;
                let mut buffer = self.value.take().unwrap_or_default();
                buffer.clear();
                self.value = value.map(|value| {
                    buffer.extend_from_slice(value);
                    buffer
                });
                self.rest_len = entries.len_bytes();
                return Ok(());
            }
            self.next_block()?;
        }
        Ok(())
    }

    fn next_block(&mut self) -> Result<(), Error> {
        self.block = if self.next_block < self.table.blocks() {
            Some(self.table.block(self.next_block)?)
        } else {
            None
        };
        self.next_block += 1;
        self.rest_len = self.block.as_ref().map_or(0, |block| block.entries().len_bytes());
        Ok(())
    }
}

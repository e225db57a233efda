//! The last name of each open directory, against which the next one is checked.

use std::cmp::Ordering;

use super::{MAX_DEPTH, MAX_NAME_BYTES, Reason};

/// One buffer for all names, bounded by [`MAX_DEPTH`] times [`MAX_NAME_BYTES`].
#[derive(Debug, Default)]
pub(super) struct NameStack {
    names: Vec<u8>,
    starts: Vec<usize>,
}

impl NameStack {
    /// Opens a directory in which there is no name yet.
    pub(super) fn push(&mut self) -> Result<(), Reason> {
        if self.starts.len() == MAX_DEPTH {
            return Err(Reason::TooDeep);
        }
        self.starts.push(self.names.len());
        Ok(())
    }

    /// Checks the next name of the innermost directory and keeps it.
    pub(super) fn next_name(&mut self, name: &[u8]) -> Result<(), Reason> {
        check_name(name)?;
        let start = self.starts.last().copied().unwrap_or_default();
        // Without a name yet, the last one is empty and sorts before all others.
        match self.names[start..].cmp(name) {
            Ordering::Less => {
                self.names.truncate(start);
                self.names.extend_from_slice(name);
                Ok(())
            }
            Ordering::Equal => Err(Reason::NameTwice),
            Ordering::Greater => Err(Reason::NameOrder),
        }
    }

    /// Closes the innermost directory.
    pub(super) fn pop(&mut self) {
        if let Some(start) = self.starts.pop() {
            self.names.truncate(start);
        }
    }

    /// Whether no directory is open.
    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }
}

/// The rules for names, apart from their order.
fn check_name(name: &[u8]) -> Result<(), Reason> {
    match name {
        [] => Err(Reason::NameEmpty),
        _ if name.len() > MAX_NAME_BYTES => Err(Reason::NameTooLong { len: name.len() as u64 }),
        b"." | b".." => Err(Reason::NameDots),
        _ if name.iter().any(|&byte| byte == b'/' || byte == 0) => Err(Reason::NameBytes),
        _ => Ok(()),
    }
}

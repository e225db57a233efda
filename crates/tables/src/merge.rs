//! Going through several tables together.

use crate::{cursor::Cursor, error::Error};

/// Entries of several tables in the order of their keys, each key once: that of the newest table.
#[derive(Debug)]
pub(crate) struct Merge {
    /// Those of newer tables first.
    cursors: Vec<Cursor>,
    /// Whose entry was given last.
    given: Option<usize>,
}

impl Merge {
    pub(crate) fn new(cursors: Vec<Cursor>) -> Self {
        Self { cursors, given: None }
    }

    /// A cursor at the next entry; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<&Cursor>, Error> {
        self.pass_given()?;
        let mut least: Option<(usize, &[u8])> = None;
        for (number, cursor) in self.cursors.iter().enumerate() {
            // Of the same key the newest comes first, and stays.
            if let Some(key) = cursor.key()
                && least.is_none_or(|(_, least)| key < least)
            {
                least = Some((number, key));
            }
        }
        self.given = least.map(|(number, _)| number);
        Ok(self.given.map(|number| &self.cursors[number]))
    }

    /// Leaves the entry that was given, and those of the same key in older tables.
    fn pass_given(&mut self) -> Result<(), Error> {
        let Some(given) = self.given.take() else { return Ok(()) };
        let (newer, older) = self.cursors.split_at_mut(given + 1);
        let given = &mut newer[given];
        for cursor in older {
            if cursor.key() == given.key() {
                cursor.advance()?;
            }
        }
        given.advance()
    }
}

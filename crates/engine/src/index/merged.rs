//! Entries of memory and of tables, gone through together.

use std::iter::Peekable;

use lsm_tree::Slice;

use super::{KeyValue, error::IndexError, memory::Sorted};

/// Both sorted, each key once: what is in memory is newer than what is in a table.
pub(super) struct Merged<T: Iterator<Item = Result<(Slice, Slice), IndexError>>> {
    pub(super) memory: Peekable<<Sorted as IntoIterator>::IntoIter>,
    pub(super) tables: Peekable<T>,
}

impl<T: Iterator<Item = Result<(Slice, Slice), IndexError>>> Iterator for Merged<T> {
    type Item = Result<KeyValue, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some((key, _)) = self.memory.peek() else {
            let entry = self.tables.next()?;
            return Some(entry.map(|(key, value)| (key.to_vec(), value.to_vec())));
        };
        if let Some(entry) = self.tables.next_if(|entry| match entry {
            Ok((older, _)) => **older < **key,
            Err(_) => true,
        }) {
            return Some(entry.map(|(key, value)| (key.to_vec(), value.to_vec())));
        }
        let (key, value) = self.memory.next()?;
        self.tables.next_if(|entry| matches!(entry, Ok((older, _)) if **older == *key));
        Some(Ok((key.into_vec(), value.into_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Malformed;

    fn merged(
        memory: &[(&[u8], u8)],
        tables: Vec<Result<(&[u8], u8), IndexError>>,
    ) -> Vec<Result<(Vec<u8>, u8), ()>> {
        let memory: Sorted =
            memory.iter().map(|(key, value)| ((*key).into(), [*value].into())).collect();
        let tables = tables
            .into_iter()
            .map(|entry| entry.map(|(key, value)| (Slice::from(key), Slice::from(&[value][..]))));
        Merged { memory: memory.into_iter().peekable(), tables: tables.peekable() }
            .map(|entry| entry.map(|(key, value)| (key, value[0])).map_err(drop))
            .collect()
    }

    #[test]
    fn both_are_there_in_order_and_memory_wins() {
        let found = merged(
            &[(b"b", 1), (b"d", 2), (b"e", 3)],
            vec![Ok((b"a", 4)), Ok((b"b", 5)), Ok((b"c", 6)), Ok((b"e", 7)), Ok((b"f", 8))],
        );
        let keys: Vec<_> = found.into_iter().map(|entry| entry.expect("no error")).collect();
        let expected = [(b"a", 4), (b"b", 1), (b"c", 6), (b"d", 2), (b"e", 3), (b"f", 8)];
        assert_eq!(keys, expected.map(|(key, value)| (key.to_vec(), value)));
    }

    #[test]
    fn an_error_is_passed_on() {
        let error = || Err(IndexError::Malformed(Malformed("damaged")));
        assert_eq!(merged(&[], vec![error()]), [Err(())]);
        assert_eq!(merged(&[(b"a", 1)], vec![error()]), [Err(()), Ok((b"a".to_vec(), 1))]);
    }
}

//! Entries of memory and of tables, gone through together.

use std::iter::Peekable;

use granary_tables::KeyValue;

use super::{error::IndexError, memory::Sorted};

/// Both sorted, each key once: what is in memory is newer than what is in a table. A key that
/// was removed comes without a value.
pub(super) struct Merged<T: Iterator<Item = Result<KeyValue, IndexError>>> {
    pub(super) memory: Peekable<<Sorted as IntoIterator>::IntoIter>,
    pub(super) tables: Peekable<T>,
}

impl<T: Iterator<Item = Result<KeyValue, IndexError>>> Iterator for Merged<T> {
    type Item = Result<(Vec<u8>, Option<Vec<u8>>), IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let of_table = |entry: Result<KeyValue, _>| entry.map(|(key, value)| (key, Some(value)));
        let Some((key, _)) = self.memory.peek() else {
            return self.tables.next().map(of_table);
        };
        if let Some(entry) = self.tables.next_if(|entry| match entry {
            Ok((older, _)) => **older < **key,
            Err(_) => true,
        }) {
            return Some(of_table(entry));
        }
        let (key, value) = self.memory.next()?;
        self.tables.next_if(|entry| matches!(entry, Ok((older, _)) if **older == *key));
        Some(Ok((key.into_vec(), value.map(<[u8]>::into_vec))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Malformed;

    /// A key, and the only byte of its value; or that there was an error.
    type Found = Result<(Vec<u8>, Option<u8>), ()>;

    fn merged(
        memory: &[(&[u8], Option<u8>)],
        tables: Vec<Result<(&[u8], u8), IndexError>>,
    ) -> Vec<Found> {
        let memory: Sorted = memory
            .iter()
            .map(|(key, value)| ((*key).into(), value.map(|value| [value].into())))
            .collect();
        let tables =
            tables.into_iter().map(|entry| entry.map(|(key, value)| (key.to_vec(), vec![value])));
        Merged { memory: memory.into_iter().peekable(), tables: tables.peekable() }
            .map(|entry| entry.map(|(key, value)| (key, value.map(|v| v[0]))).map_err(drop))
            .collect()
    }

    #[test]
    fn both_are_there_in_order_and_memory_wins() {
        let found = merged(
            &[(b"b", Some(1)), (b"d", Some(2)), (b"e", None)],
            vec![Ok((b"a", 4)), Ok((b"b", 5)), Ok((b"c", 6)), Ok((b"e", 7)), Ok((b"f", 8))],
        );
        let keys: Vec<_> = found.into_iter().map(|entry| entry.expect("no error")).collect();
        let expected = [
            (b"a", Some(4)),
            (b"b", Some(1)),
            (b"c", Some(6)),
            (b"d", Some(2)),
            (b"e", None),
            (b"f", Some(8)),
        ];
        assert_eq!(keys, expected.map(|(key, value)| (key.to_vec(), value)));
    }

    #[test]
    fn an_error_is_passed_on() {
        let error = || Err(IndexError::Malformed(Malformed("damaged")));
        assert_eq!(merged(&[], vec![error()]), [Err(())]);
        assert_eq!(
            merged(&[(b"a", Some(1))], vec![error()]),
            [Err(()), Ok((b"a".to_vec(), Some(1)))]
        );
    }
}

//! The writer: one method per literal of the format.

use std::io::Write;

use super::{Error, MAX_FILE_BYTES, MAX_TARGET_BYTES, Reason, name_stack::NameStack, token};

/// What must come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The root, or the node of an entry.
    Node,
    /// Contents of a file, so many bytes, and the end of the file.
    File { size: u64, remaining: u64 },
    /// The end of an entry.
    EntryEnd,
    /// An entry, or the end of the directory.
    Entries,
    /// Nothing: the root is complete.
    Done,
    /// Nothing: a call failed, and what was written is no archive.
    Failed,
}

impl State {
    const fn expected(self) -> &'static str {
        match self {
            Self::Node => "a directory, a symlink or a file",
            Self::File { .. } => "the contents or the end of a file",
            Self::EntryEnd => "the end of an entry",
            Self::Entries => "an entry or the end of a directory",
            Self::Done => "nothing more than finish",
            Self::Failed => "nothing",
        }
    }
}

/// Writes a NAR literal by literal, each call with at most one write to the sink.
///
/// A tree is written by these calls, `node` being one of the first three lines:
///
/// ```text
/// file_header, file_data or skip_file_data..., end_file
/// symlink
/// directory, (entry, node, end_entry)..., end_directory
/// ```
///
/// and `finish`. Calls in another order, names out of order and contents of another length
/// than announced are errors; after one, the writer refuses all further calls.
///
/// Nothing is buffered: between two calls, the sink holds all literals so far, which is how
/// a planner learns what lies between the blobs. Give a sink with costly writes a buffer.
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
    state: State,
    names: NameStack,
    position: u64,
    scratch: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins an archive: writes the magic string.
    ///
    /// # Errors
    /// When the sink fails.
    pub fn new(sink: W) -> Result<Self, Error> {
        let mut writer = Self {
            sink,
            state: State::Node,
            names: NameStack::default(),
            position: 0,
            scratch: Vec::new(),
        };
        writer.put(&token::MAGIC)?;
        Ok(writer)
    }

    /// Begins a directory.
    ///
    /// # Errors
    /// When no node is due here, the nesting is too deep, or the sink fails.
    pub fn directory(&mut self) -> Result<(), Error> {
        self.expect("directory", State::Node)?;
        self.names.push().map_err(|reason| self.fail(reason))?;
        self.put_all(&[&token::NODE_OPEN, &token::DIRECTORY])?;
        self.state = State::Entries;
        Ok(())
    }

    /// Begins an entry of the innermost directory; its node comes next.
    ///
    /// # Errors
    /// When no entry is due here, the name is not allowed or does not sort after the one
    /// before it, or the sink fails.
    pub fn entry(&mut self, name: &[u8]) -> Result<(), Error> {
        self.expect("entry", State::Entries)?;
        self.names.next_name(name).map_err(|reason| self.fail(reason))?;
        self.put_with_string(&[&token::ENTRY_NAME], name, &token::ENTRY_NODE)?;
        self.state = State::Node;
        Ok(())
    }

    /// Ends an entry.
    ///
    /// # Errors
    /// When the entry's node is not complete, or the sink fails.
    pub fn end_entry(&mut self) -> Result<(), Error> {
        self.expect("end_entry", State::EntryEnd)?;
        self.put(&token::CLOSE)?;
        self.state = State::Entries;
        Ok(())
    }

    /// Ends the innermost directory.
    ///
    /// # Errors
    /// When an entry is still open, no directory is, or the sink fails.
    pub fn end_directory(&mut self) -> Result<(), Error> {
        self.expect("end_directory", State::Entries)?;
        self.names.pop();
        self.put(&token::CLOSE)?;
        self.end_node();
        Ok(())
    }

    /// Writes a symlink.
    ///
    /// # Errors
    /// When no node is due here, the target is not allowed, or the sink fails.
    pub fn symlink(&mut self, target: &[u8]) -> Result<(), Error> {
        self.expect("symlink", State::Node)?;
        check_target(target).map_err(|reason| self.fail(reason))?;
        let before: [&[u8]; 2] = [&token::NODE_OPEN, &token::SYMLINK_TARGET];
        self.put_with_string(&before, target, &token::CLOSE)?;
        self.end_node();
        Ok(())
    }

    /// Begins a file of `size` bytes.
    ///
    /// # Errors
    /// When no node is due here, the size is over [`MAX_FILE_BYTES`], or the sink fails.
    pub fn file_header(&mut self, executable: bool, size: u64) -> Result<(), Error> {
        self.expect("file_header", State::Node)?;
        if size > MAX_FILE_BYTES {
            return Err(self.fail(Reason::FileTooLarge { size }));
        }
        let size_bytes = size.to_le_bytes();
        let (open, regular, contents) = (&token::NODE_OPEN, &token::REGULAR, &token::CONTENTS);
        if executable {
            let (marker, empty) = (&token::EXECUTABLE, &token::EMPTY);
            self.put_all(&[open, regular, marker, empty, contents, &size_bytes])?;
        } else {
            self.put_all(&[open, regular, contents, &size_bytes])?;
        }
        self.state = State::File { size, remaining: size };
        Ok(())
    }

    /// Writes the next bytes of a file's contents.
    ///
    /// # Errors
    /// When no contents are due here, these are more than announced, or the sink fails.
    pub fn file_data(&mut self, data: &[u8]) -> Result<(), Error> {
        let state = self.after_data("file_data", data.len() as u64)?;
        self.put(data)?;
        self.state = state;
        Ok(())
    }

    /// Takes the next `len` bytes of a file's contents as written, without writing any: for
    /// a caller that sends them another way, or wants the literals alone.
    ///
    /// # Errors
    /// When no contents are due here, or these are more than announced.
    pub fn skip_file_data(&mut self, len: u64) -> Result<(), Error> {
        self.state = self.after_data("skip_file_data", len)?;
        self.position = self.position.saturating_add(len);
        Ok(())
    }

    /// Ends a file.
    ///
    /// # Errors
    /// When no file is open, its contents are shorter than announced, or the sink fails.
    pub fn end_file(&mut self) -> Result<(), Error> {
        let State::File { size, remaining } = self.state else {
            return Err(self.fail_call("end_file"));
        };
        if remaining != 0 {
            return Err(self.fail(Reason::FileLength));
        }
        self.put_all(&[&token::EMPTY[..token::padding_len(size)], &token::CLOSE])?;
        self.end_node();
        Ok(())
    }

    /// Ends the archive and gives the sink back, without flushing it.
    ///
    /// # Errors
    /// When the root is not complete.
    pub fn finish(mut self) -> Result<W, Error> {
        self.expect("finish", State::Done)?;
        Ok(self.sink)
    }

    /// Whether a directory is open: then the end of a node is to be followed by that of its entry.
    pub fn is_within_directory(&self) -> bool {
        !self.names.is_empty()
    }

    /// How long the archive is so far, contents that were skipped included.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The sink.
    pub const fn get_ref(&self) -> &W {
        &self.sink
    }

    /// The sink, to take out of it what was written so far.
    pub const fn get_mut(&mut self) -> &mut W {
        &mut self.sink
    }

    fn expect(&mut self, call: &'static str, state: State) -> Result<(), Error> {
        if self.state == state { Ok(()) } else { Err(self.fail_call(call)) }
    }

    /// The state after `len` more bytes of contents.
    fn after_data(&mut self, call: &'static str, len: u64) -> Result<State, Error> {
        let State::File { size, remaining } = self.state else {
            return Err(self.fail_call(call));
        };
        match remaining.checked_sub(len) {
            Some(remaining) => Ok(State::File { size, remaining }),
            None => Err(self.fail(Reason::FileLength)),
        }
    }

    fn end_node(&mut self) {
        self.state = if self.names.is_empty() { State::Done } else { State::EntryEnd };
    }

    const fn fail_call(&mut self, call: &'static str) -> Error {
        match self.state {
            State::Failed => self.fail(Reason::AfterError),
            state => self.fail(Reason::Call { call, expected: state.expected() }),
        }
    }

    const fn fail(&mut self, reason: Reason) -> Error {
        self.state = State::Failed;
        Error::Invalid { offset: self.position, reason }
    }

    /// Writes a string with its length and padding between literals, in one write.
    fn put_with_string(
        &mut self,
        before: &[&[u8]],
        string: &[u8],
        after: &[u8],
    ) -> Result<(), Error> {
        self.scratch.clear();
        for literal in before {
            self.scratch.extend_from_slice(literal);
        }
        let len = string.len() as u64;
        self.scratch.extend_from_slice(&len.to_le_bytes());
        self.scratch.extend_from_slice(string);
        self.scratch.extend_from_slice(&token::EMPTY[..token::padding_len(len)]);
        self.scratch.extend_from_slice(after);
        self.put_scratch()
    }

    /// Writes literals in one write.
    fn put_all(&mut self, literals: &[&[u8]]) -> Result<(), Error> {
        self.scratch.clear();
        for literal in literals {
            self.scratch.extend_from_slice(literal);
        }
        self.put_scratch()
    }

    fn put_scratch(&mut self) -> Result<(), Error> {
        let scratch = std::mem::take(&mut self.scratch);
        let result = self.put(&scratch);
        self.scratch = scratch;
        result
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Err(error) = self.sink.write_all(bytes) {
            self.state = State::Failed;
            return Err(Error::Io(error));
        }
        self.position = self.position.saturating_add(bytes.len() as u64);
        Ok(())
    }
}

/// The rules for the target of a symlink.
pub(super) fn check_target(target: &[u8]) -> Result<(), Reason> {
    match target {
        [] => Err(Reason::TargetEmpty),
        _ if target.len() > MAX_TARGET_BYTES => {
            Err(Reason::TargetTooLong { len: target.len() as u64 })
        }
        _ if target.contains(&0) => Err(Reason::TargetBytes),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer<Vec<u8>> {
        Writer::new(Vec::new()).expect("a Vec takes all")
    }

    fn reason<T: std::fmt::Debug>(result: Result<T, Error>) -> Reason {
        match result {
            Err(Error::Invalid { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn skipped_contents_count_but_are_not_written() -> Result<(), Error> {
        let mut writer = writer();
        writer.file_header(true, 13)?;
        let before = std::mem::take(writer.get_mut());
        assert_eq!(writer.position(), before.len() as u64);
        writer.file_data(b"abc")?;
        writer.skip_file_data(10)?;
        assert_eq!(writer.get_ref(), b"abc");
        writer.end_file()?;
        assert_eq!(writer.position(), before.len() as u64 + 13 + 3 + 16);
        assert_eq!(writer.finish()?.len(), 3 + 3 + 16);
        Ok(())
    }

    #[test]
    fn contents_of_another_length() -> Result<(), Error> {
        for (size, data) in [(3, "ab"), (0, "a"), (2, "abc")] {
            let mut writer = writer();
            writer.file_header(false, size)?;
            let result = writer.file_data(data.as_bytes()).and_then(|()| writer.end_file());
            assert_eq!(reason(result), Reason::FileLength);
        }
        let mut skipping = writer();
        skipping.file_header(false, 2)?;
        assert_eq!(reason(skipping.skip_file_data(3)), Reason::FileLength);
        let size = MAX_FILE_BYTES + 1;
        assert_eq!(reason(writer().file_header(false, size)), Reason::FileTooLarge { size });
        Ok(())
    }

    #[test]
    fn calls_out_of_order() -> Result<(), Error> {
        let is_call = |result| assert!(matches!(reason(result), Reason::Call { .. }));
        is_call(writer().entry(b"a"));
        is_call(writer().end_entry());
        is_call(writer().end_directory());
        is_call(writer().file_data(b""));
        is_call(writer().skip_file_data(0));
        is_call(writer().end_file());
        is_call(writer().finish().map(|_| ()));

        let mut second_root = writer();
        second_root.symlink(b"a")?;
        is_call(second_root.symlink(b"a"));

        let mut entry_without_node = writer();
        entry_without_node.directory()?;
        entry_without_node.entry(b"a")?;
        is_call(entry_without_node.end_entry());

        let mut open = writer();
        open.directory()?;
        open.entry(b"a")?;
        open.directory()?;
        open.end_directory()?;
        is_call(open.end_directory());
        // The writer stays failed, whatever comes.
        assert_eq!(reason(open.end_entry()), Reason::AfterError);
        assert_eq!(reason(open.finish()), Reason::AfterError);
        Ok(())
    }

    #[test]
    fn names_and_targets() -> Result<(), Error> {
        let name = |names: &[&[u8]]| {
            let mut writer = writer();
            writer.directory()?;
            for name in names {
                writer.entry(name)?;
                writer.symlink(b"t")?;
                writer.end_entry()?;
            }
            Ok(())
        };
        name(&[b"A", b"a", b"a-", b"a.b", b"a0", b"b", b"\xff"])?;
        assert_eq!(reason(name(&[b"b", b"a"])), Reason::NameOrder);
        assert_eq!(reason(name(&[b"ab", b"a"])), Reason::NameOrder);
        assert_eq!(reason(name(&[b"a", b"a"])), Reason::NameTwice);
        assert_eq!(reason(name(&[b""])), Reason::NameEmpty);
        assert_eq!(reason(name(&[b"."])), Reason::NameDots);
        assert_eq!(reason(name(&[b".."])), Reason::NameDots);
        assert_eq!(reason(name(&[b"a/b"])), Reason::NameBytes);
        assert_eq!(reason(name(&[b"a\0"])), Reason::NameBytes);
        name(&[&[b'a'; 255]])?;
        assert_eq!(reason(name(&[&[b'a'; 256]])), Reason::NameTooLong { len: 256 });

        assert_eq!(reason(writer().symlink(b"")), Reason::TargetEmpty);
        assert_eq!(reason(writer().symlink(b"a\0")), Reason::TargetBytes);
        writer().symlink(&[b'a'; 4095])?;
        let long = writer().symlink(&[b'a'; 4096]);
        assert_eq!(reason(long), Reason::TargetTooLong { len: 4096 });
        Ok(())
    }

    #[test]
    fn a_sink_that_fails() {
        let sink = [0; 30];
        let mut room = sink;
        let mut writer = Writer::new(&mut room[..]).expect("there is room for the magic");
        assert!(matches!(writer.directory(), Err(Error::Io(_))));
        assert_eq!(reason(writer.directory()), Reason::AfterError);
    }
}

//! The reader: a pull parser over any buffered source of bytes.

use std::io::{BufRead, ErrorKind};

use super::{
    Error, MAX_FILE_BYTES, MAX_NAME_BYTES, MAX_TARGET_BYTES, Reason, name_stack::NameStack, token,
    writer::check_target,
};

/// One step through a tree, in the order of the archive.
///
/// The root is one node: a directory, a symlink or a file. Each `Entry` is followed by its
/// node; a directory's node ends with `EndDirectory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A directory begins. Its entries follow.
    Directory,
    /// An entry of the innermost directory. Its node follows.
    Entry {
        /// The name, which need not be UTF-8.
        name: Vec<u8>,
    },
    /// The innermost directory ends.
    EndDirectory,
    /// A symlink.
    Symlink {
        /// The target, which need not be UTF-8.
        target: Vec<u8>,
    },
    /// A file. [`Reader::data`] gives its contents, or [`Reader::read_data`].
    File {
        /// Whether it is executable.
        executable: bool,
        /// Its size in bytes.
        size: u64,
    },
}

/// What comes next in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The magic string and the root.
    Start,
    /// The node of an entry.
    Node,
    /// `remaining` bytes of contents, then the padding and the end of the file.
    File { size: u64, remaining: u64 },
    /// An entry, or the end of the directory.
    Entries,
    /// The end of the input.
    Done,
    /// Nothing, as something failed before.
    Failed,
}

/// Reads a NAR as a sequence of [`Event`]s.
///
/// It reads no further than it must, but for what its source does; [`Reader::finish`] checks that
/// nothing follows. After an error, it gives no further events. Memory is bounded whatever the
/// input says: a token, and the names on the path to the current node.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    state: State,
    names: NameStack,
    /// What comes next, if the source does not have it in one piece: never contents.
    stitched: Vec<u8>,
    /// How many bytes of the archive are consumed.
    position: u64,
}

impl<R: BufRead> Reader<R> {
    /// Reads nothing yet.
    pub fn new(source: R) -> Self {
        Self {
            source,
            state: State::Start,
            names: NameStack::default(),
            stitched: Vec::new(),
            position: 0,
        }
    }

    /// The next event; `None` when the archive is complete. What is left of the contents of
    /// a file is skipped.
    ///
    /// # Errors
    /// When the source fails, or the input is not a NAR.
    #[expect(clippy::should_implement_trait, reason = "an iterator would hide read_data")]
    pub fn next(&mut self) -> Result<Option<Event>, Error> {
        let event = self.next_event();
        if event.is_err() {
            self.state = State::Failed;
        }
        event
    }

    /// The next bytes of the contents of the file that the last event announced, as many as the
    /// source has at hand; none when there are no more, or the last event was no file. They stay
    /// next until they are [consumed](Self::consume_data).
    ///
    /// # Errors
    /// When the source fails, or the input ends too early.
    pub fn data(&mut self) -> Result<&[u8], Error> {
        let remaining = match self.state {
            State::File { remaining, .. } => remaining,
            State::Failed => return Err(self.invalid(Reason::AfterError)),
            _ => 0,
        };
        if remaining == 0 {
            return Ok(&[]);
        }
        match available(&mut self.source) {
            Ok([]) => {
                self.state = State::Failed;
                Err(Error::Truncated { offset: self.position })
            }
            Ok(data) => Ok(&data[..bounded(remaining, data.len()).unwrap_or(data.len())]),
            Err(error) => {
                self.state = State::Failed;
                Err(error)
            }
        }
    }

    /// Takes bytes that [`data`](Self::data) gave.
    ///
    /// # Panics
    /// If it did not give as many.
    pub fn consume_data(&mut self, len: usize) {
        let State::File { remaining, .. } = &mut self.state else {
            assert!(len == 0, "there are no contents");
            return;
        };
        *remaining = remaining.checked_sub(len as u64).expect("as many were given");
        self.consume(len);
    }

    /// Reads from the contents of the file that the last event announced; 0 when there are
    /// no more, or the last event was no file.
    ///
    /// # Errors
    /// When the source fails, or the input ends too early.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let data = self.data()?;
        let read = data.len().min(buf.len());
        buf[..read].copy_from_slice(&data[..read]);
        self.consume_data(read);
        Ok(read)
    }

    /// The source, for what it knows of the bytes that it has at hand.
    pub const fn source(&self) -> &R {
        &self.source
    }

    /// The same, to have it do something with them. What it gives next must stay what it was. Where contents are
    /// next, it stands at [`position`](Self::position); elsewhere it may be some bytes ahead.
    pub const fn source_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// Reads what is left of the archive, checks that the input ends behind it, and gives
    /// the source back.
    ///
    /// # Errors
    /// When the source fails, the rest is not valid, or something follows.
    pub fn finish(mut self) -> Result<R, Error> {
        while self.next()?.is_some() {}
        if !available(&mut self.source)?.is_empty() {
            return Err(self.invalid(Reason::TrailingBytes));
        }
        Ok(self.source)
    }

    /// How many bytes of the archive are parsed or handed out. After a `File` event, this is
    /// where its contents begin.
    pub const fn position(&self) -> u64 {
        self.position
    }

    fn next_event(&mut self) -> Result<Option<Event>, Error> {
        match self.state {
            State::Start => {
                self.take_literal(&token::MAGIC, Reason::Magic)?;
                self.node().map(Some)
            }
            State::Node => self.node().map(Some),
            State::File { size, remaining } => {
                self.skip(remaining)?;
                self.padding(size)?;
                self.take_close()?;
                self.end_node()?;
                self.after_node()
            }
            State::Entries => self.entry_or_end().map(Some),
            State::Done => Ok(None),
            State::Failed => Err(self.invalid(Reason::AfterError)),
        }
    }

    /// What follows a file, whose end is only seen when the next event is asked for.
    fn after_node(&mut self) -> Result<Option<Event>, Error> {
        match self.state {
            State::Entries => self.entry_or_end().map(Some),
            _ => Ok(None),
        }
    }

    fn node(&mut self) -> Result<Event, Error> {
        self.take_literal(&token::NODE_OPEN, Reason::Token { expected: "\"(\" and \"type\"" })?;
        let kind = self.peek(token::SHORT)?;
        if kind == token::REGULAR {
            self.file()
        } else if kind == token::SYMLINK {
            self.symlink()
        } else if *kind == token::DIRECTORY[..token::SHORT] {
            let reason = Reason::Token { expected: "\"directory\"" };
            self.take_literal(&token::DIRECTORY, reason)?;
            self.names.push().map_err(|reason| self.invalid(reason))?;
            self.state = State::Entries;
            Ok(Event::Directory)
        } else {
            let expected = "\"regular\", \"symlink\" or \"directory\"";
            Err(self.invalid(Reason::Token { expected }))
        }
    }

    fn file(&mut self) -> Result<Event, Error> {
        self.consume(token::REGULAR.len());
        let executable = self.peek(token::SHORT)? != token::CONTENTS;
        if executable {
            let expected = "\"executable\" or \"contents\"";
            self.take_literal(&token::EXECUTABLE, Reason::Token { expected })?;
            self.take_literal(&token::EMPTY, Reason::ExecutableMarker)?;
            self.take_literal(&token::CONTENTS, Reason::Token { expected: "\"contents\"" })?;
        } else {
            self.consume(token::CONTENTS.len());
        }
        let size = self.peek_length()?;
        if size > MAX_FILE_BYTES {
            return Err(self.invalid(Reason::FileTooLarge { size }));
        }
        self.consume(8);
        self.state = State::File { size, remaining: size };
        Ok(Event::File { executable, size })
    }

    fn symlink(&mut self) -> Result<Event, Error> {
        let expected = "\"target\"";
        self.take_literal(&token::SYMLINK_TARGET, Reason::Token { expected })?;
        let len = self.peek_length()?;
        let Some(len) = bounded(len, MAX_TARGET_BYTES) else {
            return Err(self.invalid(Reason::TargetTooLong { len }));
        };
        let target = self.peek_string(len)?.to_vec();
        check_target(&target).map_err(|reason| self.invalid(reason))?;
        self.consume(8 + len);
        self.padding(len as u64)?;
        self.take_close()?;
        self.end_node()?;
        Ok(Event::Symlink { target })
    }

    fn entry_or_end(&mut self) -> Result<Event, Error> {
        let begin = self.peek(token::SHORT)?;
        if begin == token::CLOSE {
            self.consume(token::CLOSE.len());
            self.names.pop();
            self.end_node()?;
            return Ok(Event::EndDirectory);
        }
        if begin != token::ENTRY {
            return Err(self.invalid(Reason::Token { expected: "\"entry\" or \")\"" }));
        }
        let expected = "\"entry\", \"(\" and \"name\"";
        self.take_literal(&token::ENTRY_NAME, Reason::Token { expected })?;
        let len = self.peek_length()?;
        let Some(len) = bounded(len, MAX_NAME_BYTES) else {
            return Err(self.invalid(Reason::NameTooLong { len }));
        };
        let name = self.peek_string(len)?.to_vec();
        self.names.next_name(&name).map_err(|reason| self.invalid(reason))?;
        self.consume(8 + len);
        self.padding(len as u64)?;
        self.take_literal(&token::ENTRY_NODE, Reason::Token { expected: "\"node\"" })?;
        self.state = State::Node;
        Ok(Event::Entry { name })
    }

    /// Behind the node itself, the entry that holds it must end too.
    fn end_node(&mut self) -> Result<(), Error> {
        if self.names.is_empty() {
            self.state = State::Done;
        } else {
            self.take_close()?;
            self.state = State::Entries;
        }
        Ok(())
    }

    /// Passes over contents that nobody wants.
    fn skip(&mut self, mut len: u64) -> Result<(), Error> {
        while len > 0 {
            let available = available(&mut self.source)?.len();
            if available == 0 {
                return Err(Error::Truncated { offset: self.position });
            }
            let skipped = bounded(len, available).unwrap_or(available);
            self.consume(skipped);
            len -= skipped as u64;
        }
        Ok(())
    }

    /// Takes what fills a string of `len` bytes up.
    fn padding(&mut self, len: u64) -> Result<(), Error> {
        self.take_literal(&token::EMPTY[..token::padding_len(len)], Reason::Padding)
    }

    fn take_close(&mut self) -> Result<(), Error> {
        self.take_literal(&token::CLOSE, Reason::Token { expected: "\")\"" })
    }

    /// Takes bytes that must be these.
    fn take_literal(&mut self, literal: &[u8], reason: Reason) -> Result<(), Error> {
        match self.peek(literal.len()).map(|found| common_len(literal, found)) {
            Ok(same) if same == literal.len() => {
                self.consume(same);
                Ok(())
            }
            Ok(same) => Err(self.mismatch(same, reason)),
            // Where the input ends too early, but is wrong before that, say the latter. All that
            // is left of it was stitched.
            Err(Error::Truncated { .. }) if !literal.starts_with(&self.stitched) => {
                Err(self.mismatch(common_len(literal, &self.stitched), reason))
            }
            Err(error) => Err(error),
        }
    }

    /// The error for bytes of which only the first `same` are right, at the first word that
    /// differs.
    const fn mismatch(&self, same: usize, reason: Reason) -> Error {
        Error::Invalid { offset: self.position + (same - same % 8) as u64, reason }
    }

    /// The length in front of a string, not yet consumed.
    fn peek_length(&mut self) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.peek(8)?);
        Ok(u64::from_le_bytes(bytes))
    }

    /// A string of `len` bytes behind its length, neither consumed yet.
    fn peek_string(&mut self, len: usize) -> Result<&[u8], Error> {
        Ok(&self.peek(8 + len)?[8..])
    }

    /// The next `len` bytes, which are not contents.
    fn peek(&mut self, len: usize) -> Result<&[u8], Error> {
        if self.stitched.is_empty() && available(&mut self.source)?.len() >= len {
            // Asked again, since the compiler takes what is given back here as borrowed to the end.
            return Ok(&available(&mut self.source)?[..len]);
        }
        while self.stitched.len() < len {
            let available = available(&mut self.source)?;
            if available.is_empty() {
                let offset = self.position + self.stitched.len() as u64;
                return Err(Error::Truncated { offset });
            }
            let taken = available.len().min(len - self.stitched.len());
            self.stitched.extend_from_slice(&available[..taken]);
            self.source.consume(taken);
        }
        Ok(&self.stitched[..len])
    }

    /// Takes bytes that were looked at.
    fn consume(&mut self, len: usize) {
        if self.stitched.is_empty() {
            self.source.consume(len);
        } else {
            self.stitched.drain(..len);
        }
        self.position += len as u64;
    }

    const fn invalid(&self, reason: Reason) -> Error {
        Error::Invalid { offset: self.position, reason }
    }
}

/// A length as `usize`, if it is not over a limit.
fn bounded(len: u64, limit: usize) -> Option<usize> {
    usize::try_from(len).ok().filter(|&len| len <= limit)
}

/// How many bytes two strings begin with alike.
fn common_len(one: &[u8], other: &[u8]) -> usize {
    if one == other {
        return one.len();
    }
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// What the source has at hand, or reads now; none at its end.
fn available(source: &mut impl BufRead) -> Result<&[u8], Error> {
    let len = loop {
        match source.fill_buf() {
            Ok(available) => break available.len(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Io(error)),
        }
    };
    if len == 0 {
        return Ok(&[]);
    }
    // What was at hand still is, and could not be given out of the loop.
    source.fill_buf().map_err(Error::Io)
}

//! The reader: a pull parser over any source of bytes.

use std::io::{ErrorKind, Read};

use super::{
    Error, MAX_FILE_BYTES, MAX_NAME_BYTES, MAX_TARGET_BYTES, Reason, name_stack::NameStack, token,
    writer::check_target,
};

/// How much is read ahead. Larger than the longest string with what surrounds it.
const BUFFER_BYTES: usize = 64 * 1024;

/// From this size on, a caller's buffer is filled by the source itself.
const DIRECT_READ_BYTES: usize = 16 * 1024;

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
    /// A file. [`Reader::read_data`] gives its contents.
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
/// It reads ahead, so a source that goes on after the archive must be limited by the
/// caller; [`Reader::finish`] checks that nothing follows. After an error, it gives no
/// further events. Memory is bounded whatever the input says: a buffer of 64 KiB and the
/// names on the path to the current node.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    state: State,
    names: NameStack,
    buffer: Box<[u8]>,
    /// The unread bytes of the buffer lie from `start` to `end`.
    start: usize,
    end: usize,
    /// Where in the archive `start` lies.
    position: u64,
}

impl<R: Read> Reader<R> {
    /// Reads nothing yet. The source needs no buffer of its own.
    pub fn new(source: R) -> Self {
        Self {
            source,
            state: State::Start,
            names: NameStack::default(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
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

    /// Reads from the contents of the file that the last event announced; 0 when there are
    /// no more, or the last event was no file. A large `buf` is filled by the source itself.
    ///
    /// # Errors
    /// When the source fails, or the input ends too early.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let read = self.read_contents(buf);
        if read.is_err() {
            self.state = State::Failed;
        }
        read
    }

    /// Reads what is left of the archive, checks that the input ends behind it, and gives
    /// the source back.
    ///
    /// # Errors
    /// When the source fails, the rest is not valid, or something follows.
    pub fn finish(mut self) -> Result<R, Error> {
        while self.next()?.is_some() {}
        if self.start < self.end || self.refill()? > 0 {
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

    fn read_contents(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let (size, remaining) = match self.state {
            State::File { size, remaining } => (size, remaining),
            State::Failed => return Err(self.invalid(Reason::AfterError)),
            _ => return Ok(0),
        };
        let wanted = bounded(remaining, buf.len()).unwrap_or(buf.len());
        if wanted == 0 {
            return Ok(0);
        }
        let buf = &mut buf[..wanted];
        let read = if self.start == self.end && wanted >= DIRECT_READ_BYTES {
            let read = read_some(&mut self.source, buf)?;
            self.position += read as u64;
            read
        } else {
            if self.start == self.end {
                self.refill()?;
            }
            let read = wanted.min(self.end - self.start);
            buf[..read].copy_from_slice(&self.buffer[self.start..self.start + read]);
            self.consume(read);
            read
        };
        if read == 0 {
            return Err(Error::Truncated { offset: self.position });
        }
        self.state = State::File { size, remaining: remaining - read as u64 };
        Ok(read)
    }

    /// Passes over contents that nobody wants.
    fn skip(&mut self, mut len: u64) -> Result<(), Error> {
        while len > 0 {
            if self.start == self.end && self.refill()? == 0 {
                return Err(Error::Truncated { offset: self.position });
            }
            let available = self.end - self.start;
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
        match self.fill(literal.len()) {
            Ok(()) if self.unread().starts_with(literal) => {
                self.consume(literal.len());
                Ok(())
            }
            // Where the input ends too early, but is wrong before that, say the latter.
            Err(Error::Truncated { .. }) if !literal.starts_with(self.unread()) => {
                Err(self.mismatch(literal, reason))
            }
            Ok(()) => Err(self.mismatch(literal, reason)),
            Err(error) => Err(error),
        }
    }

    /// The error for bytes that are not the literal, at the first word that differs.
    fn mismatch(&self, literal: &[u8], reason: Reason) -> Error {
        let same = literal.iter().zip(self.unread()).take_while(|(a, b)| a == b).count();
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

    /// The next `len` bytes, at most [`BUFFER_BYTES`].
    fn peek(&mut self, len: usize) -> Result<&[u8], Error> {
        self.fill(len)?;
        Ok(&self.unread()[..len])
    }

    /// Reads until `len` bytes are there, at most [`BUFFER_BYTES`].
    fn fill(&mut self, len: usize) -> Result<(), Error> {
        while self.unread().len() < len {
            if self.refill()? == 0 {
                let offset = self.position + self.unread().len() as u64;
                return Err(Error::Truncated { offset });
            }
        }
        Ok(())
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    const fn consume(&mut self, len: usize) {
        self.start += len;
        self.position += len as u64;
    }

    /// Reads more behind the unread bytes, which it moves to the front; 0 at the end of the
    /// input. Only called when less than one string is unread, so there is room.
    fn refill(&mut self) -> Result<usize, Error> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let read = read_some(&mut self.source, &mut self.buffer[self.end..])?;
        self.end += read;
        Ok(read)
    }

    const fn invalid(&self, reason: Reason) -> Error {
        Error::Invalid { offset: self.position, reason }
    }
}

/// A length as `usize`, if it is not over a limit.
fn bounded(len: u64, limit: usize) -> Option<usize> {
    usize::try_from(len).ok().filter(|&len| len <= limit)
}

/// One read, repeated when a signal interrupts it.
fn read_some(source: &mut impl Read, buf: &mut [u8]) -> Result<usize, Error> {
    loop {
        match source.read(buf) {
            // A source that claims more than there was room for must not make us panic.
            Ok(read) => return Ok(read.min(buf.len())),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Io(error)),
        }
    }
}

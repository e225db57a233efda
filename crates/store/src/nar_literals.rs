//! The literals of a NAR, made while its tree is read.

use granary_nix_formats::nar;

/// Makes what a NAR has before, between and behind the contents of its files, for a batch that
/// may keep it together with these.
///
/// It holds what was written since it was last taken: if that is done wherever nodes end, names of
/// directories that are open, [`nar::MAX_DEPTH`] at most.
///
/// They are a hint. Of a tree that has no NAR there are none, from where it goes wrong on; that
/// it has none, somebody else says.
pub(crate) struct NarLiterals {
    writer: Option<nar::Writer<Vec<u8>>>,
}

impl Default for NarLiterals {
    fn default() -> Self {
        Self { writer: nar::Writer::new(Vec::new()).ok() }
    }
}

type Result = std::result::Result<(), nar::Error>;

impl NarLiterals {
    pub(crate) fn directory(&mut self) {
        self.write(nar::Writer::directory);
    }

    pub(crate) fn entry(&mut self, name: &[u8]) {
        self.write(|writer| writer.entry(name));
    }

    pub(crate) fn end_directory(&mut self) {
        self.write(nar::Writer::end_directory);
        self.end_node();
    }

    pub(crate) fn symlink(&mut self, target: &[u8]) {
        self.write(|writer| writer.symlink(target));
        self.end_node();
    }

    /// A file, up to its contents.
    pub(crate) fn file(&mut self, executable: bool, size_bytes: u64) {
        self.write(|writer| {
            writer.file_header(executable, size_bytes)?;
            writer.skip_file_data(size_bytes)
        });
    }

    /// The end of a file.
    pub(crate) fn end_file(&mut self) {
        self.write(nar::Writer::end_file);
        self.end_node();
    }

    /// Gives what was written since the last time to `take`.
    pub(crate) fn take<E>(
        &mut self,
        take: impl FnOnce(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let written = writer.get_mut();
        let taken = take(written);
        written.clear();
        taken
    }

    fn end_node(&mut self) {
        if self.writer.as_ref().is_some_and(nar::Writer::is_within_directory) {
            self.write(nar::Writer::end_entry);
        }
    }

    fn write(&mut self, write: impl FnOnce(&mut nar::Writer<Vec<u8>>) -> Result) {
        if let Some(writer) = &mut self.writer
            && write(writer).is_err()
        {
            self.writer = None;
        }
    }
}

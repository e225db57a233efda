//! A tree in memory, read from and written to NAR by the public API.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read},
};

use granary_nix_formats::nar::{Error, Event, Reader, Writer};

/// A tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tree {
    Directory(BTreeMap<Vec<u8>, Tree>),
    File { executable: bool, contents: Vec<u8> },
    Symlink(Vec<u8>),
}

impl Tree {
    /// Encodes the tree; contents are written in pieces of `piece` bytes.
    pub(crate) fn to_nar(&self, piece: usize) -> Result<Vec<u8>, Error> {
        let mut writer = Writer::new(Vec::new())?;
        self.write(&mut writer, piece)?;
        let len = writer.position();
        let nar = writer.finish()?;
        assert_eq!(len, nar.len() as u64);
        Ok(nar)
    }

    fn write(&self, writer: &mut Writer<Vec<u8>>, piece: usize) -> Result<(), Error> {
        match self {
            Self::Directory(entries) => {
                writer.directory()?;
                for (name, node) in entries {
                    writer.entry(name)?;
                    node.write(writer, piece)?;
                    writer.end_entry()?;
                }
                writer.end_directory()
            }
            Self::File { executable, contents } => {
                writer.file_header(*executable, contents.len() as u64)?;
                for data in contents.chunks(piece) {
                    writer.file_data(data)?;
                }
                writer.end_file()
            }
            Self::Symlink(target) => writer.symlink(target),
        }
    }

    /// Decodes a NAR to its end; contents are read in pieces of `piece` bytes.
    pub(crate) fn from_nar(source: impl BufRead, piece: usize) -> Result<Self, Error> {
        let mut reader = Reader::new(source);
        let event = reader.next()?.expect("a NAR has a root");
        let tree = Self::read(&mut reader, event, piece)?;
        assert_eq!(reader.next()?, None, "a NAR has one root");
        assert_eq!(reader.next()?, None, "and the end stays the end");
        reader.finish()?;
        Ok(tree)
    }

    fn read<R: BufRead>(reader: &mut Reader<R>, event: Event, piece: usize) -> Result<Self, Error> {
        match event {
            Event::Symlink { target } => Ok(Self::Symlink(target)),
            Event::File { executable, size } => {
                let mut contents = Vec::new();
                let mut buf = vec![0; piece];
                loop {
                    let read = reader.read_data(&mut buf)?;
                    if read == 0 {
                        break;
                    }
                    contents.extend_from_slice(&buf[..read]);
                }
                assert_eq!(contents.len() as u64, size);
                Ok(Self::File { executable, contents })
            }
            Event::Directory => {
                let mut entries = BTreeMap::new();
                loop {
                    match reader.next()? {
                        Some(Event::Entry { name }) => {
                            let node = reader.next()?.expect("an entry has a node");
                            entries.insert(name, Self::read(reader, node, piece)?);
                        }
                        Some(Event::EndDirectory) => return Ok(Self::Directory(entries)),
                        other => panic!("{other:?} in a directory"),
                    }
                }
            }
            Event::Entry { .. } | Event::EndDirectory => panic!("{event:?} where a node is due"),
        }
    }
}

/// A source that has at most so many bytes at hand, and is interrupted before each read.
pub(crate) fn slow(bytes: &[u8], at_once: usize) -> BufReader<Interrupted<'_>> {
    BufReader::with_capacity(at_once, Interrupted { bytes, interrupted: false })
}

#[derive(Debug)]
pub(crate) struct Interrupted<'a> {
    bytes: &'a [u8],
    interrupted: bool,
}

impl Read for Interrupted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.bytes.read(buf)
    }
}

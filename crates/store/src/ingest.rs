//! NARs into blobs and directories, in one pass.

use std::io::{self, Read};

use bytes::Bytes;
use granary_castore::{BlobDigest, Error, Node, WriteBatch};
use granary_nix_formats::nar;

use crate::{
    NarDigest, hashed_source::HashedSource, nar_literals::NarLiterals, tree_builder::TreeBuilder,
};

/// Files up to this size are read as a whole and added in one call; larger ones as they come.
pub const MAX_WHOLE_FILE_BYTES: usize = 1 << 20;

/// A tree that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestedNar {
    /// Its root.
    pub node: Node,
    /// Size and hash of its NAR.
    pub nar: NarDigest,
}

/// Why a NAR could not be read into a store.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// It is no NAR: whoever sent it is at fault.
    #[error("the input is not a valid NAR")]
    Malformed(#[source] nar::Error),
    /// Where it comes from failed.
    #[error("the NAR cannot be read")]
    Read(#[source] io::Error),
    /// The store failed, or a limit of it was passed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<nar::Error> for IngestError {
    fn from(error: nar::Error) -> Self {
        match error {
            nar::Error::Io(error) => match error.downcast::<Error>() {
                Ok(failure) => Self::Store(failure),
                Err(error) => Self::Read(error),
            },
            error => Self::Malformed(error),
        }
    }
}

/// Reads a NAR, which must end where `source` does, and adds what is in it to `batch`,
/// directories behind what is in them. The batch is left for the caller to commit.
///
/// Memory is bounded by [`MAX_WHOLE_FILE_BYTES`] and
/// [`MAX_OPEN_ENTRIES`](crate::MAX_OPEN_ENTRIES); the contents that the batch gets may keep ten
/// times their length for as long as it keeps them. `source` needs no buffer of its own.
///
/// # Errors
///
/// If the input is not a NAR or cannot be read, or the batch fails. The batch must then be
/// dropped.
pub fn ingest_nar(
    source: impl Read,
    batch: &mut dyn WriteBatch,
) -> Result<IngestedNar, IngestError> {
    let mut reader = nar::Reader::new(HashedSource::new(source));
    let mut tree = TreeBuilder::default();
    let mut literals = NarLiterals::default();
    while let Some(event) = reader.next()? {
        match event {
            nar::Event::Directory => {
                literals.directory();
                tree.directory();
            }
            nar::Event::Entry { name } => {
                literals.entry(&name);
                tree.entry(name)?;
            }
            nar::Event::EndDirectory => {
                literals.end_directory();
                literals.take(|literals| batch.put_literals(literals))?;
                tree.end_directory(batch)?;
            }
            nar::Event::Symlink { target } => {
                literals.symlink(&target);
                literals.take(|literals| batch.put_literals(literals))?;
                tree.symlink(target)?;
            }
            nar::Event::File { executable, size } => {
                literals.file(executable, size);
                literals.take(|literals| batch.put_literals(literals))?;
                tree.file(executable, size);
                tree.end_file(ingest_file(&mut reader, size, batch)?)?;
                literals.end_file();
            }
        }
    }
    let nar_size = reader.position();
    let nar = NarDigest { nar_size, nar_hash: reader.finish()?.finish()? };
    Ok(IngestedNar { node: tree.finish()?, nar })
}

/// Reads the contents of the file that `reader` is at.
fn ingest_file(
    reader: &mut nar::Reader<HashedSource<impl Read>>,
    size: u64,
    batch: &mut dyn WriteBatch,
) -> Result<BlobDigest, IngestError> {
    if let Ok(size) = usize::try_from(size)
        && size <= MAX_WHOLE_FILE_BYTES
    {
        return Ok(batch.put_blob(whole_file(reader, size)?)?);
    }
    loop {
        // It gives as many bytes as the file has, or an error.
        let data = reader.data()?;
        let len = data.len();
        if len == 0 {
            return Ok(batch.finish_blob()?);
        }
        batch.write(data)?;
        reader.consume_data(len);
    }
}

/// The contents of a file, copied only if they are not at hand in one piece.
fn whole_file(
    reader: &mut nar::Reader<HashedSource<impl Read>>,
    size: usize,
) -> Result<Bytes, nar::Error> {
    if reader.data()?.len() == size {
        let contents = reader.source().at_hand(size);
        reader.consume_data(size);
        return Ok(contents);
    }
    let mut contents = Vec::with_capacity(size);
    while contents.len() < size {
        let data = reader.data()?;
        let len = data.len();
        contents.extend_from_slice(data);
        reader.consume_data(len);
    }
    Ok(contents.into())
}

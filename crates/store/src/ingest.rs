//! NARs into blobs and directories, in one pass.

use std::io::{self, Read};

use granary_castore::{BlobDigest, Error, Node, WriteBatch};
use granary_nix_formats::nar;

use crate::{NarDigest, hashed_source::HashedSource, tree_builder::TreeBuilder};

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
/// [`MAX_OPEN_ENTRIES`](crate::MAX_OPEN_ENTRIES); what the batch gets lies in buffers of at most 2 MiB and 64 KiB, which
/// it may keep. `source` needs no buffer of its own.
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
    while let Some(event) = reader.next()? {
        match event {
            nar::Event::Directory => tree.directory(),
            nar::Event::Entry { name } => tree.entry(name)?,
            nar::Event::EndDirectory => tree.end_directory(batch)?,
            nar::Event::Symlink { target } => tree.symlink(target)?,
            nar::Event::File { executable, size } => {
                put_literals(&mut reader, batch)?;
                tree.file(executable, size);
                tree.end_file(ingest_file(&mut reader, size, batch)?)?;
            }
        }
        // There may be nothing but literals for long.
        if reader.source().keeps_pieces() {
            put_literals(&mut reader, batch)?;
        }
    }
    put_literals(&mut reader, batch)?;
    let nar_size = reader.position();
    let nar = NarDigest { nar_size, nar_hash: reader.finish()?.finish()? };
    Ok(IngestedNar { node: tree.finish()?, nar })
}

/// Tells the batch what lies between the last contents and what comes next.
fn put_literals(
    reader: &mut nar::Reader<HashedSource<impl Read>>,
    batch: &mut dyn WriteBatch,
) -> granary_castore::Result<()> {
    reader.source_mut().give(|piece, range| batch.put_literals_within(piece, range))
}

/// Reads the contents of the file that `reader` is at.
fn ingest_file(
    reader: &mut nar::Reader<HashedSource<impl Read>>,
    size: u64,
    batch: &mut dyn WriteBatch,
) -> Result<BlobDigest, IngestError> {
    if let Ok(size) = usize::try_from(size)
        && size <= MAX_WHOLE_FILE_BYTES
        && let Some((piece, range)) = reader.source_mut().in_one_piece(size)
    {
        let digest = batch.put_blob_within(piece, range)?;
        pass_over(reader, size);
        return Ok(digest);
    }
    loop {
        // It gives as many bytes as the file has, or an error.
        let data = reader.data()?;
        let len = data.len();
        if len == 0 {
            return Ok(batch.finish_blob()?);
        }
        batch.write(data)?;
        pass_over(reader, len);
    }
}

/// Goes on behind contents that the batch has.
fn pass_over(reader: &mut nar::Reader<HashedSource<impl Read>>, len: usize) {
    reader.consume_data(len);
    reader.source_mut().pass_over();
}

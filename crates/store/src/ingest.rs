//! NARs into blobs and directories, in one pass.

use std::io::{self, Read};

use bytes::Bytes;
use granary_castore::{BlobDigest, Error, Node, WriteBatch};
use granary_nix_formats::nar;

use crate::{NarDigest, nar_hasher::NarHasher, tree_builder::TreeBuilder};

/// Files up to this size are read as a whole and added in one call; larger ones go through
/// a buffer.
pub const MAX_WHOLE_FILE_BYTES: usize = 1 << 20;

/// Size of the buffer that larger files go through.
const COPY_BUFFER_BYTES: usize = 256 << 10;

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
/// [`MAX_OPEN_ENTRIES`](crate::MAX_OPEN_ENTRIES). `source` needs no buffer of its own.
///
/// # Errors
///
/// If the input is not a NAR or cannot be read, or the batch fails. The batch must then be
/// dropped.
pub fn ingest_nar(
    source: impl Read,
    batch: &mut dyn WriteBatch,
) -> Result<IngestedNar, IngestError> {
    let mut reader = nar::Reader::new(HashingReader { source, hasher: NarHasher::default() });
    let mut tree = TreeBuilder::default();
    let mut buffer = Vec::new();
    while let Some(event) = reader.next()? {
        match event {
            nar::Event::Directory => tree.directory(),
            nar::Event::Entry { name } => tree.entry(name)?,
            nar::Event::EndDirectory => tree.end_directory(batch)?,
            nar::Event::Symlink { target } => tree.symlink(target, batch)?,
            nar::Event::File { executable, size } => {
                tree.file(executable, size, batch)?;
                tree.end_file(ingest_file(&mut reader, size, batch, &mut buffer)?)?;
            }
        }
    }
    let nar_size = reader.position();
    let HashingReader { hasher, .. } = reader.finish()?;
    let nar = NarDigest { nar_size, nar_hash: hasher.finish()? };
    Ok(IngestedNar { node: tree.finish()?, nar })
}

/// Reads the contents of the file that `reader` is at.
fn ingest_file(
    reader: &mut nar::Reader<impl Read>,
    size: u64,
    batch: &mut dyn WriteBatch,
    buffer: &mut Vec<u8>,
) -> Result<BlobDigest, IngestError> {
    if let Ok(size) = usize::try_from(size)
        && size <= MAX_WHOLE_FILE_BYTES
    {
        let mut contents = vec![0; size];
        let mut filled = 0;
        while filled < size {
            filled += reader.read_data(&mut contents[filled..])?;
        }
        return Ok(batch.put_blob(Bytes::from(contents))?);
    }
    buffer.resize(COPY_BUFFER_BYTES, 0);
    loop {
        // It gives as many bytes as the file has, or an error.
        let read = reader.read_data(buffer)?;
        if read == 0 {
            return Ok(batch.finish_blob()?);
        }
        batch.write(&buffer[..read])?;
    }
}

/// Hashes what is read through it.
struct HashingReader<R> {
    source: R,
    hasher: NarHasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buf)?.min(buf.len());
        // Comes back in `IngestError::from`.
        self.hasher.update(&buf[..read]).map_err(io::Error::other)?;
        Ok(read)
    }
}

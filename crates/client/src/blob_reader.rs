//! Open blobs.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use granary_castore::{BlobDigest, BlobReader, ChunkDigest, ChunkMeta, Error, Result};

use crate::{
    blob_stream::BlobStream,
    client::{Client, Connection},
    limits::{MAX_CHUNK_BYTES, MAX_WHOLE_BYTES},
};

/// Opens a blob of which the server has listed these chunks; `None` if it is gone.
pub(crate) fn open(
    client: &Client,
    digest: BlobDigest,
    chunks: Vec<ChunkMeta>,
) -> Result<Option<Box<dyn BlobReader>>> {
    let is_usable = |chunk: &ChunkMeta| (1..=MAX_CHUNK_BYTES).contains(&chunk.size_bytes);
    if !chunks.is_empty() && chunks.iter().all(is_usable) {
        let connection = Arc::clone(&client.connection);
        return Ok(Some(Box::new(ChunkedReader::new(connection, digest, chunks)?)));
    }
    let Some(mut stream) = BlobStream::open(&client.connection, digest)? else { return Ok(None) };
    let mut whole = BytesMut::new();
    while whole.len() <= MAX_WHOLE_BYTES {
        match stream.next()? {
            Some(data) => whole.extend_from_slice(&data),
            None => return Ok(Some(Box::new(WholeReader(whole.freeze())))),
        }
    }
    drop(stream);
    let Some(size_bytes) = client.unlisted_size(&digest)? else { return Ok(None) };
    let connection = Arc::clone(&client.connection);
    Ok(Some(Box::new(StreamedReader { connection, digest, size_bytes, stream: None })))
}

/// The length of a blob of these chunks.
pub(crate) fn total_size(digest: &BlobDigest, chunks: &[ChunkMeta]) -> Result<u64> {
    let total = chunks.iter().try_fold(0_u64, |sum, chunk| sum.checked_add(chunk.size_bytes));
    total.ok_or_else(|| Error::corrupt(format!("the chunks of blob {digest} pass a u64 of bytes")))
}

/// Up to `max_bytes` of `bytes`, which begin at `start` of the blob, from `offset` on.
fn part(bytes: &Bytes, start: u64, offset: u64, max_bytes: usize) -> Bytes {
    let from = usize::try_from(offset - start).unwrap_or(usize::MAX).min(bytes.len());
    let to = from.saturating_add(max_bytes).min(bytes.len());
    bytes.slice(from..to)
}

/// A blob that is here as a whole.
struct WholeReader(Bytes);

impl BlobReader for WholeReader {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&mut self, offset: u64, max_bytes: usize) -> Result<Bytes> {
        Ok(part(&self.0, 0, offset, max_bytes))
    }
}

/// A blob with known chunks. In order it is read as one stream that is checked chunk by
/// chunk; elsewhere a chunk is read by its own digest.
struct ChunkedReader {
    connection: Arc<Connection>,
    digest: BlobDigest,
    chunks: Vec<ChunkMeta>,
    /// Where each chunk ends.
    ends: Vec<u64>,
    /// The chunk that was read last, and its place.
    current: Option<(usize, Bytes)>,
    sequence: Option<Sequence>,
}

/// The stream of the whole blob.
struct Sequence {
    stream: BlobStream,
    /// Place of the chunk that begins with `rest`.
    next: usize,
    /// Came, but belongs to the next chunk: at most a message.
    rest: BytesMut,
}

impl ChunkedReader {
    fn new(
        connection: Arc<Connection>,
        digest: BlobDigest,
        chunks: Vec<ChunkMeta>,
    ) -> Result<Self> {
        total_size(&digest, &chunks)?;
        let ends = chunks.iter().scan(0, |end, chunk| {
            *end += chunk.size_bytes;
            Some(*end)
        });
        let ends = ends.collect();
        Ok(Self { connection, digest, chunks, ends, current: None, sequence: None })
    }

    /// The chunk at `index`, checked.
    fn chunk(&mut self, index: usize) -> Result<Bytes> {
        if let Some((current, bytes)) = &self.current
            && *current == index
        {
            return Ok(bytes.clone());
        }
        let in_sequence = self.sequence.as_ref().is_some_and(|sequence| sequence.next == index);
        if !in_sequence {
            self.sequence = None;
        }
        if index == 0 {
            let stream = BlobStream::open(&self.connection, self.digest)?;
            let stream = stream.ok_or_else(|| self.gone(&self.digest))?;
            self.sequence = Some(Sequence { stream, next: 0, rest: BytesMut::new() });
        }
        let bytes = match self.sequence.take() {
            Some(sequence) => self.next_in_sequence(sequence, index)?,
            None => self.single(&self.chunks[index])?,
        };
        self.current = Some((index, bytes.clone()));
        Ok(bytes)
    }

    fn next_in_sequence(&mut self, mut sequence: Sequence, index: usize) -> Result<Bytes> {
        let ChunkMeta { digest, size_bytes } = self.chunks[index];
        let len = usize::try_from(size_bytes).unwrap_or(usize::MAX);
        while sequence.rest.len() < len {
            let data = sequence.stream.next()?.ok_or_else(|| self.other_size())?;
            sequence.rest.extend_from_slice(&data);
        }
        let bytes = sequence.rest.split_to(len).freeze();
        let actual = ChunkDigest::of(&bytes);
        if actual != digest {
            let Self { digest: blob, connection, .. } = self;
            return Err(Error::corrupt(format!(
                "{} sent bytes for chunk {digest} of blob {blob} that have digest {actual}",
                connection.url
            )));
        }
        if index + 1 < self.chunks.len() {
            sequence.next = index + 1;
            self.sequence = Some(sequence);
        } else if !sequence.rest.is_empty() || sequence.stream.next()?.is_some() {
            return Err(self.other_size());
        }
        Ok(bytes)
    }

    /// A chunk by itself.
    fn single(&self, chunk: &ChunkMeta) -> Result<Bytes> {
        let digest = BlobDigest::from(chunk.digest);
        let mut stream =
            BlobStream::open(&self.connection, digest)?.ok_or_else(|| self.gone(&digest))?;
        let mut bytes = BytesMut::new();
        while let Some(data) = stream.next()? {
            bytes.extend_from_slice(&data);
            if bytes.len() as u64 > chunk.size_bytes {
                return Err(self.other_size());
            }
        }
        if (bytes.len() as u64) < chunk.size_bytes {
            return Err(self.other_size());
        }
        Ok(bytes.freeze())
    }

    fn gone(&self, digest: &BlobDigest) -> Error {
        let Self { digest: blob, connection, .. } = self;
        Error::corrupt(format!("{} no longer has {digest}, a part of blob {blob}", connection.url))
    }

    fn other_size(&self) -> Error {
        let Self { digest, connection, .. } = self;
        Error::corrupt(format!(
            "{} sent more or fewer bytes for blob {digest} than its chunks have",
            connection.url
        ))
    }
}

impl BlobReader for ChunkedReader {
    fn size_bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    fn read_at(&mut self, offset: u64, max_bytes: usize) -> Result<Bytes> {
        if offset >= self.size_bytes() {
            return Ok(Bytes::new());
        }
        let index = self.ends.partition_point(|end| *end <= offset);
        let start = self.ends[index] - self.chunks[index].size_bytes;
        Ok(part(&self.chunk(index)?, start, offset, max_bytes))
    }
}

/// A large blob without known chunks: read from its beginning, again if need be.
struct StreamedReader {
    connection: Arc<Connection>,
    digest: BlobDigest,
    size_bytes: u64,
    /// The stream, and the bytes that came last.
    stream: Option<(BlobStream, Bytes)>,
}

impl StreamedReader {
    /// Bytes from `offset` on and where they begin.
    fn advance(&mut self, offset: u64) -> Result<(u64, Bytes)> {
        let (mut stream, mut current) = match self.stream.take() {
            Some((stream, current)) if offset >= stream.position() - current.len() as u64 => {
                (stream, current)
            }
            // Behind us: once more from the beginning.
            _ => {
                let stream = BlobStream::open(&self.connection, self.digest)?;
                (stream.ok_or_else(|| self.other_size())?, Bytes::new())
            }
        };
        while stream.position() <= offset {
            current = stream.next()?.ok_or_else(|| self.other_size())?;
            // Nothing of the last bytes goes out before the whole is checked.
            let is_last = stream.position() >= self.size_bytes;
            if is_last && (stream.position() > self.size_bytes || stream.next()?.is_some()) {
                return Err(self.other_size());
            }
        }
        let start = stream.position() - current.len() as u64;
        self.stream = Some((stream, current.clone()));
        Ok((start, current))
    }

    fn other_size(&self) -> Error {
        let Self { connection, digest, size_bytes, .. } = self;
        Error::corrupt(format!(
            "{} said that blob {digest} has {size_bytes} bytes and sent another number",
            connection.url
        ))
    }
}

impl BlobReader for StreamedReader {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&mut self, offset: u64, max_bytes: usize) -> Result<Bytes> {
        if offset >= self.size_bytes {
            return Ok(Bytes::new());
        }
        let (start, bytes) = self.advance(offset)?;
        Ok(part(&bytes, start, offset, max_bytes))
    }
}

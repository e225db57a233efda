//! Plans of NARs: what a NAR is made of, worked out once, then read at any offset.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use granary_castore::{BlobDigest, BlobService, DirectoryService, Error, Node, Result};
use granary_nix_formats::{NarHash, nar};
use sha2::{Digest, Sha256};

use crate::{
    NarDigest,
    nar_cursor::{NarCursor, PartError},
    tree_walk::{self, Visitor},
};

/// Most bytes that one plan may take in memory: about 1.5 million files.
pub const MAX_PLAN_BYTES: usize = 512 << 20;

/// How much is gathered before it is written to a sink.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// What the NAR of one node consists of: literal bytes (names, types, padding) and the
/// contents of blobs between them, each at its offset.
///
/// A plan is made from directories alone and holds no contents, so it says nothing of
/// whether the blobs are stored. It stays valid for ever, since the node names it all by
/// digest.
#[derive(Debug)]
pub struct NarPlan {
    pub(crate) id: Option<u64>,
    /// All literal bytes, those between blobs joined.
    pub(crate) literals: Bytes,
    /// In order of offset, none of them empty.
    pub(crate) blobs: Vec<PlannedBlob>,
    pub(crate) nar_size: u64,
}

/// Identifies the next plan.
static NEXT_PLAN: AtomicU64 = AtomicU64::new(0);

/// A file's contents within a NAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedBlob {
    /// Where in the NAR they begin, in bytes.
    pub nar_offset: u64,
    /// Their length in bytes; not 0.
    pub size_bytes: u64,
    /// Which blob they are.
    pub digest: BlobDigest,
    /// How many literal bytes the NAR has before them.
    pub(crate) literals_before: usize,
}

/// Why a NAR could not be written out.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// Where it was written to failed.
    #[error("the NAR cannot be written out")]
    Sink(#[source] io::Error),
    /// The store failed, or the contents are not all there.
    #[error(transparent)]
    Store(#[from] Error),
}

impl NarPlan {
    /// A plan of the contents of one blob with nothing around them, so that what reads NARs
    /// reads them too. Whether the blob is stored, and has that length, is found out then.
    pub fn of_blob(digest: BlobDigest, size_bytes: u64) -> Self {
        let blob = PlannedBlob { nar_offset: 0, size_bytes, digest, literals_before: 0 };
        let blobs = if size_bytes == 0 { Vec::new() } else { vec![blob] };
        Self::of_parts(Bytes::new(), blobs, size_bytes)
    }

    pub(crate) fn of_parts(literals: Bytes, blobs: Vec<PlannedBlob>, nar_size: u64) -> Self {
        let id = Some(NEXT_PLAN.fetch_add(1, Ordering::Relaxed));
        Self { id, literals, blobs, nar_size }
    }

    /// The same, to be read once: nothing that is found out about it is worth keeping.
    #[must_use]
    pub fn for_once(self) -> Self {
        Self { id: None, ..self }
    }

    /// Tells it from every other plan that was made since the process began; `None` if it is to
    /// be read once.
    pub fn id(&self) -> Option<u64> {
        self.id
    }

    /// Plans the NAR of `root`. `None` if a directory, the root or one below it, is not
    /// stored: then the contents do not resolve, now.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if the tree passes [`MAX_PLAN_BYTES`],
    /// [`MAX_TREE_ENTRIES`](crate::MAX_TREE_ENTRIES) or [`nar::MAX_DEPTH`];
    /// [`Error::Invalid`] if `root` claims another size than the directory has; or whatever
    /// the service fails with.
    pub fn new(directories: &dyn DirectoryService, root: &Node) -> Result<Option<Self>> {
        let mut planner = Planner {
            writer: nar::Writer::new(Vec::new()).map_err(plan_error)?,
            blobs: Vec::new(),
        };
        if !tree_walk::walk(directories, root, &mut planner)? {
            return Ok(None);
        }
        let nar_size = planner.writer.position();
        let mut literals = planner.writer.finish().map_err(plan_error)?;
        literals.shrink_to_fit();
        planner.blobs.shrink_to_fit();
        Ok(Some(Self::of_parts(literals.into(), planner.blobs, nar_size)))
    }

    /// Length of the NAR in bytes.
    pub fn nar_size(&self) -> u64 {
        self.nar_size
    }

    /// The blobs in the order of the NAR, empty ones left out. One that several files share
    /// comes several times.
    pub fn blobs(&self) -> impl ExactSizeIterator<Item = &PlannedBlob> {
        self.blobs.iter()
    }

    /// How much memory the plan takes, about.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.literals.len() + size_of_val(&self.blobs[..])
    }

    /// Writes the whole NAR to `sink`, in large pieces, and flushes it. Blobs are opened in the
    /// order of the plan.
    ///
    /// # Errors
    ///
    /// If the sink fails; [`Error::Corrupt`] if a blob is missing, damaged or of another size
    /// than planned; or whatever the service fails with.
    pub fn write_to(&self, blobs: &dyn BlobService, sink: impl Write) -> Result<(), RenderError> {
        let mut sink = io::BufWriter::with_capacity(WRITE_BUFFER_BYTES, sink);
        let mut cursor = NarCursor::new(self, 0..self.nar_size);
        while let Some(part) = cursor.next(blobs, u64::MAX).map_err(Error::from)? {
            sink.write_all(&part.read(self)?).map_err(RenderError::Sink)?;
        }
        sink.flush().map_err(RenderError::Sink)
    }

    /// Size and SHA-256 of the NAR, by reading all of it; `None` if a blob is not stored.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a blob is damaged or of another size than planned; or whatever
    /// the service fails with.
    pub fn digest(&self, blobs: &dyn BlobService) -> Result<Option<NarDigest>> {
        let mut hasher = Sha256::new();
        let mut cursor = NarCursor::new(self, 0..self.nar_size);
        loop {
            match cursor.next(blobs, u64::MAX) {
                Ok(Some(part)) => hasher.update(&part.read(self)?),
                Ok(None) => break,
                Err(PartError::Missing(_)) => return Ok(None),
                Err(PartError::Store(error)) => return Err(error),
            }
        }
        let nar_hash = NarHash::from_bytes(hasher.finalize().into());
        Ok(Some(NarDigest { nar_size: self.nar_size, nar_hash }))
    }
}

/// Lets the NAR writer produce the literals, and notes where the blobs go.
struct Planner {
    writer: nar::Writer<Vec<u8>>,
    blobs: Vec<PlannedBlob>,
}

impl Planner {
    fn check_size(&self) -> Result<()> {
        let bytes = self.writer.get_ref().len() + size_of_val(&self.blobs[..]);
        if bytes > MAX_PLAN_BYTES {
            return Err(Error::too_large(format!(
                "the NAR needs a plan of more than {MAX_PLAN_BYTES} bytes, the limit"
            )));
        }
        if self.writer.position() > nar::MAX_FILE_BYTES {
            return Err(Error::too_large(format!(
                "the NAR has more than {} bytes, the limit",
                nar::MAX_FILE_BYTES
            )));
        }
        Ok(())
    }
}

impl Visitor for Planner {
    fn directory(&mut self) -> Result<()> {
        self.writer.directory().map_err(plan_error)
    }

    fn entry(&mut self, name: &[u8]) -> Result<()> {
        self.check_size()?;
        self.writer.entry(name).map_err(plan_error)
    }

    fn end_entry(&mut self) -> Result<()> {
        self.writer.end_entry().map_err(plan_error)
    }

    fn end_directory(&mut self) -> Result<()> {
        self.writer.end_directory().map_err(plan_error)
    }

    fn file(&mut self, digest: &BlobDigest, size_bytes: u64, executable: bool) -> Result<()> {
        self.writer.file_header(executable, size_bytes).map_err(plan_error)?;
        if size_bytes > 0 {
            let nar_offset = self.writer.position();
            let literals_before = self.writer.get_ref().len();
            let digest = *digest;
            self.blobs.push(PlannedBlob { nar_offset, size_bytes, digest, literals_before });
            self.writer.skip_file_data(size_bytes).map_err(plan_error)?;
        }
        self.writer.end_file().map_err(plan_error)?;
        self.check_size()
    }

    fn symlink(&mut self, target: &[u8]) -> Result<()> {
        self.writer.symlink(target).map_err(plan_error)
    }
}

/// What the NAR format cannot hold.
fn plan_error(error: nar::Error) -> Error {
    let too_large = matches!(
        error,
        nar::Error::Invalid { reason: nar::Reason::TooDeep | nar::Reason::FileTooLarge { .. }, .. }
    );
    let message = "the tree has no NAR";
    if too_large { Error::too_large(message) } else { Error::corrupt(message) }.because(error)
}

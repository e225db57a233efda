//! Writing: objects that become durable together.

use std::{any::Any, ops::Range};

use bytes::Bytes;

use crate::{
    blob::BlobService,
    collect::Hold,
    digest::{BlobDigest, DirectoryDigest},
    directory::{Directory, DirectoryService},
    error::Result,
    root::Root,
};

/// A store of blobs and directories that can be written to.
pub trait Castore: BlobService + DirectoryService {
    /// Starts a batch of writes.
    ///
    /// # Errors
    ///
    /// If the store takes no writes now.
    fn batch(&self) -> Result<Box<dyn WriteBatch>>;

    /// Keeps what is written, found or touched from now on from being collected, for as long as
    /// the hold lasts. A batch has one of its own, which ends with it: whoever writes a record
    /// behind a batch takes a hold before it.
    ///
    /// A store that never collects has nothing to keep.
    fn hold(&self) -> Hold {
        Hold::none()
    }

    /// Whether `root` itself is stored; and if so, it and all that it refers to stay for as long
    /// as `touch` says.
    ///
    /// # Errors
    ///
    /// If the store cannot tell.
    fn touch(&self, root: &Root, _touch: Touch) -> Result<bool> {
        match root {
            Root::Blob(digest) => Ok(self.stat(digest)?.is_some()),
            Root::Directory(digest) => Ok(self.directory(digest)?.is_some()),
        }
    }
}

/// For how long what was [touched](Castore::touch) stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// For as long as a [hold](Castore::hold) lasts that was taken before.
    Hold,
    /// For the time of a lease, unless the store is closed before: a client was told that it is
    /// stored, and may rely on that without saying so.
    Lease,
}

/// Does work that a [batch](WriteBatch::helpers) leaves to others, on one thread. Whatever order that is
/// done in, and beside what else, it comes to the same.
pub trait BatchHelper: Send {
    /// How many parts of it wait, of this batch's.
    fn waiting(&self) -> usize;

    /// Does one, if possible one that came from the calling thread; false if none waits. Should it fail, then the
    /// batch does.
    fn help(&mut self) -> bool;
}

/// Blobs and directories on their way into a store.
///
/// The digests come back at once; the objects are promised only when
/// [`commit`](Self::commit) returns. A batch that is dropped instead promises nothing, and
/// a blob that was begun but not finished in it never becomes visible.
///
/// A batch may do its work in the background, so that an error can surface in a later call
/// than the one that caused it. After an error the batch is of no more use.
pub trait WriteBatch: Send + Any {
    /// Adds a blob that is in memory as a whole. It may be kept there for a while: if it is a
    /// small part of a larger buffer, a copy takes less.
    ///
    /// # Errors
    ///
    /// If the batch has failed. While a blob is being [written](Self::write) this is
    /// [`Error::Invalid`](crate::Error::Invalid).
    fn put_blob(&mut self, contents: Bytes) -> Result<BlobDigest>;

    /// Adds a blob that lies at `range` of `archive`, a piece of an archive in memory that has other
    /// blobs and what lies between them beside it. A store may keep all of it for a while, to do
    /// without a copy; one that does not know how long that will be copies the blob.
    ///
    /// # Errors
    ///
    /// As [`put_blob`](Self::put_blob).
    ///
    /// # Panics
    ///
    /// If `archive` has no such range.
    fn put_blob_within(&mut self, archive: &Bytes, range: Range<usize>) -> Result<BlobDigest> {
        self.put_blob(Bytes::copy_from_slice(&archive[range]))
    }

    /// Appends to the blob being written, beginning one if there is none. How the contents
    /// are cut into calls has no effect on what is stored.
    ///
    /// # Errors
    ///
    /// If the batch has failed.
    fn write(&mut self, data: &[u8]) -> Result<()>;

    /// Ends the blob being written; without a [`write`](Self::write) before it, that is
    /// the empty blob.
    ///
    /// # Errors
    ///
    /// If the batch has failed.
    fn finish_blob(&mut self) -> Result<BlobDigest>;

    /// Says that `bytes` will be read between the blob before and the one behind this, where
    /// blobs are read as parts of an archive. Several calls add up. Of no effect on what is
    /// stored; but a store may keep blobs together with what lies between them, and then hand
    /// out all of it at once.
    ///
    /// # Errors
    ///
    /// If the batch has failed.
    fn put_literals(&mut self, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    /// As [`put_literals`](Self::put_literals), with what lies at `range` of `archive`, as blobs that
    /// are [added](Self::put_blob_within) before and behind it do.
    ///
    /// # Errors
    ///
    /// If the batch has failed.
    ///
    /// # Panics
    ///
    /// If `archive` has no such range.
    fn put_literals_within(&mut self, archive: &Bytes, range: Range<usize>) -> Result<()> {
        self.put_literals(&archive[range])
    }

    /// Adds a directory. What it refers to need not be there.
    ///
    /// # Errors
    ///
    /// If the batch has failed.
    fn put_directory(&mut self, directory: &Directory) -> Result<DirectoryDigest>;

    /// Keeps `root` for the time of a lease once the batch is committed, although no record
    /// leads to it yet; durably. A store that never collects keeps it anyway.
    ///
    /// # Errors
    ///
    /// If the batch has failed.
    fn lease(&mut self, _root: &Root) -> Result<()> {
        Ok(())
    }

    /// Has the batch leave work to those who fill it, and makes a helper for each of `threads`
    /// threads, which is to be used when there is nothing better to do; none if there is no work to leave. In the
    /// background, as all of it is otherwise, is done what there is no room for, what is left when the last
    /// helper is dropped, and what the batch waits for, as it does to commit.
    ///
    /// # Errors
    ///
    /// If memory is short.
    fn helpers(&mut self, _threads: usize) -> Result<Vec<Box<dyn BatchHelper>>> {
        Ok(Vec::new())
    }

    /// Makes everything in the batch durable and visible, and returns when it is.
    ///
    /// # Errors
    ///
    /// If it could not be made durable: then nothing is promised, although single objects
    /// of the batch may be there. While a blob is being [written](Self::write) this is
    /// [`Error::Invalid`](crate::Error::Invalid).
    fn commit(self: Box<Self>) -> Result<()>;
}

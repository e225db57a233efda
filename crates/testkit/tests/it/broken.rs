//! The suites fail, and say which check did, on a store that does not keep its promises.

use std::{
    panic::catch_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use granary_castore::{
    BlobDigest, BlobReader, BlobService, BlobStat, Castore, ChunkMeta, Directory, DirectoryDigest,
    DirectoryService, MemoryStore, Result, WriteBatch,
};

/// What a [`Broken`] store does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Reads past a mebibyte give a wrong byte.
    WrongByte,
    /// Blobs are one byte longer than they are.
    WrongSize,
    /// Every second batch is lost.
    LostBatch,
    /// A closure comes back to front.
    WrongOrder,
    /// Batches are visible before they are committed.
    CommitsWhenDropped,
}

struct Broken {
    fault: Fault,
    memory: MemoryStore,
    every_second: AtomicBool,
}

impl BlobService for Broken {
    fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>> {
        let added = u64::from(self.fault == Fault::WrongSize);
        let stat = self.memory.stat(digest)?;
        Ok(stat.map(|stat| BlobStat { size_bytes: stat.size_bytes + added }))
    }

    fn chunks(&self, digest: &BlobDigest, max_chunks: usize) -> Result<Option<Vec<ChunkMeta>>> {
        self.memory.chunks(digest, max_chunks)
    }

    fn open(&self, digest: &BlobDigest) -> Result<Option<Box<dyn BlobReader>>> {
        let Some(reader) = self.memory.open(digest)? else { return Ok(None) };
        let is_wrong = self.fault == Fault::WrongByte;
        Ok(Some(if is_wrong { Box::new(WrongReader(reader)) } else { reader }))
    }
}

struct WrongReader(Box<dyn BlobReader>);

impl BlobReader for WrongReader {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn read_at(&mut self, offset: u64, max_bytes: usize) -> Result<Bytes> {
        let mut bytes = self.0.read_at(offset, max_bytes)?.to_vec();
        if offset >= 1 << 20
            && let Some(first) = bytes.first_mut()
        {
            *first ^= 1;
        }
        Ok(bytes.into())
    }
}

impl DirectoryService for Broken {
    fn directory(&self, digest: &DirectoryDigest) -> Result<Option<Directory>> {
        self.memory.directory(digest)
    }

    fn closure<'a>(
        &'a self,
        digest: &DirectoryDigest,
    ) -> Box<dyn Iterator<Item = Result<Directory>> + Send + 'a> {
        let closure = self.memory.closure(digest);
        if self.fault == Fault::WrongOrder {
            let mut all: Vec<_> = closure.collect();
            all.reverse();
            return Box::new(all.into_iter());
        }
        closure
    }
}

impl Castore for Broken {
    fn batch(&self) -> Result<Box<dyn WriteBatch>> {
        let is_second = self.every_second.fetch_not(Ordering::Relaxed);
        match self.fault {
            Fault::LostBatch if is_second => MemoryStore::default().batch(),
            Fault::CommitsWhenDropped => {
                Ok(Box::new(Eager { store: self.memory.clone(), written: Vec::new() }))
            }
            _ => self.memory.batch(),
        }
    }
}

/// Takes a blob for ended when the batch is.
struct Eager {
    store: MemoryStore,
    written: Vec<u8>,
}

impl WriteBatch for Eager {
    fn put_blob(&mut self, contents: Bytes) -> Result<BlobDigest> {
        let mut batch = self.store.batch()?;
        let digest = batch.put_blob(contents)?;
        batch.commit().map(|()| digest)
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.written.extend_from_slice(data);
        Ok(())
    }

    fn finish_blob(&mut self) -> Result<BlobDigest> {
        let contents = std::mem::take(&mut self.written);
        self.put_blob(contents.into())
    }

    fn put_directory(&mut self, directory: &Directory) -> Result<DirectoryDigest> {
        let mut batch = self.store.batch()?;
        let digest = batch.put_directory(directory)?;
        batch.commit().map(|()| digest)
    }

    fn commit(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Drop for Eager {
    fn drop(&mut self) {
        self.finish_blob().expect("memory takes all");
    }
}

type Suite = fn(&dyn Fn() -> Arc<dyn Castore>);

/// What the suites say of a store with that fault.
fn complaints(fault: Fault) -> String {
    let make = move || -> Arc<dyn Castore> {
        let memory = MemoryStore::default();
        Arc::new(Broken { fault, memory, every_second: AtomicBool::new(false) })
    };
    let suites: [Suite; 2] =
        [granary_testkit::blob_service::run, granary_testkit::directory_service::run];
    let complaints = suites.map(|run| {
        let panic = catch_unwind(|| run(&make)).err();
        panic.and_then(|panic| panic.downcast::<String>().ok()).map_or(String::new(), |text| *text)
    });
    complaints.concat()
}

#[test]
fn every_fault_is_found_and_named() {
    for (fault, named) in [
        (Fault::WrongByte, "blob_service::random_parts"),
        (Fault::WrongSize, "blob_service::contents_come_back"),
        (Fault::LostBatch, "blob_service::several_writers"),
        (Fault::WrongOrder, "directory_service::closure_order"),
        (Fault::CommitsWhenDropped, "blob_service::unfinished"),
    ] {
        let said = complaints(fault);
        assert!(said.contains(named), "{fault:?} should be found by {named}, but: {said}");
    }
}

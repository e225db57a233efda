//! The file system of the operating system.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    buffer::spare_capacity,
    io::{Errno, pread},
};
#[cfg(target_os = "linux")]
use {
    rustix::io::{ReadWriteFlags, preadv2},
    std::io::IoSliceMut,
};

use super::{
    Disk, DiskError, DiskFile, DiskResult,
    direct::{self, MIN_DIRECT_BYTES},
};

/// A data directory on the file system.
#[derive(Debug, Clone)]
pub struct OsDisk {
    root: PathBuf,
}

impl OsDisk {
    /// The directory `root`, which need not be there yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.root.clone() } else { self.root.join(name) }
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError + use<> {
    let name = path.display().to_string();
    move |cause| DiskError { operation, name, cause }
}

impl Disk for OsDisk {
    fn create_dir(&self, name: &str) -> DiskResult<()> {
        let path = self.path(name);
        let make = || {
            if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
                std::fs::create_dir_all(parent)?;
            }
            // What is stored, and the id of the store, are nobody else's business.
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                    Ok(())
                }
                made => made,
            }
        };
        make().map_err(failed("make the directory", &path))
    }

    fn list(&self, dir: &str) -> DiskResult<Vec<String>> {
        let path = self.path(dir);
        let list = || -> io::Result<Vec<String>> {
            std::fs::read_dir(&path)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        };
        list().map_err(failed("list the directory", &path))
    }

    fn create(&self, name: &str) -> DiskResult<Arc<dyn DiskFile>> {
        let path = self.path(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(failed("create", &path))?;
        Ok(Arc::new(OsFile { file, path }))
    }

    fn open(&self, name: &str) -> DiskResult<Option<Arc<dyn DiskFile>>> {
        let path = self.path(name);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(Some(Arc::new(OsFile { file, path }))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("open", &path)(error)),
        }
    }

    fn rename(&self, from: &str, to: &str) -> DiskResult<()> {
        let (from, to) = (self.path(from), self.path(to));
        std::fs::rename(&from, to).map_err(failed("rename", &from))
    }

    fn remove(&self, name: &str) -> DiskResult<()> {
        let path = self.path(name);
        std::fs::remove_file(&path).map_err(failed("remove", &path))
    }

    fn sync_dir(&self, dir: &str) -> DiskResult<()> {
        let path = self.path(dir);
        File::open(&path)
            .and_then(|dir| dir.sync_all())
            .map_err(failed("sync the directory", &path))
    }
}

#[derive(Debug)]
struct OsFile {
    file: File,
    /// For messages.
    path: PathBuf,
}

impl DiskFile for OsFile {
    fn len(&self) -> DiskResult<u64> {
        let metadata = self.file.metadata().map_err(failed("measure", &self.path))?;
        Ok(metadata.len())
    }

    fn read_at(&self, offset: u64, len: usize) -> DiskResult<Vec<u8>> {
        // Not zeroed first: that would cost as much as reading from the page cache.
        let mut buffer = Vec::with_capacity(len);
        while buffer.len() < len {
            let at = offset + buffer.len() as u64;
            match pread(&self.file, spare_capacity(&mut buffer), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("read", &self.path)(errno.into())),
            }
        }
        buffer.truncate(len);
        Ok(buffer)
    }

    #[cfg(target_os = "linux")]
    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> DiskResult<bool> {
        let len = buffer.len();
        let mut buffers = [IoSliceMut::new(buffer)];
        match preadv2(&self.file, &mut buffers, offset, ReadWriteFlags::NOWAIT) {
            // It stops before what is not in memory.
            Ok(read) => Ok(read == len),
            // The last two: the file system cannot, or the kernel.
            Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(errno) => Err(failed("read", &self.path)(errno.into())),
        }
    }

    fn write_at(&self, data: &[u8], offset: u64) -> DiskResult<()> {
        self.write_pieces_at(&[data], offset)
    }

    fn write_pieces_at(&self, pieces: &[&[u8]], offset: u64) -> DiskResult<()> {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        let written = match pieces {
            _ if len >= MIN_DIRECT_BYTES => direct::write_all_at(&self.file, pieces, offset),
            [only] => self.file.write_all_at(only, offset),
            _ => self.file.write_all_at(&pieces.concat(), offset),
        };
        written.map_err(failed("write", &self.path))
    }

    fn sync(&self) -> DiskResult<()> {
        // The length is part of what fdatasync promises.
        self.file.sync_data().map_err(failed("sync", &self.path))
    }

    fn truncate(&self, len: u64) -> DiskResult<()> {
        self.file.set_len(len).map_err(failed("truncate", &self.path))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_is_in_the_page_cache_is_read_without_waiting() {
        let dir = TempDir::new().expect("a temporary directory");
        let disk = OsDisk::new(dir.path());
        let file = disk.create("file").expect("made");
        let contents: Vec<u8> = (0..10_000_u32).flat_map(u32::to_le_bytes).collect();
        file.write_at(&contents, 0).expect("written");
        let probe = File::open(dir.path().join("file")).expect("it is there");
        let probed = preadv2(&probe, &mut [IoSliceMut::new(&mut [0])], 0, ReadWriteFlags::NOWAIT);
        let is_supported = probed != Err(Errno::OPNOTSUPP);
        let mut read = vec![0; 20_000];
        // It was written just now.
        assert_eq!(file.read_cached(4, &mut read).expect("readable"), is_supported);
        assert_eq!(read == contents[4..20_004], is_supported);
        // The file ends before.
        assert!(!file.read_cached(30_000, &mut read).expect("readable"));
    }
}

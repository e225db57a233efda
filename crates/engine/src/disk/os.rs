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

use super::{Disk, DiskError, DiskFile, DiskResult};

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

    fn write_at(&self, data: &[u8], offset: u64) -> DiskResult<()> {
        self.file.write_all_at(data, offset).map_err(failed("write", &self.path))
    }

    fn sync(&self) -> DiskResult<()> {
        // The length is part of what fdatasync promises.
        self.file.sync_data().map_err(failed("sync", &self.path))
    }

    fn truncate(&self, len: u64) -> DiskResult<()> {
        self.file.set_len(len).map_err(failed("truncate", &self.path))
    }
}

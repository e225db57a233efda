//! A small file system of its own, to be filled.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::tools;

/// Bytes that are written at a time where all space is to be taken: the smaller, the less is
/// left.
const FILL_BYTES: usize = 4096;

/// A file system in memory with a fixed size, mounted for as long as this lives.
#[derive(Debug)]
pub struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// Mounts one of `size_bytes`.
    ///
    /// # Panics
    ///
    /// If that cannot be done, as only root can: a test that cannot run is a test that fails.
    pub fn new(size_bytes: usize) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let output = Command::new(tools::find("mount"))
            .args(["-t", "tmpfs", "-o", &format!("size={size_bytes},mode=0700"), "granary-test"])
            .arg(directory.path())
            .output()
            .expect("mount can be run");
        assert!(
            output.status.success(),
            "this test needs a small file system of its own to fill, and cannot mount a tmpfs: run \
             the tests as root (in a container: with the capability CAP_SYS_ADMIN): {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self { directory }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Takes all space that is left but `spare_bytes`, with a file that the caller may remove.
    ///
    /// # Panics
    ///
    /// If a write fails for another reason than that there is no space.
    pub fn fill(&self, name: &str, spare_bytes: usize) -> PathBuf {
        let path = self.path().join(name);
        let mut file = File::create(&path).expect("there is space for a name");
        let len = loop {
            match file.write_all(&[7; FILL_BYTES]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    break file.metadata().expect("it is open").len();
                }
                Err(error) => panic!("cannot fill {}: {error}", path.display()),
            }
        };
        file.set_len(len.saturating_sub(spare_bytes as u64)).expect("it can be cut");
        path
    }

    /// Makes some of the space free that [`fill`](Self::fill) took.
    ///
    /// # Panics
    ///
    /// If the file is not there.
    pub fn free(&self, ballast: &Path, bytes: usize) {
        let file = File::options().write(true).open(ballast).expect("it was filled");
        let len = fs::metadata(ballast).expect("it was filled").len();
        file.set_len(len.saturating_sub(bytes as u64)).expect("it can be cut");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may have a file open still.
        let unmounted = Command::new(tools::find("umount")).arg("-l").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.path().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_up_and_has_room_again() {
        let disk = SmallDisk::new(1 << 20);
        let ballast = disk.fill("ballast", 0);
        let file = disk.path().join("file");
        let error = fs::write(&file, [1; 10_000]).expect_err("it is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        disk.free(&ballast, 20_000);
        fs::write(&file, [1; 10_000]).expect("there is room");
        let path = disk.path().to_owned();
        drop(disk);
        assert!(!path.exists(), "it was unmounted and removed");
    }
}

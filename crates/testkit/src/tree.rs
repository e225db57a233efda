//! File trees in memory, and writing them as a NAR or to a disk.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{OpenOptionsExt, symlink},
    },
    path::Path,
};

use granary_nix_formats::nar::Writer;

/// What Nix keeps of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// A directory, by name.
    Directory(BTreeMap<Vec<u8>, Tree>),
    /// A regular file.
    File {
        /// Its contents.
        contents: Vec<u8>,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symlink with its target.
    Symlink(Vec<u8>),
}

impl Tree {
    /// A file that may not be executed.
    pub fn file(contents: impl Into<Vec<u8>>) -> Self {
        Self::File { contents: contents.into(), executable: false }
    }

    /// A file that may be executed.
    pub fn executable(contents: impl Into<Vec<u8>>) -> Self {
        Self::File { contents: contents.into(), executable: true }
    }

    /// A symlink.
    pub fn symlink(target: impl Into<Vec<u8>>) -> Self {
        Self::Symlink(target.into())
    }

    /// A directory of these entries.
    pub fn directory<N: Into<Vec<u8>>>(entries: impl IntoIterator<Item = (N, Self)>) -> Self {
        Self::Directory(entries.into_iter().map(|(name, tree)| (name.into(), tree)).collect())
    }

    /// The tree as a NAR.
    ///
    /// # Panics
    ///
    /// If a name or a target is none that a NAR may have.
    pub fn to_nar(&self) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new()).expect("memory takes all");
        self.write_nar(&mut writer);
        writer.finish().expect("the archive is complete")
    }

    fn write_nar(&self, writer: &mut Writer<Vec<u8>>) {
        const VALID: &str = "a NAR may have this";
        match self {
            Self::Directory(entries) => {
                writer.directory().expect(VALID);
                for (name, tree) in entries {
                    writer.entry(name).expect(VALID);
                    tree.write_nar(writer);
                    writer.end_entry().expect(VALID);
                }
                writer.end_directory().expect(VALID);
            }
            Self::File { contents, executable } => {
                writer.file_header(*executable, contents.len() as u64).expect(VALID);
                writer.file_data(contents).expect(VALID);
                writer.end_file().expect(VALID);
            }
            Self::Symlink(target) => writer.symlink(target).expect(VALID),
        }
    }

    /// Writes the tree to `path`, where nothing may be yet.
    ///
    /// # Errors
    ///
    /// If the disk refuses it.
    pub fn write_to(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Directory(entries) => {
                fs::create_dir(path)?;
                for (name, tree) in entries {
                    tree.write_to(&path.join(OsStr::from_bytes(name)))?;
                }
                Ok(())
            }
            Self::File { contents, executable } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                let mut file =
                    fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
                io::Write::write_all(&mut file, contents)
            }
            Self::Symlink(target) => symlink(OsStr::from_bytes(target), path),
        }
    }

    /// Reads the tree at `path`.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or there is something in it that Nix does not keep.
    pub fn read_from(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        if metadata.is_symlink() {
            return Ok(Self::Symlink(fs::read_link(path)?.into_os_string().as_bytes().to_vec()));
        }
        if metadata.is_file() {
            let executable =
                std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100 != 0;
            return Ok(Self::File { contents: fs::read(path)?, executable });
        }
        if !metadata.is_dir() {
            return Err(io::Error::other(format!("{} is no part of a tree", path.display())));
        }
        let mut entries = BTreeMap::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            entries.insert(entry.file_name().as_bytes().to_vec(), Self::read_from(&entry.path())?);
        }
        Ok(Self::Directory(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_disk() {
        let tree = Tree::directory([
            (&b"a\xff"[..], Tree::file("contents")),
            (b"b", Tree::executable("#!/bin/sh\n")),
            (b"c", Tree::symlink("/nowhere")),
            (b"d", Tree::directory::<Vec<u8>>([])),
            (b"e", Tree::directory([("empty", Tree::file(""))])),
        ]);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tree");
        tree.write_to(&path).expect("it can be written");
        assert_eq!(Tree::read_from(&path).expect("it can be read"), tree);
        assert!(tree.write_to(&path).is_err(), "it wrote over what is there");
    }
}

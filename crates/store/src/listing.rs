//! Listings of stored trees.

use std::io;

use granary_castore::{BlobDigest, DirectoryService, Error, Node, Result};
use granary_nix_formats::{Listing, ListingBuilder, ListingError, nar};

use crate::tree_walk::{self, Visitor};

/// The listing of `root`; `None` if a directory is not stored.
pub(crate) fn of_tree(directories: &dyn DirectoryService, root: &Node) -> Result<Option<Listing>> {
    let mut lister = Lister {
        offsets: nar::Writer::new(io::sink()).map_err(nar_error)?,
        builder: ListingBuilder::new(),
    };
    if !tree_walk::walk(directories, root, &mut lister)? {
        return Ok(None);
    }
    lister.builder.finish().map(Some).map_err(listing_error)
}

/// Writes a NAR to nowhere beside the listing, to know where everything lies in it.
struct Lister {
    offsets: nar::Writer<io::Sink>,
    builder: ListingBuilder,
}

impl Visitor for Lister {
    fn directory(&mut self) -> Result<()> {
        self.offsets.directory().map_err(nar_error)?;
        self.builder.directory().map_err(listing_error)
    }

    fn entry(&mut self, name: &[u8]) -> Result<()> {
        self.offsets.entry(name).map_err(nar_error)?;
        self.builder.entry(name).map_err(listing_error)
    }

    fn end_entry(&mut self) -> Result<()> {
        self.offsets.end_entry().map_err(nar_error)
    }

    fn end_directory(&mut self) -> Result<()> {
        self.offsets.end_directory().map_err(nar_error)?;
        self.builder.end_directory().map_err(listing_error)
    }

    fn file(&mut self, _digest: &BlobDigest, size_bytes: u64, executable: bool) -> Result<()> {
        self.offsets.file_header(executable, size_bytes).map_err(nar_error)?;
        let offset = self.offsets.position();
        self.builder.file(executable, size_bytes, offset).map_err(listing_error)?;
        self.offsets.skip_file_data(size_bytes).map_err(nar_error)?;
        self.offsets.end_file().map_err(nar_error)
    }

    fn symlink(&mut self, target: &[u8]) -> Result<()> {
        self.offsets.symlink(target).map_err(nar_error)?;
        self.builder.symlink(target).map_err(listing_error)
    }
}

fn listing_error(error: ListingError) -> Error {
    let message = "the tree has no listing";
    match error {
        ListingError::TooDeep => Error::too_large(message),
        _ => Error::invalid(message),
    }
    .because(error)
}

fn nar_error(error: nar::Error) -> Error {
    Error::too_large("the tree has no NAR to list").because(error)
}

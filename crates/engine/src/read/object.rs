//! Reading one object.

use bytes::Bytes;
use granary_castore::{BlobDigest, Error, Result};

use crate::{
    engine::Inner,
    format::{ObjectKind, Patches},
    index::{Located, Location},
};

impl Inner {
    /// The bytes of an object, which have the digest that was asked for; `None` if it is
    /// not stored.
    pub(crate) fn object(&self, kind: ObjectKind, digest: &[u8; 32]) -> Result<Option<Bytes>> {
        let Some(located) = self.index.located(kind, digest)? else { return Ok(None) };
        let bytes = self.read_located(&located).and_then(|bytes| {
            if blake3::hash(&bytes) == *digest {
                Ok(bytes)
            } else {
                Err(Error::corrupt("its bytes have another digest"))
            }
        });
        bytes.map(Some).map_err(|error| {
            self.note_if_damage(error.while_doing(format!("reading {}", describe(kind, digest))))
        })
    }

    /// The bytes of a chunk that something refers to.
    pub(crate) fn chunk(&self, digest: &[u8; 32]) -> Result<Bytes> {
        self.object(ObjectKind::Chunk, digest)?.ok_or_else(|| self.missing_chunk(digest))
    }

    /// Where a chunk that something refers to lies.
    pub(crate) fn chunk_location(&self, digest: &[u8; 32]) -> Result<Located> {
        let located = self.index.located(ObjectKind::Chunk, digest)?;
        located.ok_or_else(|| self.missing_chunk(digest))
    }

    fn missing_chunk(&self, digest: &[u8; 32]) -> Error {
        let digest = BlobDigest::from_bytes(*digest);
        self.note_if_damage(Error::corrupt(format!("chunk {digest} is missing")))
    }

    fn read_located(&self, located: &Located) -> Result<Bytes> {
        match located {
            Located::Frame(location) => self.packs.read(location),
            Located::Patched(location) => {
                let patches = self.patches(location)?;
                let mut bytes = self.packs.read(&self.base(&patches)?)?.to_vec();
                patches
                    .apply(&mut bytes)
                    .map_err(|problem| Error::corrupt("its patches do not fit").because(problem))?;
                Ok(bytes.into())
            }
        }
    }

    fn patches(&self, location: &Location) -> Result<Patches> {
        Patches::decode(&self.packs.read(location)?)
            .map_err(|problem| Error::corrupt("its patches are malformed").because(problem))
    }

    /// Where the base of a patched chunk lies: always in a frame, or reading would be a search.
    fn base(&self, patches: &Patches) -> Result<Location> {
        match self.index.located(ObjectKind::Base, &patches.base)? {
            Some(Located::Frame(base)) => Ok(base),
            _ => Err(Error::corrupt("what it is based on is missing")),
        }
    }

    /// Length of a chunk in bytes.
    pub(crate) fn chunk_len(&self, digest: &[u8; 32], located: &Located) -> Result<u64> {
        let len = match located {
            Located::Frame(location) => Ok(location.len),
            Located::Patched(location) => {
                self.patches(location).and_then(|patches| self.base(&patches)).map(|base| base.len)
            }
        };
        // Of what has no bytes, nothing would be read, and nothing checked.
        let len = len.and_then(|len| match len {
            0 if blake3::hash(&[]) != *digest => Err(Error::corrupt("it has no bytes")),
            len => Ok(len),
        });
        len.map(u64::from).map_err(|error| {
            let chunk = describe(ObjectKind::Chunk, digest);
            self.note_if_damage(error.while_doing(format!("finding the length of {chunk}")))
        })
    }
}

fn describe(kind: ObjectKind, digest: &[u8; 32]) -> String {
    let digest = BlobDigest::from_bytes(*digest);
    match kind {
        ObjectKind::Chunk | ObjectKind::Patch => format!("chunk {digest}"),
        ObjectKind::Base => format!("base {digest}"),
        ObjectKind::Directory => format!("directory {digest}"),
        ObjectKind::ChunkList | ObjectKind::Duplicate => format!("chunk list {digest}"),
    }
}

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
        self.try_object(kind, digest).map_err(|error| self.note_if_damage(kind, digest, error))
    }

    /// As [`object`](Self::object), for who looks for damage: it is neither counted nor logged.
    pub(crate) fn try_object(&self, kind: ObjectKind, digest: &[u8; 32]) -> Result<Option<Bytes>> {
        loop {
            let removals = self.packs.removals();
            let Some(located) = self.index.located(kind, digest)? else { return Ok(None) };
            let bytes = self.read_located(&located).and_then(|bytes| {
                if blake3::hash(&bytes) == *digest {
                    Ok(bytes)
                } else {
                    Err(Error::corrupt("its bytes have another digest"))
                }
            });
            match bytes {
                Ok(bytes) => return Ok(Some(bytes)),
                // It may have been moved between the look-up and the reading.
                Err(_) if self.packs.removals() != removals => {}
                // Or collected, and then what it is based on goes too.
                Err(_) if self.index.located(kind, digest)? != Some(located) => {}
                Err(error) => {
                    let what = describe(kind, digest);
                    return Err(error.while_doing(format!("reading {what}")));
                }
            }
        }
    }

    /// The bytes of a chunk that something refers to, which was looked up when
    /// [`Guard::ended`](crate::gc::Guard::ended) was `ended`.
    pub(crate) fn chunk(&self, digest: &[u8; 32], ended: u64) -> Result<Bytes> {
        self.object(ObjectKind::Chunk, digest)?
            .ok_or_else(|| self.missing(ObjectKind::Chunk, digest, ended))
    }

    /// Where a chunk that something refers to lies, likewise.
    pub(crate) fn chunk_location(&self, digest: &[u8; 32], ended: u64) -> Result<Located> {
        let located = self.index.located(ObjectKind::Chunk, digest)?;
        located.ok_or_else(|| self.missing(ObjectKind::Chunk, digest, ended))
    }

    /// What is missing under somebody who reads was collected, if there was a collection since;
    /// else it is damage.
    pub(crate) fn missing(&self, kind: ObjectKind, digest: &[u8; 32], ended: u64) -> Error {
        let object = describe(kind, digest);
        if self.guard.lock().is_sweeping() || self.guard.ended() != ended {
            return Error::unavailable(format!(
                "{object} was garbage and has been collected while it was read"
            ));
        }
        let error = Error::corrupt(format!("{object} is missing"));
        self.note_if_damage(kind, digest, error)
    }

    /// Whether an object is in the index.
    pub(crate) fn is_indexed(&self, kind: ObjectKind, digest: &[u8; 32]) -> Result<bool> {
        Ok(self.index.contains(kind, digest)?)
    }

    /// Where the patch of a chunk lies, and the digest of its base; `None` if it is no patched
    /// chunk.
    pub(crate) fn patch_and_base(&self, digest: &[u8; 32]) -> Result<Option<(Location, [u8; 32])>> {
        self.try_patch_and_base(digest)
            .map_err(|error| self.note_if_damage(ObjectKind::Chunk, digest, error))
    }

    /// As [`patch_and_base`](Self::patch_and_base), for who looks for damage.
    pub(crate) fn try_patch_and_base(
        &self,
        digest: &[u8; 32],
    ) -> Result<Option<(Location, [u8; 32])>> {
        let located = self.index.located(ObjectKind::Chunk, digest)?;
        let Some(Located::Patched(location)) = located else { return Ok(None) };
        let patches = self.patches(&location).map_err(|error| {
            let what = describe(ObjectKind::Chunk, digest);
            error.while_doing(format!("reading the patch of {what}"))
        })?;
        Ok(Some((location, patches.base)))
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

    /// The patches that lie at `location`, if they are in memory.
    pub(crate) fn patches_now(&self, location: &Location) -> Option<Patches> {
        Patches::decode(&self.packs.read_now(location)?).ok()
    }

    /// Where the base of a patched chunk lies whose patches lie at `location`, if those are in memory.
    /// It is looked up in the index, which may take waiting.
    pub(crate) fn base_if_in_memory(&self, location: &Location) -> Option<Location> {
        self.base(&self.patches_now(location)?).ok()
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
        let removals = self.packs.removals();
        let len = self.located_len(located);
        if len.is_err()
            && self.packs.removals() != removals
            && let Some(located) = self.index.located(ObjectKind::Chunk, digest)?
        {
            // It may have been moved meanwhile.
            return self.chunk_len(digest, &located);
        }
        // Of what has no bytes, nothing would be read, and nothing checked.
        let len = len.and_then(|len| match len {
            0 if blake3::hash(&[]) != *digest => Err(Error::corrupt("it has no bytes")),
            len => Ok(len),
        });
        len.map(u64::from).map_err(|error| {
            let chunk = describe(ObjectKind::Chunk, digest);
            let error = error.while_doing(format!("finding the length of {chunk}"));
            self.note_if_damage(ObjectKind::Chunk, digest, error)
        })
    }

    fn located_len(&self, located: &Located) -> Result<u32> {
        match located {
            Located::Frame(location) => Ok(location.len),
            Located::Patched(location) => {
                self.patches(location).and_then(|patches| self.base(&patches)).map(|base| base.len)
            }
        }
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

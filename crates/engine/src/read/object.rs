//! Reading one object.

use bytes::Bytes;
use granary_castore::{Error, Result};

use crate::{
    engine::Inner,
    format::{ObjectKind, PatchedRecord},
    index::Located,
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
            let error = error.while_doing(format!("reading {}", describe(kind, digest)));
            if matches!(error, Error::Corrupt(_)) {
                self.note_damage(&error);
            }
            error
        })
    }

    fn read_located(&self, located: &Located) -> Result<Bytes> {
        match located {
            Located::Frame(location) => self.packs.read(location),
            Located::Patched(patched) => self.read_patched(patched),
        }
    }

    fn read_patched(&self, patched: &PatchedRecord) -> Result<Bytes> {
        // A base is never patched itself: that would make reading a search.
        let Some(Located::Frame(base)) = self.index.located(ObjectKind::Chunk, &patched.base)?
        else {
            return Err(Error::corrupt("the chunk that it is based on is missing"));
        };
        let mut bytes = self.packs.read(&base)?.to_vec();
        patched
            .apply(&mut bytes)
            .map_err(|problem| Error::corrupt("its patches do not fit").because(problem))?;
        Ok(bytes.into())
    }

    /// Length of a stored chunk in bytes.
    pub(crate) fn chunk_len(&self, digest: &[u8; 32]) -> Result<Option<u64>> {
        let located = self.index.located(ObjectKind::Chunk, digest)?;
        Ok(match located {
            None => None,
            Some(Located::Frame(location)) => Some(u64::from(location.len)),
            Some(Located::Patched(patched)) => {
                match self.index.located(ObjectKind::Chunk, &patched.base)? {
                    Some(Located::Frame(base)) => Some(u64::from(base.len)),
                    _ => return Err(Error::corrupt("the base of a patched chunk is missing")),
                }
            }
        })
    }
}

fn describe(kind: ObjectKind, digest: &[u8; 32]) -> String {
    let digest = granary_castore::BlobDigest::from_bytes(*digest);
    match kind {
        ObjectKind::Chunk => format!("chunk {digest}"),
        ObjectKind::Directory => format!("directory {digest}"),
        ObjectKind::ChunkList | ObjectKind::Duplicate => format!("chunk list {digest}"),
    }
}

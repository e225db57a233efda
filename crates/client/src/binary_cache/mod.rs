//! A plain binary cache of Nix: narinfos and NARs, over HTTP or in a directory.

mod decode;
mod fetch;

use std::io::Read;

use granary_castore::{Error, Result};
use granary_nix_formats::{MAX_NARINFO_BYTES, NarInfo, StorePath};
use granary_store::{NarDigest, NarSource, OfferedNar};

use fetch::Place;

/// A binary cache. It is only read.
#[derive(Debug)]
pub struct BinaryCache {
    url: String,
    place: Place,
}

impl BinaryCache {
    /// The cache at `url`: `http://HOST[:PORT][/PATH]`, or `file:///PATH` as Nix has them.
    /// Nothing is asked of it yet.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if `url` is none of these.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self { url: url.to_owned(), place: Place::of_url(url)? })
    }

    /// The URL that it was made with.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether there is a binary cache: it has a `nix-cache-info`.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if it does not answer.
    pub fn is_there(&self) -> Result<bool> {
        Ok(self.place.get("nix-cache-info")?.is_some())
    }

    /// What the cache says of a path; `None` if it does not have it.
    fn narinfo(&self, path: &StorePath) -> Result<Option<NarInfo>> {
        let Some(body) = self.place.get(&format!("{}.narinfo", path.hash()))? else {
            return Ok(None);
        };
        let doing = || format!("reading the narinfo of {path} from {}", self.url);
        let mut text = String::new();
        body.take(MAX_NARINFO_BYTES as u64 + 1)
            .read_to_string(&mut text)
            .map_err(|cause| Error::unavailable(doing()).because(cause))?;
        let narinfo =
            NarInfo::parse(&text).map_err(|problem| Error::corrupt(doing()).because(problem))?;
        Ok((narinfo.store_path == *path).then_some(narinfo))
    }
}

impl NarSource for BinaryCache {
    fn open_nar(&self, path: &StorePath) -> Result<Option<OfferedNar>> {
        let Some(narinfo) = self.narinfo(path)? else { return Ok(None) };
        let Some(body) = self.place.get(&narinfo.url)? else { return Ok(None) };
        let nar = NarDigest { nar_size: narinfo.nar_size, nar_hash: narinfo.nar_hash };
        Ok(Some(OfferedNar { nar, contents: decode::decode(body, &narinfo.compression)? }))
    }
}

//! Path infos.

use bytes::Bytes;
use granary_nix_formats::{
    ContentAddress, HashAlgorithm, NarHash, Signature, StorePath, StorePathHash,
};
use granary_store::{NarDigest, NarFacts, PathInfo};

use crate::{
    field::{Breach, FieldError, fixed, store_path_hash},
    node::{named_node, split},
    store::{self, nar_info::ca::Hash},
};

/// What the name of a derivation ends in, and its name on the wire does not have.
const DRV: &str = ".drv";

impl From<&PathInfo> for store::PathInfo {
    fn from(path_info: &PathInfo) -> Self {
        let references = path_info.references.iter();
        Self {
            node: Some(named_node(path_info.store_path.base_name(), &path_info.node)),
            references: references.map(|hash| Bytes::copy_from_slice(hash.as_bytes())).collect(),
            narinfo: path_info.nar.as_ref().map(store::NarInfo::from),
        }
    }
}

impl From<&NarFacts> for store::NarInfo {
    fn from(facts: &NarFacts) -> Self {
        let signatures = facts.signatures.iter().map(|signature| store::nar_info::Signature {
            name: signature.name.clone(),
            data: Bytes::copy_from_slice(&signature.bytes),
        });
        Self {
            nar_size: facts.nar_size,
            nar_sha256: Bytes::copy_from_slice(facts.nar_hash.as_bytes()),
            signatures: signatures.collect(),
            reference_names: facts.reference_names.iter().map(StorePath::base_name).collect(),
            deriver: facts.deriver.as_ref().map(|deriver| store::StorePath {
                name: deriver.name().strip_suffix(DRV).unwrap_or(deriver.name()).to_owned(),
                digest: Bytes::copy_from_slice(deriver.hash().as_bytes()),
            }),
            ca: facts.ca.as_ref().map(store::nar_info::Ca::from),
        }
    }
}

impl From<&ContentAddress> for store::nar_info::Ca {
    fn from(ca: &ContentAddress) -> Self {
        let (kind, digest) = match ca {
            ContentAddress::Text { digest } => (Hash::TextSha256, &digest[..]),
            ContentAddress::Fixed { recursive, algorithm, digest } => {
                let kind = match (recursive, algorithm) {
                    (true, HashAlgorithm::Md5) => Hash::NarMd5,
                    (true, HashAlgorithm::Sha1) => Hash::NarSha1,
                    (true, HashAlgorithm::Sha256) => Hash::NarSha256,
                    (true, HashAlgorithm::Sha512) => Hash::NarSha512,
                    (false, HashAlgorithm::Md5) => Hash::FlatMd5,
                    (false, HashAlgorithm::Sha1) => Hash::FlatSha1,
                    (false, HashAlgorithm::Sha256) => Hash::FlatSha256,
                    (false, HashAlgorithm::Sha512) => Hash::FlatSha512,
                };
                (kind, &digest[..])
            }
        };
        Self { r#type: kind.into(), digest: Bytes::copy_from_slice(digest) }
    }
}

impl From<&NarDigest> for store::CalculateNarResponse {
    fn from(nar: &NarDigest) -> Self {
        Self { nar_size: nar.nar_size, nar_sha256: Bytes::copy_from_slice(nar.nar_hash.as_bytes()) }
    }
}

impl TryFrom<store::PathInfo> for PathInfo {
    type Error = FieldError;

    fn try_from(message: store::PathInfo) -> Result<Self, FieldError> {
        let node = message.node.ok_or_else(|| FieldError::new("node", Breach::Missing))?;
        let (at, name, node) = split(node, "node")?;
        let name_field = format_args!("{at}.name");
        let base_name =
            str::from_utf8(&name).map_err(|_| FieldError::new(name_field, Breach::NotAscii))?;
        let store_path = StorePath::from_base_name(base_name)
            .map_err(|error| FieldError::new(name_field, Breach::StorePath(error)))?;
        let references = message.references.iter().enumerate().map(|(index, reference)| {
            store_path_hash(format_args!("references[{index}]"), reference)
        });
        let references = references.collect::<Result<Vec<_>, _>>()?;
        let nar = message.narinfo.map(|narinfo| nar_facts(narinfo, &references)).transpose()?;
        Ok(Self { store_path, node, references, nar })
    }
}

fn nar_facts(
    message: store::NarInfo,
    references: &[StorePathHash],
) -> Result<NarFacts, FieldError> {
    let nar_hash = NarHash::from_bytes(fixed("narinfo.nar_sha256", &message.nar_sha256)?);
    let signatures = message.signatures.into_iter().enumerate();
    let signatures = signatures.map(|(index, signature)| {
        let at = format_args!("narinfo.signatures[{index}]");
        let bytes = fixed(format_args!("{at}.data"), &signature.data)?;
        Signature::new(signature.name, bytes)
            .map_err(|error| FieldError::new(format_args!("{at}.name"), Breach::Key(error)))
    });
    Ok(NarFacts {
        nar_size: message.nar_size,
        nar_hash,
        signatures: signatures.collect::<Result<_, _>>()?,
        reference_names: reference_names(&message.reference_names, references)?,
        deriver: message.deriver.map(deriver).transpose()?,
        ca: message.ca.map(content_address).transpose()?,
    })
}

fn reference_names(
    names: &[String],
    references: &[StorePathHash],
) -> Result<Vec<StorePath>, FieldError> {
    if names.len() != references.len() {
        let breach = Breach::ReferenceCount { names: names.len(), references: references.len() };
        return Err(FieldError::new("narinfo.reference_names", breach));
    }
    let pairs = names.iter().zip(references).enumerate();
    pairs
        .map(|(index, (name, &reference))| {
            let refuse =
                |breach| FieldError::new(format_args!("narinfo.reference_names[{index}]"), breach);
            let path = StorePath::from_base_name(name)
                .map_err(|error| refuse(Breach::StorePath(error)))?;
            if *path.hash() == reference {
                Ok(path)
            } else {
                let name = *path.hash();
                Err(refuse(Breach::ReferenceMismatch { index, name, reference }))
            }
        })
        .collect()
}

fn deriver(message: store::StorePath) -> Result<StorePath, FieldError> {
    let hash = store_path_hash("narinfo.deriver.digest", &message.digest)?;
    StorePath::new(hash, message.name + DRV)
        .map_err(|error| FieldError::new("narinfo.deriver.name", Breach::StorePath(error)))
}

fn content_address(message: store::nar_info::Ca) -> Result<ContentAddress, FieldError> {
    let kind = Hash::try_from(message.r#type)
        .map_err(|_| FieldError::new("narinfo.ca.type", Breach::CaType(message.r#type)))?;
    let (recursive, algorithm) = match kind {
        Hash::TextSha256 => {
            let digest = fixed("narinfo.ca.digest", &message.digest)?;
            return Ok(ContentAddress::Text { digest });
        }
        Hash::NarMd5 => (true, HashAlgorithm::Md5),
        Hash::NarSha1 => (true, HashAlgorithm::Sha1),
        Hash::NarSha256 => (true, HashAlgorithm::Sha256),
        Hash::NarSha512 => (true, HashAlgorithm::Sha512),
        Hash::FlatMd5 => (false, HashAlgorithm::Md5),
        Hash::FlatSha1 => (false, HashAlgorithm::Sha1),
        Hash::FlatSha256 => (false, HashAlgorithm::Sha256),
        Hash::FlatSha512 => (false, HashAlgorithm::Sha512),
    };
    let (expected_bytes, actual_bytes) = (algorithm.digest_len(), message.digest.len());
    if expected_bytes != actual_bytes {
        let breach = Breach::Length { expected_bytes, actual_bytes };
        return Err(FieldError::new("narinfo.ca.digest", breach));
    }
    Ok(ContentAddress::Fixed { recursive, algorithm, digest: message.digest.into() })
}

/// Length and hash of a NAR, as a server answered.
///
/// # Errors
///
/// If the hash is not 32 bytes long.
pub fn nar_digest(message: &store::CalculateNarResponse) -> Result<NarDigest, FieldError> {
    let nar_hash = NarHash::from_bytes(fixed("nar_sha256", &message.nar_sha256)?);
    Ok(NarDigest { nar_size: message.nar_size, nar_hash })
}

#[cfg(test)]
mod tests;

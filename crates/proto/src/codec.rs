//! Messages from the wire, checked before they are decoded.
//!
//! A field of two bytes on the wire can become a hundred in memory, so a limit of bytes alone
//! bounds little. And what is decoded are slices of the buffer that the message came in, which
//! may be much larger than they are.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use granary_castore::MAX_DIRECTORY_ENTRIES;
use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::{castore, fields, granary, store};

/// Most fields of one [`store::PathInfo`], those of its narinfo included: each reference is two.
pub const MAX_PATH_INFO_FIELDS: usize = 200_000;

/// Most fields of any other message that is received, those of a list of digests or chunks.
pub const MAX_MESSAGE_FIELDS: usize = 131_072;

/// A message that is received, and what it may hold: every one that a call takes or returns.
pub trait Received: Message + Default + Send + 'static {
    /// What [`MAX_FIELDS`](Self::MAX_FIELDS) counts.
    const COUNTED: &str = "fields";

    /// Most fields of the message, those inside of [`NESTED`](Self::NESTED) included.
    const MAX_FIELDS: usize = MAX_MESSAGE_FIELDS;

    /// Numbers of fields that hold messages with repeated fields.
    const NESTED: &[u32] = &[];

    /// Whether it is kept for longer than it is worked on, and so must not hold on to a larger
    /// buffer.
    const IS_KEPT: bool = false;
}

impl Received for castore::Directory {
    const COUNTED: &str = "entries";
    const MAX_FIELDS: usize = MAX_DIRECTORY_ENTRIES;
    const IS_KEPT: bool = true;
}

impl Received for store::PathInfo {
    const MAX_FIELDS: usize = MAX_PATH_INFO_FIELDS;
    const NESTED: &[u32] = &[NARINFO];
}

/// Number of the field `narinfo` of a [`store::PathInfo`].
const NARINFO: u32 = 3;

macro_rules! received {
    ($($message:path),+ $(,)?) => { $(impl Received for $message {})+ };
}

received! {
    castore::BlobChunk, castore::GetDirectoryRequest, castore::Node, castore::PutBlobResponse,
    castore::PutDirectoryResponse, castore::ReadBlobRequest, castore::StatBlobRequest,
    castore::StatBlobResponse,
    granary::AddPinRequest, granary::AddPinResponse, granary::CollectGarbageEvent,
    granary::CollectGarbageRequest, granary::DeletePathsRequest, granary::DeletePathsResponse,
    granary::ListPinsRequest, granary::MissingBlobsRequest, granary::MissingBlobsResponse,
    granary::Pin, granary::QuarantineRequest, granary::QuarantineResponse,
    granary::RemovePinRequest, granary::RemovePinResponse, granary::StatsRequest,
    granary::StatsResponse, granary::VerifyEvent, granary::VerifyRequest, granary::WhyRequest,
    granary::WhyResponse,
    store::CalculateNarResponse, store::GetPathInfoRequest, store::ListPathInfoRequest,
}

/// Decodes a message.
///
/// # Errors
///
/// `RESOURCE_EXHAUSTED` if it has too many fields, `INVALID_ARGUMENT` if it is no such message.
pub fn decode<M: Received>(encoded: Bytes) -> Result<M, Status> {
    fields::check(&encoded, M::NESTED, M::MAX_FIELDS).map_err(|problem| match problem {
        fields::Problem::TooMany => Status::resource_exhausted(format!(
            "a message has more than {} {}, the limit",
            M::MAX_FIELDS,
            M::COUNTED
        )),
        fields::Problem::Malformed => Status::invalid_argument("a message is no protobuf"),
    })?;
    let malformed = |error| Status::invalid_argument(format!("a message cannot be read: {error}"));
    if !M::IS_KEPT {
        return M::decode(encoded).map_err(malformed);
    }
    // A buffer of its own, without what others have left in it.
    let encoded_len = encoded.len();
    let message = M::decode(Bytes::copy_from_slice(&encoded)).map_err(malformed)?;
    drop(encoded);
    if message.encoded_len() >= encoded_len / 2 {
        return Ok(message);
    }
    // Mostly fields that nobody knows.
    M::decode(Bytes::from(message.encode_to_vec())).map_err(malformed)
}

/// How messages are encoded and decoded, by clients and servers.
#[derive(Debug)]
pub struct WireCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for WireCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Received> Codec for WireCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = WireDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        WireDecoder(PhantomData)
    }
}

/// See [`WireCodec`].
#[derive(Debug)]
pub struct WireDecoder<U>(PhantomData<U>);

impl<U: Received> Decoder for WireDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        decode(message.copy_to_bytes(message.remaining())).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn refused<M: Received + std::fmt::Debug>(encoded: Vec<u8>) -> Status {
        decode::<M>(encoded.into()).expect_err("it is over the limit")
    }

    #[test]
    fn fields_are_counted_before_they_are_decoded() {
        let entries = |count| [0x1a, 0].repeat(count);
        let most = decode::<castore::Directory>(entries(MAX_DIRECTORY_ENTRIES).into());
        assert_eq!(most.expect("at the limit").symlinks.len(), MAX_DIRECTORY_ENTRIES);
        let status = refused::<castore::Directory>(entries(MAX_DIRECTORY_ENTRIES + 1));
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "a message has more than 1000000 entries, the limit");
        // In the message itself, and in the one inside.
        let status = refused::<store::PathInfo>([0x12, 0].repeat(MAX_PATH_INFO_FIELDS + 1));
        assert_eq!(status.message(), "a message has more than 200000 fields, the limit");
        let names = [0x22, 0].repeat(MAX_PATH_INFO_FIELDS);
        let mut encoded = vec![0x1a];
        prost::encoding::encode_varint(names.len() as u64, &mut encoded);
        encoded.extend(names);
        assert_eq!(refused::<store::PathInfo>(encoded).code(), Code::ResourceExhausted);
        let status = refused::<castore::Node>([0x0a, 0].repeat(MAX_MESSAGE_FIELDS + 1));
        assert_eq!(status.code(), Code::ResourceExhausted);
    }

    #[test]
    fn what_is_no_message_is_invalid() {
        for encoded in [&[0x0b][..], &[0x1a, 5], &[0x80], &[0x07], &[0x08, 1]] {
            let status = refused::<castore::Directory>(encoded.to_vec());
            assert_eq!(status.code(), Code::InvalidArgument, "{encoded:?}: {status}");
        }
    }

    #[test]
    fn what_is_kept_holds_on_to_nothing_else() {
        let name = Bytes::from_static(b"name");
        let link = castore::SymlinkNode { name, target: Bytes::from_static(b"target") };
        let directory = castore::Directory { symlinks: vec![link], ..Default::default() };
        let mut encoded = directory.encode_to_vec();
        // A field that nobody knows, of a MiB.
        encoded.push(0x7a);
        prost::encoding::encode_varint(1 << 20, &mut encoded);
        encoded.resize(encoded.len() + (1 << 20), 0);
        let buffer = Bytes::from(encoded);
        let decoded: castore::Directory = decode(buffer.clone()).expect("a message");
        assert_eq!(decoded, directory);
        assert!(buffer.is_unique(), "the name is no part of the buffer");
        let castore::SymlinkNode { name, target } = &decoded.symlinks[0];
        let distance = target.as_ptr().addr().abs_diff(name.as_ptr().addr());
        assert!(distance < 100, "both lie in a buffer that has nothing else: {distance}");
    }
}

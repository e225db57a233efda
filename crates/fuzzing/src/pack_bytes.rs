//! Checksums of packs made right, as `docs/pack-format.md` says: what is behind them is not
//! reached otherwise. Written from that page, and apart from the code under test.

const HEADER_BYTES: usize = 64;
const FRAME_HEADER_BYTES: usize = 24;
const FOOTER_TAIL_BYTES: usize = 32;

const SEGMENT_MAGIC: &[u8] = b"GRANSEGM";
const FOOTER_MAGIC: &[u8] = b"GRANFOOT";

/// Where the 8 bytes of checksum stand in the headers of stores, packs and segments.
const HEADER_SUM_AT: usize = 56;

pub(crate) const STORE_ID_BYTES: usize = 16;

pub(crate) type StoreId = [u8; STORE_ID_BYTES];

/// Makes the checksum of a store's header right.
pub(crate) fn seal_store_header(header: &mut [u8]) {
    if let Some((summed, rest)) = header.split_at_mut_checked(HEADER_SUM_AT) {
        put_sum(rest, &[summed]);
    }
}

/// Makes all checksums of a pack right, as far as its segments follow each other.
pub(crate) fn seal(pack: &mut [u8], store_id: &StoreId) {
    seal_store_header(pack);
    let mut at = HEADER_BYTES;
    while let Some(len) = pack.get_mut(at..).and_then(|bytes| seal_segment(bytes, store_id)) {
        at += len;
    }
    seal_footer(pack, store_id);
}

/// The length of the segment that `bytes` begin with.
fn seal_segment(bytes: &mut [u8], store_id: &StoreId) -> Option<usize> {
    let (header, behind) = bytes.split_at_mut_checked(HEADER_BYTES)?;
    if !header.starts_with(SEGMENT_MAGIC) {
        return None;
    }
    let (frames_len, records_len) = (u32_at(header, 28)?, u32_at(header, 32)?);
    let frames = behind.get_mut(..frames_len)?;
    let mut at = 0;
    while let Some(len) = frames.get_mut(at..).and_then(seal_frame) {
        at += len;
    }
    let records = behind.get(frames_len..frames_len.checked_add(records_len)?)?;
    put_sum(&mut header[40..], &[records]);
    let (summed, rest) = header.split_at_mut(HEADER_SUM_AT);
    put_sum(rest, &[store_id, summed]);
    Some(HEADER_BYTES + frames_len + records_len)
}

/// The length of the frame that `bytes` begin with.
fn seal_frame(bytes: &mut [u8]) -> Option<usize> {
    let len = FRAME_HEADER_BYTES.checked_add(u32_at(bytes, 0)?)?;
    let frame = bytes.get_mut(..len)?;
    let mut sum = xxhash_rust::xxh3::Xxh3::new();
    sum.update(&frame[..16]);
    sum.update(&frame[FRAME_HEADER_BYTES..]);
    frame[16..FRAME_HEADER_BYTES].copy_from_slice(&sum.digest().to_le_bytes());
    Some(len)
}

fn seal_footer(pack: &mut [u8], store_id: &StoreId) -> Option<()> {
    let tail_at = pack.len().checked_sub(FOOTER_TAIL_BYTES)?;
    if !pack.ends_with(FOOTER_MAGIC) {
        return None;
    }
    let from = tail_at.checked_sub(u32_at(pack, tail_at)?)?;
    let (summed, rest) = pack.split_at_mut(tail_at + 8);
    put_sum(rest, &[store_id, &summed[from..]]);
    Some(())
}

/// A pack of one segment, with these frames and records and the header of that pack.
pub(crate) fn of_one_segment(pack: &[u8], frames: &[u8], records: &[u8]) -> Vec<u8> {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a short segment").to_le_bytes();
    let mut bytes = pack[..2 * HEADER_BYTES].to_vec();
    bytes[HEADER_BYTES + 28..][..4].copy_from_slice(&len(frames));
    bytes[HEADER_BYTES + 32..][..4].copy_from_slice(&len(records));
    bytes.extend_from_slice(frames);
    bytes.extend_from_slice(records);
    bytes
}

/// Frames and records of the first segment of a pack.
pub(crate) fn first_segment(pack: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, behind) = pack.get(HEADER_BYTES..)?.split_at_checked(HEADER_BYTES)?;
    let (frames, behind) = behind.split_at_checked(u32_at(header, 28)?)?;
    Some((frames, behind.get(..u32_at(header, 32)?)?))
}

/// Writes these ids into the headers of a pack and its segments, and into its values. The
/// checksums are wrong after that.
pub(crate) fn set_ids(pack: &mut [u8], pack_id: [u8; 16], store_id: &StoreId, writer: u64) {
    pack[12..28].copy_from_slice(&pack_id);
    pack[28..44].copy_from_slice(store_id);
    let writer = writer.to_le_bytes();
    let mut at = HEADER_BYTES;
    while let Some(segment) = pack.get_mut(at..).filter(|bytes| bytes.starts_with(SEGMENT_MAGIC)) {
        segment[12..20].copy_from_slice(&writer);
        let lens = u32_at(segment, 28).zip(u32_at(segment, 32));
        let (frames_len, records_len) = lens.expect("a whole segment");
        let records_at = HEADER_BYTES + frames_len;
        for body in bodies(&segment[records_at..records_at + records_len]) {
            let (kind, range) = body;
            if kind == VALUE_RECORD {
                let body = &mut segment[records_at..][range];
                body[4..12].copy_from_slice(&writer);
            }
        }
        at += records_at + records_len;
    }
}

pub(crate) const FRAME_RECORD: u8 = 1;
pub(crate) const BLOB_RECORD: u8 = 2;
pub(crate) const VALUE_RECORD: u8 = 3;

/// The type of each record, and where its body lies, as far as records can be told apart.
pub(crate) fn bodies(records: &[u8]) -> Vec<(u8, std::ops::Range<usize>)> {
    let (mut bodies, mut at) = (Vec::new(), 0);
    while let Some(kind) = records.get(at).copied() {
        let Some(len) = u32_at(records, at + 1) else { break };
        let Some(end) = (at + 5).checked_add(len).filter(|end| *end <= records.len()) else {
            break;
        };
        bodies.push((kind, at + 5..end));
        at = end;
    }
    bodies
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

/// Puts the checksum of `parts` at the beginning of `place`, if it has room.
fn put_sum(place: &mut [u8], parts: &[&[u8]]) {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    if let Some(place) = place.get_mut(..8) {
        place.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    }
}

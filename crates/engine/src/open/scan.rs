//! Going through the segments of a pack.

use granary_castore::{Error, Result};

use crate::{
    disk::{DiskFile, read_range},
    format::{
        FOOTER_TAIL_BYTES, Footer, Malformed, Record, SEGMENT_HEADER_BYTES, SegmentHeader,
        check_frames,
    },
};

/// Bytes that are searched at a time for the next valid segment behind a damaged part.
const SEARCH_BYTES: usize = 4 << 20;

/// Calls for each valid segment: where it begins, its header, its records.
pub(super) type OnSegment<'a> = dyn FnMut(u64, &SegmentHeader, Vec<Record>) -> Result<()> + 'a;

/// Where going through a pack ended.
#[derive(Debug, Default)]
pub(super) struct ScanEnd {
    /// Where the valid segments begin.
    pub(super) segment_offsets: Vec<u64>,
    /// Where the last valid segment ends.
    pub(super) end: u64,
    /// Whether a footer follows it.
    pub(super) sealed: bool,
    /// Invalid parts with valid segments behind them.
    pub(super) damage: Vec<(u64, Malformed)>,
    /// Why what follows `end` is neither a segment nor a footer, if anything follows.
    pub(super) torn: Option<Malformed>,
}

/// Goes through the segments from `from` to the end, checking every byte.
pub(super) fn scan(
    file: &dyn DiskFile,
    from: u64,
    on_segment: &mut OnSegment<'_>,
) -> Result<ScanEnd> {
    let file_len = file.len()?;
    let mut end = ScanEnd { end: from, ..ScanEnd::default() };
    let mut offset = from;
    while offset < file_len {
        match read_segment(file, offset, file_len)? {
            Ok((header, records)) => {
                on_segment(offset, &header, records)?;
                end.segment_offsets.push(offset);
                offset += header.segment_len();
                end.end = offset;
            }
            Err(_) if read_footer(file, offset, file_len)?.is_some() => {
                end.sealed = true;
                break;
            }
            Err(problem) => {
                let Some(next) = find_segment(file, offset + 1, file_len)? else {
                    end.torn = Some(problem);
                    break;
                };
                end.damage.push((offset, problem));
                offset = next;
            }
        }
    }
    Ok(end)
}

/// Goes through a sealed pack by its footer: only the records are read and checked, the
/// frames when somebody wants them. `None` if it has no valid footer.
pub(super) fn scan_by_footer(
    file: &dyn DiskFile,
    on_segment: &mut OnSegment<'_>,
) -> Result<Option<ScanEnd>> {
    let file_len = file.len()?;
    let Some(tail_at) = file_len.checked_sub(FOOTER_TAIL_BYTES as u64) else { return Ok(None) };
    let tail = read_range(file, tail_at, FOOTER_TAIL_BYTES)?;
    let footer_at = tail
        .first_chunk()
        .and_then(Footer::footer_len)
        .and_then(|footer_len| file_len.checked_sub(footer_len as u64));
    let Some(footer_at) = footer_at else { return Ok(None) };
    let Some(footer) = read_footer(file, footer_at, file_len)? else { return Ok(None) };
    let mut end = ScanEnd { end: footer_at, sealed: true, ..ScanEnd::default() };
    for offset in footer.segment_offsets {
        match read_records(file, offset, footer_at)? {
            Ok((header, records)) => {
                on_segment(offset, &header, records)?;
                end.segment_offsets.push(offset);
            }
            Err(problem) => end.damage.push((offset, problem)),
        }
    }
    Ok(Some(end))
}

/// Where segments begin before `to`, by their headers alone; `None` if the headers do not
/// lead there.
pub(super) fn segment_offsets(file: &dyn DiskFile, from: u64, to: u64) -> Result<Option<Vec<u64>>> {
    let mut offsets = Vec::new();
    let mut offset = from;
    while offset < to {
        let Ok(header) = SegmentHeader::decode(&read_range(file, offset, SEGMENT_HEADER_BYTES)?)
        else {
            return Ok(None);
        };
        offsets.push(offset);
        offset += header.segment_len();
    }
    Ok((offset == to).then_some(offsets))
}

/// Whether there is a valid segment anywhere in the file.
pub(super) fn has_segments(file: &dyn DiskFile) -> Result<bool> {
    Ok(find_segment(file, 0, file.len()?)?.is_some())
}

type Segment = (SegmentHeader, Vec<Record>);

/// Reads a whole segment and checks all of it.
fn read_segment(
    file: &dyn DiskFile,
    offset: u64,
    limit: u64,
) -> Result<std::result::Result<Segment, Malformed>> {
    let header = match read_header(file, offset, limit)? {
        Ok(header) => header,
        Err(problem) => return Ok(Err(problem)),
    };
    let frames_at = offset + SEGMENT_HEADER_BYTES as u64;
    let frames = read_range(file, frames_at, header.frames_len as usize)?;
    if let Err(problem) = check_frames(&frames) {
        return Ok(Err(problem));
    }
    read_records(file, offset, limit)
}

/// Reads a segment's header and records and checks them.
fn read_records(
    file: &dyn DiskFile,
    offset: u64,
    limit: u64,
) -> Result<std::result::Result<Segment, Malformed>> {
    let header = match read_header(file, offset, limit)? {
        Ok(header) => header,
        Err(problem) => return Ok(Err(problem)),
    };
    let bytes = read_range(file, offset + header.records_offset(), header.records_len as usize)?;
    Ok(header.records(&bytes).map(|records| (header, records)))
}

fn read_header(
    file: &dyn DiskFile,
    offset: u64,
    limit: u64,
) -> Result<std::result::Result<SegmentHeader, Malformed>> {
    let bytes = read_range(file, offset, SEGMENT_HEADER_BYTES)?;
    Ok(SegmentHeader::decode(&bytes).and_then(|header| {
        // Lengths are held against the file before anything is allocated for them.
        if header.segment_len() <= limit.saturating_sub(offset) {
            Ok(header)
        } else {
            Err(Malformed("the segment is cut off"))
        }
    }))
}

/// The footer that begins at `offset` and ends the file, if there is one.
fn read_footer(file: &dyn DiskFile, offset: u64, file_len: u64) -> Result<Option<Footer>> {
    let Ok(len) = usize::try_from(file_len - offset) else { return Ok(None) };
    if len > MAX_FOOTER_BYTES {
        return Ok(None);
    }
    Ok(Footer::decode(&read_range(file, offset, len)?).ok())
}

/// A footer of the smallest segments that could fill a pack.
const MAX_FOOTER_BYTES: usize = 16 << 20;

/// The first valid segment at or behind `from`.
fn find_segment(file: &dyn DiskFile, from: u64, file_len: u64) -> Result<Option<u64>> {
    let mut window_at = from;
    while window_at < file_len {
        let window = read_range(file, window_at, SEARCH_BYTES + SEGMENT_HEADER_BYTES)?;
        let mut position = 0;
        while let Some(found) = SegmentHeader::find(&window, position) {
            let offset = window_at + found as u64;
            if found < SEARCH_BYTES && read_segment(file, offset, file_len)?.is_ok() {
                return Ok(Some(offset));
            }
            position = found + 1;
        }
        window_at = window_at
            .checked_add(SEARCH_BYTES as u64)
            .ok_or_else(|| Error::corrupt("a pack is longer than a file can be"))?;
    }
    Ok(None)
}

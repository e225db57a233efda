//! Going through the segments of a pack.

use granary_castore::Result;

use crate::{
    disk::DiskFile,
    format::{
        FOOTER_TAIL_BYTES, Footer, MAX_SEGMENT_BYTES, Malformed, PACK_HEADER_BYTES, Record,
        SEGMENT_HEADER_BYTES, SegmentHeader, StoreId, check_frames,
    },
};

/// Bytes that are searched at a time for the next valid segment behind a damaged part.
const SEARCH_BYTES: usize = 4 << 20;

/// No footer is longer: one of the smallest segments that could fill a pack.
const MAX_FOOTER_BYTES: usize = 16 << 20;

/// No pack is longer: the index keeps offsets in 32 bits.
const MAX_PACK_BYTES: u64 = u32::MAX as u64;

/// Called for each valid segment: where it begins, its header, its records.
pub(crate) type OnSegment<'a> = dyn FnMut(u64, &SegmentHeader, Vec<Record>) -> Result<()> + 'a;

/// Where going through a pack ended.
#[derive(Debug, Default)]
pub(crate) struct ScanEnd {
    /// Where the valid segments begin.
    pub(crate) segment_offsets: Vec<u64>,
    /// Where the last valid segment ends.
    pub(crate) end: u64,
    /// Whether the pack has a footer.
    pub(crate) is_sealed: bool,
    /// Invalid parts with valid segments behind them.
    pub(crate) damage: Vec<(u64, Malformed)>,
    /// Why what follows `end` is no segment, if anything but a footer follows.
    pub(crate) torn: Option<Malformed>,
}

/// How segments lead from the beginning of a pack to some place in it.
#[derive(Debug)]
pub(crate) enum Lead {
    /// They begin at these places, and the last ends there.
    There(Vec<u64>),
    /// None begins or ends there.
    Past,
    /// The header at this place is none.
    Broken(u64, Malformed),
}

/// What is checked: nothing that is wrong on the disk is an error, only that the disk does
/// not answer is.
pub(crate) type Checked<T> = Result<std::result::Result<T, Malformed>>;

pub(crate) type Segment = (SegmentHeader, Vec<Record>);

/// Reads the segments of one pack.
pub(crate) struct Scanner<'a> {
    file: &'a dyn DiskFile,
    store_id: StoreId,
    /// Where the segments must end: where the footer begins, or the file ends.
    limit: u64,
    footer: Option<Footer>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, store_id: StoreId) -> Result<Self> {
        Self::up_to(file, store_id, MAX_PACK_BYTES)
    }

    /// As if the pack ended at `limit`.
    pub(crate) fn up_to(file: &'a dyn DiskFile, store_id: StoreId, limit: u64) -> Result<Self> {
        let limit = file.len()?.min(MAX_PACK_BYTES).min(limit);
        let mut scanner = Self { file, store_id, limit, footer: None };
        if let Some((at, footer)) = scanner.find_footer()? {
            (scanner.limit, scanner.footer) = (at, Some(footer));
        }
        Ok(scanner)
    }

    fn find_footer(&self) -> Result<Option<(u64, Footer)>> {
        let Some(tail_at) = self.limit.checked_sub(FOOTER_TAIL_BYTES as u64) else {
            return Ok(None);
        };
        let tail = self.file.read_at(tail_at, FOOTER_TAIL_BYTES)?;
        let len = tail.first_chunk().and_then(Footer::footer_len);
        let Some(len) = len.filter(|len| *len <= MAX_FOOTER_BYTES) else { return Ok(None) };
        let Some(at) = self.limit.checked_sub(len as u64) else { return Ok(None) };
        let footer = Footer::decode(&self.file.read_at(at, len)?, self.store_id);
        let in_pack = |offset: &u64| (PACK_HEADER_BYTES as u64..at).contains(offset);
        Ok(footer
            .ok()
            .filter(|footer| footer.segment_offsets.iter().all(in_pack))
            .map(|footer| (at, footer)))
    }

    /// Goes through the segments from `from` to the end, checking every byte.
    pub(crate) fn scan(&self, from: u64, on_segment: &mut OnSegment<'_>) -> Result<ScanEnd> {
        let is_sealed = self.footer.is_some();
        let mut end = ScanEnd { end: from, is_sealed, ..ScanEnd::default() };
        let mut offset = from;
        while offset < self.limit {
            match self.segment(offset)? {
                Ok((header, records)) => {
                    on_segment(offset, &header, records)?;
                    end.segment_offsets.push(offset);
                    offset += header.segment_len();
                    end.end = offset;
                }
                Err(problem) => {
                    let Some(next) = self.find_segment(offset + 1)? else {
                        end.torn = Some(problem);
                        break;
                    };
                    end.damage.push((offset, problem));
                    // If only a frame is damaged, all else that the segment brought is there.
                    if let Ok((header, records)) = self.records(offset)?
                        && offset + header.segment_len() == next
                    {
                        on_segment(offset, &header, records)?;
                        end.segment_offsets.push(offset);
                    }
                    offset = next;
                }
            }
        }
        Ok(end)
    }

    /// Goes through a sealed pack from `from` on by its footer: only the records are read and
    /// checked, the frames when somebody wants them. `None` if it has no valid footer, or one
    /// that knows of no segment at `from`.
    pub(crate) fn scan_by_footer(
        &self,
        from: u64,
        on_segment: &mut OnSegment<'_>,
    ) -> Result<Option<ScanEnd>> {
        let Some(footer) = &self.footer else { return Ok(None) };
        let offsets = &footer.segment_offsets;
        let known = offsets.partition_point(|offset| *offset < from);
        if offsets.get(known).copied().unwrap_or(self.limit) != from {
            return Ok(None);
        }
        let mut end = ScanEnd { end: self.limit, is_sealed: true, ..ScanEnd::default() };
        for offset in offsets[known..].iter().copied() {
            match self.records(offset)? {
                Ok((header, records)) => {
                    on_segment(offset, &header, records)?;
                    end.segment_offsets.push(offset);
                }
                Err(problem) => end.damage.push((offset, problem)),
            }
        }
        Ok(Some(end))
    }

    /// How segments lead to `to`: by the footer if there is a valid one, else by their headers.
    pub(crate) fn lead_to(&self, to: u64) -> Result<Lead> {
        // Whatever a footer says: nobody can be wrong about where they begin.
        if to == PACK_HEADER_BYTES as u64 {
            return Ok(Lead::There(Vec::new()));
        }
        if let Some(Footer { segment_offsets: offsets, .. }) = &self.footer {
            let before = offsets.partition_point(|offset| *offset < to);
            let next = offsets.get(before).copied().unwrap_or(self.limit);
            let lead = || Lead::There(offsets[..before].to_vec());
            return Ok(if next == to { lead() } else { Lead::Past });
        }
        let mut offsets = Vec::new();
        let mut offset = PACK_HEADER_BYTES as u64;
        while offset < to {
            match self.header(offset)? {
                Ok(header) => {
                    offsets.push(offset);
                    offset += header.segment_len();
                }
                Err(problem) => return Ok(Lead::Broken(offset, problem)),
            }
        }
        Ok(if offset == to { Lead::There(offsets) } else { Lead::Past })
    }

    /// Where the segments must end.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Where the footer says that segments begin, if the pack has a valid one.
    pub(crate) fn footer_offsets(&self) -> Option<&[u64]> {
        self.footer.as_ref().map(|footer| &footer.segment_offsets[..])
    }

    /// Whether there is a valid segment anywhere in the pack.
    pub(crate) fn has_segments(&self) -> Result<bool> {
        Ok(self.find_segment(0)?.is_some())
    }

    /// The first valid segment at or behind `from`.
    fn find_segment(&self, from: u64) -> Result<Option<u64>> {
        self.find(from, &|offset| Ok(self.segment(offset)?.is_ok()))
    }

    /// The first segment at or behind `from` whose records are valid, whatever its frames are.
    pub(crate) fn find_records(&self, from: u64) -> Result<Option<u64>> {
        self.find(from, &|offset| Ok(self.records(offset)?.is_ok()))
    }

    fn find(&self, from: u64, is_valid: &dyn Fn(u64) -> Result<bool>) -> Result<Option<u64>> {
        let mut window_at = from;
        while window_at < self.limit {
            let window = self.file.read_at(window_at, SEARCH_BYTES + SEGMENT_HEADER_BYTES)?;
            let mut position = 0;
            while let Some(found) = SegmentHeader::find(&window, position) {
                let offset = window_at + found as u64;
                if found < SEARCH_BYTES && is_valid(offset)? {
                    return Ok(Some(offset));
                }
                position = found + 1;
            }
            window_at += SEARCH_BYTES as u64;
        }
        Ok(None)
    }

    /// A whole segment, all of it checked.
    fn segment(&self, offset: u64) -> Checked<Segment> {
        let segment = self.records(offset)?;
        let Ok((header, _)) = &segment else { return Ok(segment) };
        let frames_at = offset + SEGMENT_HEADER_BYTES as u64;
        let frames = self.file.read_at(frames_at, header.frames_len as usize)?;
        Ok(check_frames(&frames).and(segment))
    }

    /// The header and the records of a segment, checked.
    pub(crate) fn records(&self, offset: u64) -> Checked<Segment> {
        let header = match self.header(offset)? {
            Ok(header) => header,
            Err(problem) => return Ok(Err(problem)),
        };
        let records_at = offset + header.records_offset();
        let bytes = self.file.read_at(records_at, header.records_len as usize)?;
        Ok(header.records(&bytes).map(|records| (header, records)))
    }

    /// The header of a segment, checked. Lengths are held against the pack and the limit
    /// before anything is allocated for them.
    fn header(&self, offset: u64) -> Checked<SegmentHeader> {
        let bytes = self.file.read_at(offset, SEGMENT_HEADER_BYTES)?;
        Ok(SegmentHeader::decode(&bytes, self.store_id).and_then(|header| {
            if header.segment_len() > self.limit.saturating_sub(offset) {
                Err(Malformed("the segment is cut off"))
            } else if header.segment_len() > MAX_SEGMENT_BYTES {
                Err(Malformed("the segment is larger than segments may be"))
            } else {
                Ok(header)
            }
        }))
    }
}

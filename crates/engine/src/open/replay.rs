//! Bringing the index up to date with the packs.
//!
//! With an index, everything behind its watermark is replayed: the rest of the pack that the
//! watermark lies in, and packs that the index does not know. Without one, everything is.
//! A crash can leave a torn end in the newest pack only, since a pack is durable before the
//! next is begun: there, and only if nothing valid follows, the end is cut off and kept
//! aside. Everything else that is invalid is damage: it is reported, and nothing is cut.

use std::collections::HashMap;

use granary_castore::{Error, Result};

use super::{
    CutTail, Damage, OpenError, OpenReport, Progress,
    packs::{self, FoundPack},
    scan::{Lead, Scanner},
};
use crate::{
    dead::DeadList,
    disk::Disk,
    format::{ObjectKind, PACK_HEADER_BYTES, Record, SegmentHeader, StoreId},
    index::{Index, Novelty, PackEntry, State, Update, Watermark},
    log::Tail,
    object_key::ObjectKey,
    packs::{PackId, Packs},
};

pub(super) struct Replay<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) index: &'a Index,
    pub(super) packs: &'a Packs,
    pub(super) store_id: StoreId,
    pub(super) dead: &'a DeadList,
    pub(super) state: State,
    pub(super) report: &'a mut OpenReport,
    pub(super) progress: Option<&'a (dyn Fn(Progress) + Sync)>,
}

/// A pack that may hold segments that the index does not have.
struct Candidate {
    handle: u32,
    id: PackId,
    pack: FoundPack,
    /// Where to begin.
    from: u64,
    /// The index says that nothing more comes to it.
    is_sealed: bool,
}

impl Replay<'_> {
    /// Replays, and returns the pack to go on with and the next free handle.
    pub(super) fn run(&mut self) -> Result<(Option<Tail>, u32), OpenError> {
        let mut found = packs::find(self.disk, self.store_id)?;
        let known = self.index.packs().map_err(Error::from)?;
        let mut next_handle =
            known.iter().map(|(handle, _)| handle.saturating_add(1)).max().unwrap_or(0);
        if let Some(id) = self.collected_pack(&known, &found) {
            let problem = format!("the index is older than a collection that removed pack {id}");
            return Err(Error::corrupt(problem).into());
        }
        let mut candidates = self.known_packs(known, &mut found);
        candidates.extend(self.unknown_packs(found, &mut next_handle)?);
        // IMPORTANT: before anything is replayed. What was written anew since the list was made
        // is only taken in if the index does not have it where it is dead.
        self.follow_dead_list()?;
        // Oldest first. A pack without a first segment was just begun.
        candidates.sort_by_key(|candidate| {
            let first_stamp = candidate.pack.first_stamp;
            (first_stamp.is_none(), first_stamp, candidate.id)
        });
        let tail = self.replay(candidates)?;
        Ok((tail, next_handle))
    }

    /// A pack that a collection may have removed of which the index does not know. What was moved
    /// out of it lies where the index would not look, and what was deleted would come back: such
    /// an index is of no use.
    fn collected_pack(
        &self,
        known: &[(u32, PackEntry)],
        found: &HashMap<PackId, FoundPack>,
    ) -> Option<PackId> {
        if self.dead.generation <= self.state.dead_generation {
            return None;
        }
        known.iter().map(|(_, entry)| PackId(entry.id)).find(|id| !found.contains_key(id))
    }

    /// Takes the packs that the index knows out of `found`, and returns those that may
    /// have more than the index: the one with the watermark, and others that were begun
    /// but had nothing when the index was last written.
    fn known_packs(
        &mut self,
        known: Vec<(u32, PackEntry)>,
        found: &mut HashMap<PackId, FoundPack>,
    ) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (handle, entry) in known {
            let id = PackId(entry.id);
            self.packs.add(handle, id);
            let Some(pack) = found.remove(&id) else {
                self.damaged(id, 0, "the pack is missing");
                continue;
            };
            if let Some(problem) = &pack.header_problem {
                self.damaged(id, 0, problem);
            }
            let watermark = self.state.watermark;
            let from = if handle == watermark.pack && watermark.offset > 0 {
                watermark.offset
            } else {
                PACK_HEADER_BYTES as u64
            };
            if pack.len < from {
                self.damaged(id, pack.len, "the pack is cut off");
            } else if handle == watermark.pack || !entry.sealed {
                candidates.push(Candidate { handle, id, pack, from, is_sealed: entry.sealed });
            }
        }
        candidates
    }

    /// Gives handles to the packs that the index does not know.
    fn unknown_packs(
        &mut self,
        found: HashMap<PackId, FoundPack>,
        next_handle: &mut u32,
    ) -> Result<Vec<Candidate>> {
        let mut candidates = Vec::new();
        for (id, pack) in found {
            // A crash while a pack was made leaves a name and perhaps half a header, or a
            // header and nothing else.
            if pack.is_empty() {
                packs::remove_empty(self.disk, id)?;
                continue;
            }
            if pack.header_problem.is_some() && !self.has_segments(id)? {
                let kept_in = packs::set_aside(self.disk, id)?;
                let len = pack.len;
                self.report.cut_tails.push(CutTail { pack: id, offset: 0, len, kept_in });
                continue;
            }
            if let Some(problem) = &pack.header_problem {
                self.damaged(id, 0, problem);
            }
            let handle = *next_handle;
            *next_handle = handle
                .checked_add(1)
                .ok_or_else(|| Error::corrupt("the index has no numbers left for packs"))?;
            self.packs.add(handle, id);
            let from = PACK_HEADER_BYTES as u64;
            candidates.push(Candidate { handle, id, pack, from, is_sealed: false });
        }
        Ok(candidates)
    }

    /// Removes dead objects from an index that was written before the list of them.
    fn follow_dead_list(&mut self) -> Result<()> {
        if self.dead.generation <= self.state.dead_generation {
            if self.dead.generation < self.state.dead_generation
                && self.report.dead_list_problem.is_none()
            {
                self.report.dead_list_problem =
                    Some("it is missing, or older than the index".to_owned());
            }
            return Ok(());
        }
        for (handle, entry) in self.index.packs()? {
            let Some(keys) = self.dead.packs.get(&PackId(entry.id)) else { continue };
            let mut update = Update::default();
            for key in keys {
                if self.index.pack_of(key)? == Some(handle) {
                    let totals = self.index.totals_of(key)?;
                    self.state.totals.subtract(&totals.unwrap_or_default());
                    update.remove(key);
                }
            }
            update.set_state(&self.state);
            self.index.apply(update)?;
        }
        self.state.dead_generation = self.dead.generation;
        let mut update = Update::default();
        update.set_state(&self.state);
        Ok(self.index.apply(update)?)
    }

    fn has_segments(&self, id: PackId) -> Result<bool> {
        let Some(file) = self.disk.open(&id.file_name())? else { return Ok(false) };
        Scanner::new(&*file, self.store_id)?.has_segments()
    }

    fn replay(&mut self, candidates: Vec<Candidate>) -> Result<Option<Tail>, OpenError> {
        let total_bytes = candidates.iter().map(|candidate| candidate.pack.len).sum();
        let mut done_bytes = 0;
        let mut tail = None;
        // Packs that were begun and got nothing are newer, but prove nothing. If several
        // have something and none a valid beginning, that was no crash: none is the newest.
        let newest = candidates
            .iter()
            .rposition(|candidate| candidate.pack.first_stamp.is_some())
            .unwrap_or_else(|| {
                let is_begun = |candidate: &&Candidate| !candidate.pack.is_empty();
                if candidates.iter().filter(is_begun).count() > 1 { usize::MAX } else { 0 }
            });
        for (position, candidate) in candidates.into_iter().enumerate() {
            let pack_len = candidate.pack.len;
            tail = self.replay_pack(candidate, position >= newest)?.or(tail);
            done_bytes += pack_len;
            if let Some(progress) = self.progress {
                progress(Progress { done_bytes, total_bytes });
            }
        }
        Ok(tail)
    }

    /// Replays one pack. Returns it if it can be appended to.
    fn replay_pack(&mut self, candidate: Candidate, is_newest: bool) -> Result<Option<Tail>> {
        let Candidate { handle, id, pack, from, is_sealed } = candidate;
        let Some(file) = self.disk.open(&id.file_name())? else {
            self.damaged(id, 0, "the pack is missing");
            return Ok(None);
        };
        // IMPORTANT: a process that was killed may have written without a sync. What is
        // indexed counts as durable from then on, so it must be.
        file.sync()?;
        let scanner = Scanner::new(&*file, self.store_id)?;
        let on_segment = &mut |offset, header: &SegmentHeader, mut records: Vec<Record>| {
            self.leave_out_dead(id, &mut records);
            self.apply(handle, id, offset, header, &records)
        };
        // IMPORTANT: before anything is replayed. If the index is wrong about where it ends, what lies there looks like
        // damage or like what a crash has torn, and segments may lie before it that the index does not have.
        let lead = scanner.lead_to(from)?;
        if matches!(lead, Lead::Past) {
            let problem = format!(
                "no segment begins or ends at byte {from} of pack {id}, where the index ends"
            );
            return Err(Error::corrupt(problem));
        }
        let by_footer = scanner.scan_by_footer(from, on_segment)?;
        let end = if let Some(end) = by_footer { end } else { scanner.scan(from, on_segment)? };
        for (offset, problem) in &end.damage {
            self.damaged(id, *offset, &problem.to_string());
        }
        let mut was_damaged = !end.damage.is_empty() || pack.header_problem.is_some();
        if let Some(problem) = end.torn {
            // That the index ends there nothing but the index says then.
            if let Lead::Broken(offset, problem) = &lead {
                self.damaged(id, *offset, &problem.to_string());
                was_damaged = true;
            }
            // With a damaged part before it, a footer behind it, or a newer pack, this was
            // no crash.
            if !is_newest || was_damaged || end.is_sealed {
                self.damaged(id, end.end, &problem.to_string());
                self.set_pack(handle, id, true)?;
                return Ok(None);
            }
            let len = pack.len.saturating_sub(end.end);
            let kept_in = packs::cut_tail(self.disk, id, &*file, end.end, len)?;
            self.report.cut_tails.push(CutTail { pack: id, offset: end.end, len, kept_in });
        }
        // IMPORTANT: what is dead in a pack must not come to it again: it would count as dead.
        let has_dead = self.dead.packs.contains_key(&id);
        let is_sealed = is_sealed || end.is_sealed || was_damaged || !is_newest || has_dead;
        self.set_pack(handle, id, is_sealed)?;
        match lead {
            _ if is_sealed => Ok(None),
            Lead::There(mut offsets) => {
                offsets.extend(end.segment_offsets);
                Ok(Some(Tail::resume(handle, id, file, end.end, offsets)))
            }
            Lead::Broken(..) | Lead::Past => {
                tracing::warn!(pack = %id, "the pack has unreadable segment headers; it is left as it is");
                Ok(None)
            }
        }
    }

    /// Takes what is dead out of the records of a segment.
    fn leave_out_dead(&self, id: PackId, records: &mut Vec<Record>) {
        let Some(dead) = self.dead.packs.get(&id) else { return };
        records.retain_mut(|record| match record {
            Record::Frame(frame) => {
                for object in &mut frame.objects {
                    if object.kind != ObjectKind::Duplicate && dead.contains(&ObjectKey::of(object))
                    {
                        object.kind = ObjectKind::Duplicate;
                    }
                }
                true
            }
            Record::Blob(blob) => !dead.contains(&ObjectKey::Blob(blob.digest)),
            Record::Value(_) => true,
        });
    }

    fn apply(
        &mut self,
        handle: u32,
        id: PackId,
        offset: u64,
        header: &SegmentHeader,
        records: &[Record],
    ) -> Result<()> {
        let mut update = Update::default();
        let totals = &mut self.state.totals;
        update.add_segment(self.index, Novelty::Unknown, handle, offset, records, totals)?;
        // Damage can bring packs out of order: the watermark only goes forward.
        if header.stamp >= self.state.watermark.stamp {
            let offset = offset + header.segment_len();
            self.state.watermark = Watermark { pack: handle, offset, stamp: header.stamp };
        }
        update.set_pack(handle, PackEntry { id: id.0, sealed: false });
        update.set_state(&self.state);
        self.index.apply(update)?;
        self.report.replayed_segments += 1;
        Ok(())
    }

    /// Notes what was found out about a pack. If that is nothing new, the index is left as it
    /// is: or each run that only reads would write a table with this entry.
    fn set_pack(&mut self, handle: u32, id: PackId, sealed: bool) -> Result<()> {
        let entry = PackEntry { id: id.0, sealed };
        if self.index.pack(handle)? == Some(entry) {
            return Ok(());
        }
        let mut update = Update::default();
        update.set_pack(handle, entry);
        Ok(self.index.apply(update)?)
    }

    fn damaged(&mut self, pack: PackId, offset: u64, problem: &str) {
        self.report.damage.push(Damage { pack, offset, problem: problem.to_owned() });
    }
}

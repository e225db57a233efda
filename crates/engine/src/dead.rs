//! Objects that lie in packs and count as not stored: garbage that was not swept yet, and what
//! was found to be damaged.
//!
//! The list is a file beside the packs, since packs never change. Each list takes the place of
//! the one before it as a whole. The index says which list it has followed; if that is not the
//! one that is there, opening follows it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use granary_castore::{Error, Result};

use crate::{
    disk::{Disk, DiskFile},
    format::{
        DEAD_LIST_HEADER_BYTES, DEAD_SECTION_BYTES, DeadListHeader, Malformed, StoreId,
        decode_section, encode_section, section_start,
    },
    object_key::ObjectKey,
    packs::{PACKS_DIR, PackId},
};

/// Its name in the data directory: where the packs are, since it belongs to them.
const FILE: &str = "packs/dead";

/// Its name while it is written.
const NEW_FILE: &str = "packs/dead.new";

/// The dead objects of all packs. Those of packs that are gone mean nothing.
#[derive(Debug, Default)]
pub(crate) struct DeadList {
    /// 0 if there is no list.
    pub(crate) generation: u64,
    pub(crate) packs: HashMap<PackId, HashSet<ObjectKey>>,
}

/// Why there is a list that cannot be used.
pub(crate) enum Unusable {
    /// It is damaged. What was dead may come back to life, and refer to what is gone.
    Damaged(Malformed),
    /// The disk does not answer.
    Unread(Error),
}

impl From<Unusable> for Error {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Damaged(problem) => {
                Self::corrupt("the list of dead objects is damaged").because(problem)
            }
            Unusable::Unread(error) => error,
        }
    }
}

impl From<Malformed> for Unusable {
    fn from(problem: Malformed) -> Self {
        Self::Damaged(problem)
    }
}

impl From<crate::disk::DiskError> for Unusable {
    fn from(error: crate::disk::DiskError) -> Self {
        Self::Unread(error.into())
    }
}

impl DeadList {
    /// Whether a file among the packs is a list, or was to become one.
    pub(crate) fn is_named(name: &str) -> bool {
        [FILE, NEW_FILE].iter().any(|file| file.rsplit('/').next() == Some(name))
    }

    /// Reads the list, if there is one.
    pub(crate) fn read(disk: &dyn Disk, store_id: StoreId) -> Result<Self, Unusable> {
        let mut list = Self::default();
        if let Some(mut reader) = DeadListReader::open(disk, store_id)? {
            list.generation = reader.header.generation;
            while let Some((pack, keys)) = reader.next()? {
                list.packs.entry(pack).or_default().extend(keys);
            }
        }
        Ok(list)
    }

    /// Writes it in the place of the one before, durably. Its generation must be greater.
    pub(crate) fn write(&self, disk: &dyn Disk, store_id: StoreId) -> Result<()> {
        let mut writer = DeadListWriter::new(disk, store_id, self.generation)?;
        for (pack, keys) in &self.packs {
            let mut keys: Vec<_> = keys.iter().copied().collect();
            keys.sort_unstable();
            writer.section(*pack, &keys)?;
        }
        writer.finish()
    }
}

/// Reads a list, pack by pack.
struct DeadListReader {
    file: Arc<dyn DiskFile>,
    store_id: StoreId,
    header: DeadListHeader,
    len: u64,
    offset: u64,
    sections_left: u32,
}

impl DeadListReader {
    /// `None` if there is no list.
    fn open(disk: &dyn Disk, store_id: StoreId) -> Result<Option<Self>, Unusable> {
        let Some(file) = disk.open(FILE)? else { return Ok(None) };
        let header = DeadListHeader::decode(&file.read_at(0, DEAD_LIST_HEADER_BYTES)?, store_id)?;
        Ok(Some(Self {
            len: file.len()?,
            file,
            store_id,
            header,
            offset: DEAD_LIST_HEADER_BYTES as u64,
            sections_left: header.section_count,
        }))
    }

    fn next(&mut self) -> Result<Option<(PackId, Vec<ObjectKey>)>, Unusable> {
        if self.sections_left == 0 {
            return Ok(None);
        }
        let start = self.file.read_at(self.offset, DEAD_SECTION_BYTES)?;
        let (pack, section_len) = section_start(&start)?;
        if section_len > self.len.saturating_sub(self.offset) {
            return Err(Malformed("a section is cut off").into());
        }
        let len = usize::try_from(section_len).map_err(|_| Malformed("a section is too long"))?;
        let keys = decode_section(&self.file.read_at(self.offset, len)?, self.store_id)?;
        self.offset += section_len;
        self.sections_left -= 1;
        Ok(Some((PackId(pack), keys)))
    }
}

/// Generation of the list that is there; 0 if there is none.
pub(crate) fn generation(disk: &dyn Disk, store_id: StoreId) -> Result<u64, Unusable> {
    Ok(DeadListReader::open(disk, store_id)?.map_or(0, |reader| reader.header.generation))
}

/// Puts a list in the place of the one that is there, without the packs that are gone.
pub(crate) fn tidy(
    disk: &dyn Disk,
    store_id: StoreId,
    generation: u64,
    is_there: impl Fn(PackId) -> bool,
) -> Result<()> {
    let Some(mut reader) = DeadListReader::open(disk, store_id)? else { return Ok(()) };
    let mut writer = DeadListWriter::new(disk, store_id, generation)?;
    while let Some((pack, keys)) = reader.next()? {
        if is_there(pack) {
            writer.section(pack, &keys)?;
        }
    }
    writer.finish()
}

/// Writes a list, pack by pack.
pub(crate) struct DeadListWriter<'a> {
    disk: &'a dyn Disk,
    file: Arc<dyn DiskFile>,
    store_id: StoreId,
    header: DeadListHeader,
    len: u64,
}

impl<'a> DeadListWriter<'a> {
    pub(crate) fn new(disk: &'a dyn Disk, store_id: StoreId, generation: u64) -> Result<Self> {
        if disk.open(NEW_FILE)?.is_some() {
            // A crash has left it.
            disk.remove(NEW_FILE)?;
        }
        let file = disk.create(NEW_FILE)?;
        let header = DeadListHeader { generation, section_count: 0 };
        Ok(Self { disk, file, store_id, header, len: DEAD_LIST_HEADER_BYTES as u64 })
    }

    /// Adds the dead objects of a pack, if there are any.
    pub(crate) fn section(&mut self, pack: PackId, keys: &[ObjectKey]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let section = encode_section(self.store_id, pack.0, keys);
        self.file.write_at(&section, self.len)?;
        self.len += section.len() as u64;
        self.header.section_count += 1;
        Ok(())
    }

    /// Puts it in the place of the list before, durably.
    pub(crate) fn finish(self) -> Result<()> {
        self.file.write_at(&self.header.encode(self.store_id), 0)?;
        self.file.sync()?;
        self.disk.rename(NEW_FILE, FILE)?;
        Ok(self.disk.sync_dir(PACKS_DIR)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{disk::OsDisk, format::ObjectKind};

    #[test]
    fn round_trips_and_is_replaced_as_a_whole() {
        const STORE: StoreId = StoreId([6; 16]);
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        let disk = OsDisk::new(dir.path());
        disk.create_dir(PACKS_DIR).expect("made");
        let read = || DeadList::read(&disk, STORE).ok().expect("it is whole, or not there");
        assert_eq!(read().generation, 0);
        let key = |byte: u8| ObjectKey::Object(ObjectKind::Chunk, [byte; 32]);
        let (one, two) = (PackId([1; 16]), PackId([2; 16]));
        let mut list = DeadList { generation: 1, packs: HashMap::new() };
        list.packs.insert(one, (0..100).map(key).collect());
        list.packs.insert(two, HashSet::from([ObjectKey::Blob([7; 32])]));
        list.write(&disk, STORE).expect("written");
        let found = read();
        assert_eq!((found.generation, &found.packs), (1, &list.packs));
        // As a crash may leave it.
        std::fs::write(dir.path().join(NEW_FILE), b"half").expect("written");
        list.generation = 2;
        list.packs.remove(&one);
        list.write(&disk, STORE).expect("written");
        assert_eq!(read().packs, list.packs);
        let damaged = DeadList::read(&disk, StoreId([7; 16]));
        assert!(matches!(damaged, Err(Unusable::Damaged(_))), "that of another store");
    }
}

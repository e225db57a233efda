//! NARs: what is read is written again as the same bytes, and a store takes just that.

use std::io::{self, BufReader, Read};

use granary_castore::{Castore, MemoryStore};
use granary_nix_formats::nar::{Error, Event, Reader, Writer};
use granary_store::{IngestError, NarPlan, ingest_nar};
use sha2::{Digest, Sha256};

/// Reads `data` as a NAR in every way there is.
///
/// # Panics
///
/// If two ways disagree on whether it is one, or what comes out is not what went in.
pub fn check(data: &[u8]) {
    let copied = copy(data);
    let skipped = Reader::new(data).finish();
    assert_eq!(copied.is_ok(), skipped.is_ok(), "{copied:?}, but skipping {skipped:?}");
    let pieces = BufReader::with_capacity(1 + data.len() % 61, data);
    let pieces = Reader::new(pieces).finish().map(drop);
    assert_eq!(format!("{pieces:?}"), format!("{:?}", skipped.map(drop)), "in pieces");
    let memory = MemoryStore::default();
    let mut batch = memory.batch().expect("memory takes writes");
    let ingested = match (copied, ingest_nar(data, &mut *batch)) {
        (Ok(copy), Ok(ingested)) => {
            assert!(copy == data, "a NAR was written as other bytes");
            ingested
        }
        (Err(_), Err(IngestError::Malformed(_))) => return,
        (copied, ingested) => panic!("read as {copied:?}, taken in as {ingested:?}"),
    };
    batch.commit().expect("memory takes writes");
    let mut batch = memory.batch().expect("memory takes writes");
    let pieces = Pieces { bytes: data, piece_bytes: 1 + data.len() % 59 };
    assert_eq!(ingest_nar(pieces, &mut *batch).expect("it was a NAR in one piece"), ingested);
    assert_eq!(ingested.nar.nar_size, data.len() as u64);
    assert_eq!(*ingested.nar.nar_hash.as_bytes(), <[u8; 32]>::from(Sha256::digest(data)));
    let plan = NarPlan::new(&memory, &ingested.node).expect("memory can be read");
    let mut rendered = Vec::new();
    let plan = plan.expect("all directories were put");
    plan.write_to(&memory, &mut rendered).expect("all blobs were put");
    assert!(rendered == data, "a NAR was rendered as other bytes");
}

/// Gives at most so many bytes at a time.
struct Pieces<'a> {
    bytes: &'a [u8],
    piece_bytes: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(self.piece_bytes);
        self.bytes.read(&mut buf[..len])
    }
}

/// Writes the events of a NAR again; contents come in pieces of a length that `nar` decides.
fn copy(nar: &[u8]) -> Result<Vec<u8>, Error> {
    let mut reader = Reader::new(nar);
    let mut writer = Writer::new(Vec::new())?;
    let mut piece = vec![0; 1 + nar.len() % 97];
    let mut depth = 0;
    while let Some(event) = reader.next()? {
        let ends_node = match event {
            Event::Directory => {
                writer.directory()?;
                depth += 1;
                false
            }
            Event::Entry { name } => {
                writer.entry(&name)?;
                false
            }
            Event::EndDirectory => {
                writer.end_directory()?;
                depth -= 1;
                true
            }
            Event::Symlink { target } => {
                writer.symlink(&target)?;
                true
            }
            Event::File { executable, size } => {
                writer.file_header(executable, size)?;
                loop {
                    match reader.read_data(&mut piece)? {
                        0 => break,
                        read => writer.file_data(&piece[..read])?,
                    }
                }
                writer.end_file()?;
                true
            }
        };
        if ends_node && depth > 0 {
            writer.end_entry()?;
        }
    }
    reader.finish()?;
    writer.finish()
}

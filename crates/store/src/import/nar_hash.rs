//! The hash of the NAR of a walk.

use std::sync::mpsc::Receiver;

use granary_nix_formats::{NarHash, nar};
use sha2::{Digest, Sha256};

use super::step::{Packet, Step};
use crate::NarDigest;

/// Hashes the NAR that the steps of a walk make, up to the end of the queue. Of a walk that
/// did not come to its end there is no NAR, which is an error.
pub(super) fn hash(packets: &Receiver<Packet>) -> Result<NarDigest, nar::Error> {
    let mut nar = nar::Writer::new(HashSink(Sha256::new()))?;
    let mut depth = 0_usize;
    for packet in packets {
        for step in packet.iter() {
            let is_end = write(&mut nar, step)?;
            match step {
                Step::Directory => depth += 1,
                Step::EndDirectory => depth = depth.saturating_sub(1),
                _ => {}
            }
            // Every node but the root is the end of an entry.
            if is_end && depth > 0 {
                nar.end_entry()?;
            }
        }
    }
    let nar_size = nar.position();
    let HashSink(hasher) = nar.finish()?;
    Ok(NarDigest { nar_size, nar_hash: NarHash::from_bytes(hasher.finalize().into()) })
}

/// Writes one step, and says whether it ends a node.
fn write(nar: &mut nar::Writer<HashSink>, step: &Step) -> Result<bool, nar::Error> {
    match step {
        Step::Directory => nar.directory()?,
        Step::Entry { name } => nar.entry(name)?,
        Step::EndDirectory => {
            nar.end_directory()?;
            return Ok(true);
        }
        Step::Symlink { target } => {
            nar.symlink(target)?;
            return Ok(true);
        }
        Step::File { executable, contents } => {
            nar.file_header(*executable, contents.len() as u64)?;
            nar.file_data(contents)?;
            nar.end_file()?;
            return Ok(true);
        }
        Step::LargeFile { executable, size_bytes } => nar.file_header(*executable, *size_bytes)?,
        Step::Data(data) => nar.file_data(data)?,
        Step::EndLargeFile => {
            nar.end_file()?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Hashes what is written to it.
struct HashSink(Sha256);

impl std::io::Write for HashSink {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.update(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

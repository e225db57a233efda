//! Large writes, which go around the page cache.
//!
//! What is written through it costs a page of memory for each page that is written, and pushes out
//! what is read: docs/decisions/0008.

use std::{fs::File, io, os::unix::fs::FileExt};

/// From how many bytes on a write goes around the page cache. What is smaller is read soon, as a
/// rule, and costs little.
pub(super) const MIN_DIRECT_BYTES: usize = 1 << 20;

/// How much goes to the disk at a time, out of a buffer that lies in memory as it wants it.
const DIRECT_WRITE_BYTES: usize = 1 << 20;

/// What offsets in the file and in memory have to be multiples of: of no disk that is in use is a
/// block larger.
const BLOCK_BYTES: usize = 4096;

/// Writes all of `data` at `offset` of `file`, whole blocks of it around the page cache. Where
/// that cannot be, all of it goes through the page cache.
pub(super) fn write_all_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    let Some(direct) = reopen(file) else { return file.write_all_at(data, offset) };
    // Blocks that are only in part of this write go through the page cache, since the rest of
    // them may be there.
    let before = offset.next_multiple_of(BLOCK_BYTES as u64) - offset;
    let before = usize::try_from(before).map_or(data.len(), |before| before.min(data.len()));
    let (first, rest) = data.split_at(before);
    let (blocks, last) = rest.split_at(rest.len() - rest.len() % BLOCK_BYTES);
    file.write_all_at(first, offset)?;
    let mut at = offset + first.len() as u64;
    let mut buffer = vec![0; DIRECT_WRITE_BYTES + BLOCK_BYTES];
    let aligned = buffer.as_ptr().align_offset(BLOCK_BYTES);
    for piece in blocks.chunks(DIRECT_WRITE_BYTES) {
        let copy = &mut buffer[aligned..][..piece.len()];
        copy.copy_from_slice(piece);
        match direct.write_all_at(copy, at) {
            // The disk wants larger blocks, or wrote a part that does not end with one.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                file.write_all_at(piece, at)?;
            }
            written => written?,
        }
        at += piece.len() as u64;
    }
    file.write_all_at(last, at)
}

/// The same file, to be written around the page cache; `None` if its file system has no such thing.
#[cfg(target_os = "linux")]
fn reopen(file: &File) -> Option<File> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{CWD, Mode, OFlags, openat};

    // Not by its name: whatever was done to that meanwhile, this is the same file.
    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    openat(CWD, same, flags, Mode::empty()).ok().map(File::from)
}

#[cfg(not(target_os = "linux"))]
fn reopen(_file: &File) -> Option<File> {
    None
}

#[cfg(test)]
mod tests {
    use granary_testkit::Random;
    use tempfile::NamedTempFile;

    use super::*;

    fn temporary_file() -> File {
        NamedTempFile::new().expect("a temporary file").into_file()
    }

    fn contents(file: &File) -> Vec<u8> {
        let len = file.metadata().expect("it is open").len();
        let mut contents = vec![0; usize::try_from(len).expect("it is small")];
        file.read_exact_at(&mut contents, 0).expect("readable");
        contents
    }

    #[test]
    fn all_bytes_arrive_wherever_they_begin_and_end() {
        let data = Random::new(1).incompressible(3 * DIRECT_WRITE_BYTES);
        let offsets = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 10_000];
        let lens = [
            0,
            1,
            BLOCK_BYTES,
            2 * BLOCK_BYTES + 1,
            DIRECT_WRITE_BYTES,
            DIRECT_WRITE_BYTES + 100,
            2 * DIRECT_WRITE_BYTES + BLOCK_BYTES,
            3 * DIRECT_WRITE_BYTES - 1,
        ];
        for (offset, len) in offsets.into_iter().flat_map(|at| lens.map(|len| (at, len))) {
            let file = temporary_file();
            // What is there before and behind stays, which is in the page cache alone here.
            let mut expected = vec![b'x'; offset + len + 5000];
            file.write_all_at(&expected, 0).expect("written");
            expected[offset..offset + len].copy_from_slice(&data[..len]);
            write_all_at(&file, &data[..len], offset as u64).expect("written");
            assert!(contents(&file) == expected, "{len} bytes at {offset}");
        }
    }

    #[test]
    fn a_file_grows_by_what_is_written() {
        let file = temporary_file();
        let data = Random::new(2).incompressible(2 * DIRECT_WRITE_BYTES + 10);
        let mut expected = Vec::new();
        for _ in 0..3 {
            write_all_at(&file, &data, expected.len() as u64).expect("written");
            expected.extend_from_slice(&data);
        }
        assert!(contents(&file) == expected);
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let file = NamedTempFile::new().expect("a temporary file");
        let read_only = File::open(file.path()).expect("it is there");
        let data = vec![1; 2 * DIRECT_WRITE_BYTES];
        // Aligned, so that nothing but what goes around the page cache is tried first.
        let (file, end) = (file.as_file(), u64::try_from(i64::MAX).expect("positive"));
        assert!(write_all_at(file, &data, end / 4096 * 4096).is_err());
        assert!(write_all_at(&read_only, &data, 1).is_err());
    }

    /// Blocks of the first `blocks` that are in the page cache, as far as the file system tells.
    #[cfg(target_os = "linux")]
    fn cached_blocks(file: &File, blocks: usize) -> usize {
        use std::io::IoSliceMut;

        use rustix::io::{ReadWriteFlags, preadv2};

        let is_cached = |number: &usize| {
            let mut block = [0; BLOCK_BYTES];
            let offset = (number * BLOCK_BYTES) as u64;
            preadv2(file, &mut [IoSliceMut::new(&mut block)], offset, ReadWriteFlags::NOWAIT)
                .is_ok_and(|read| read > 0)
        };
        (0..blocks).filter(is_cached).count()
    }

    /// Whether what is written directly to such a file, by no code of ours, stays out of the page
    /// cache.
    #[cfg(target_os = "linux")]
    fn can_go_around() -> bool {
        use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt};

        use rustix::fs::OFlags;

        let file = NamedTempFile::new().expect("a temporary file");
        let flags = i32::try_from(OFlags::DIRECT.bits()).expect("a flag of open");
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(file.path());
        let buffer = [0; 2 * BLOCK_BYTES];
        let aligned = buffer.as_ptr().align_offset(BLOCK_BYTES);
        let block = &buffer[aligned..][..BLOCK_BYTES];
        direct.and_then(|direct| direct.write_all_at(block, 0)).is_ok()
            && cached_blocks(file.as_file(), 1) == 0
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_written_stays_out_of_the_page_cache_where_it_can() {
        let (file, blocks) = (temporary_file(), 3 * DIRECT_WRITE_BYTES / BLOCK_BYTES);
        write_all_at(&file, &vec![1; blocks * BLOCK_BYTES], 10).expect("written");
        assert_eq!(cached_blocks(&file, blocks) <= 1, can_go_around());
    }
}

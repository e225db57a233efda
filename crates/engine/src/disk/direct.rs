//! Large writes, which go around the page cache.
//!
//! What is written through it costs a page of memory for each page that is written, and pushes out
//! what is read: docs/decisions/0008.

use std::{cell::RefCell, fs::File, io, os::unix::fs::FileExt};

/// From how many bytes on a write goes around the page cache. What is smaller is read soon, as a
/// rule, and costs little.
pub(super) const MIN_DIRECT_BYTES: usize = 1 << 20;

/// How much goes to the disk at a time, out of a buffer that lies in memory as it wants it.
const DIRECT_WRITE_BYTES: usize = 1 << 20;

/// What offsets in the file and in memory have to be multiples of: of no disk that is in use is a
/// block larger.
const BLOCK_BYTES: usize = 4096;

thread_local! {
    /// Room for what is being written, and for where in it a block begins. It is kept, since memory
    /// that is new costs what writing around the page cache is to spare; one thread writes packs.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes all `pieces` at `offset` of `file`, which is open for writing, one behind the other, whole
/// blocks of them around the page cache. Where that cannot be, all of it goes through the page cache.
pub(super) fn write_all_at(file: &File, pieces: &[&[u8]], offset: u64) -> io::Result<()> {
    let cached = |data: &[u8], offset| file.write_all_at(data, offset);
    match reopen(file) {
        Some(direct) => {
            write_around(pieces, offset, cached, |data, offset| direct.write_all_at(data, offset))
        }
        None => write_around(pieces, offset, cached, cached),
    }
}

/// Writes whole blocks by `direct`, the rest by `cached`.
fn write_around(
    pieces: &[&[u8]],
    offset: u64,
    cached: impl Fn(&[u8], u64) -> io::Result<()>,
    direct: impl Fn(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    let len: usize = pieces.iter().map(|piece| piece.len()).sum();
    // Blocks that are only in part of this write go through the page cache, since the rest of
    // them may be there.
    let before = offset.next_multiple_of(BLOCK_BYTES as u64) - offset;
    let before = usize::try_from(before).map_or(len, |before| before.min(len));
    let behind = (len - before) % BLOCK_BYTES;
    let mut pieces = Pieces { pieces, first: &[] };
    let mut at = offset;
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(DIRECT_WRITE_BYTES + BLOCK_BYTES, 0);
        let aligned = buffer.as_ptr().align_offset(BLOCK_BYTES);
        let mut write = |len, are_blocks| {
            let data = &mut buffer[aligned..][..len];
            pieces.take(data);
            match if are_blocks { direct(data, at) } else { cached(data, at) } {
                // The disk wants larger blocks, or wrote a part that does not end with one.
                Err(error) if are_blocks && error.kind() == io::ErrorKind::InvalidInput => {
                    cached(data, at)?;
                }
                written => written?,
            }
            at += len as u64;
            Ok(())
        };
        write(before, false)?;
        let mut blocks = len - before - behind;
        while blocks > 0 {
            let len = blocks.min(DIRECT_WRITE_BYTES);
            write(len, true)?;
            blocks -= len;
        }
        write(behind, false)
    })
}

/// Bytes that lie in several pieces.
struct Pieces<'a> {
    pieces: &'a [&'a [u8]],
    /// What is left of the one before.
    first: &'a [u8],
}

impl Pieces<'_> {
    /// Takes the next bytes, of which there must be as many as `into` has.
    fn take(&mut self, mut into: &mut [u8]) {
        while !into.is_empty() {
            if self.first.is_empty() {
                let [first, rest @ ..] = self.pieces else {
                    unreachable!("whoever takes has counted them");
                };
                (self.first, self.pieces) = (first, rest);
            }
            let len = into.len().min(self.first.len());
            let (filled, rest) = into.split_at_mut(len);
            filled.copy_from_slice(&self.first[..len]);
            self.first = &self.first[len..];
            into = rest;
        }
    }
}

/// The same file, to be written around the page cache; `None` if that cannot be had, most likely
/// because its file system has no such thing.
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

    const OFFSETS: [usize; 6] = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 10_000];
    const LENS: [usize; 8] = [
        0,
        1,
        BLOCK_BYTES,
        2 * BLOCK_BYTES + 1,
        DIRECT_WRITE_BYTES,
        DIRECT_WRITE_BYTES + 100,
        2 * DIRECT_WRITE_BYTES + BLOCK_BYTES,
        3 * DIRECT_WRITE_BYTES - 1,
    ];

    fn each_place(mut check: impl FnMut(usize, usize)) {
        for offset in OFFSETS {
            for len in LENS {
                check(offset, len);
            }
        }
    }

    /// Some pieces of it, shorter and longer than blocks and than what is written at a time.
    fn divided(mut data: &[u8]) -> Vec<&[u8]> {
        let mut pieces = Vec::new();
        for len in
            [64, 0, 1, 5_000, 100, DIRECT_WRITE_BYTES + 300, 3 * BLOCK_BYTES].into_iter().cycle()
        {
            let (piece, rest) = data.split_at(len.min(data.len()));
            pieces.push(piece);
            data = rest;
            if data.is_empty() {
                return pieces;
            }
        }
        unreachable!("the lengths have no end")
    }

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
        each_place(|offset, len| {
            let file = temporary_file();
            // What is there before and behind stays, which is in the page cache alone here.
            let mut expected = vec![b'x'; offset + len + 5000];
            file.write_all_at(&expected, 0).expect("written");
            expected[offset..offset + len].copy_from_slice(&data[..len]);
            write_all_at(&file, &divided(&data[..len]), offset as u64).expect("written");
            assert!(contents(&file) == expected, "{len} bytes at {offset}");
        });
    }

    #[test]
    fn a_file_grows_by_what_is_written() {
        let file = temporary_file();
        let data = Random::new(2).incompressible(2 * DIRECT_WRITE_BYTES + 10);
        let mut expected = Vec::new();
        for _ in 0..3 {
            write_all_at(&file, &divided(&data), expected.len() as u64).expect("written");
            expected.extend_from_slice(&data);
        }
        assert!(contents(&file) == expected);
    }

    /// Pieces that were written in one way, with their offsets.
    type Pieces = RefCell<Vec<(u64, Vec<u8>)>>;

    /// What was written in each way.
    #[derive(Default)]
    struct Written {
        cached: Pieces,
        direct: Pieces,
    }

    impl Written {
        /// What notes that something was written in one way, and always succeeds.
        fn note(pieces: &Pieces) -> impl Fn(&[u8], u64) -> io::Result<()> {
            |data, at| {
                pieces.borrow_mut().push((at, data.to_vec()));
                Ok(())
            }
        }

        fn len(pieces: &Pieces) -> usize {
            pieces.borrow().iter().map(|(_, data)| data.len()).sum()
        }

        /// All of it, which must follow on each other from `offset` on.
        fn all(&self, offset: u64) -> Vec<u8> {
            let mut all = [self.cached.borrow().clone(), self.direct.borrow().clone()].concat();
            all.retain(|(_, data)| !data.is_empty());
            all.sort();
            let mut whole = Vec::new();
            for (at, data) in all {
                assert_eq!(at, offset + whole.len() as u64);
                whole.extend(data);
            }
            whole
        }
    }

    #[test]
    fn all_whole_blocks_go_around_the_page_cache_and_nothing_else() {
        let data = Random::new(3).incompressible(3 * DIRECT_WRITE_BYTES);
        each_place(|offset, len| {
            let (data, offset) = (&data[..len], offset as u64);
            let written = Written::default();
            let cached = Written::note(&written.cached);
            let direct = |data: &[u8], at| {
                let places = [data.as_ptr().addr() as u64, data.len() as u64, at];
                assert!(places.iter().all(|place| place % BLOCK_BYTES as u64 == 0), "{places:?}");
                Written::note(&written.direct)(data, at)
            };
            write_around(&divided(data), offset, cached, direct).expect("written");
            assert!(written.all(offset) == data);
            assert!(Written::len(&written.cached) < 2 * BLOCK_BYTES);
        });
    }

    #[test]
    fn what_the_disk_does_not_take_directly_goes_through_the_page_cache() {
        let data = Random::new(4).incompressible(3 * DIRECT_WRITE_BYTES);
        each_place(|offset, len| {
            let (data, offset) = (&data[..len], offset as u64);
            let written = Written::default();
            let cached = Written::note(&written.cached);
            let direct = |_: &[u8], _| Err(io::ErrorKind::InvalidInput.into());
            write_around(&divided(data), offset, cached, direct).expect("written");
            assert!(written.all(offset) == data);
        });
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let data = vec![1; 2 * DIRECT_WRITE_BYTES];
        let written = |_: &[u8], _| Ok(());
        let full = |_: &[u8], _| Err(io::ErrorKind::StorageFull.into());
        for error in [
            write_around(&[&data], 0, written, full).expect_err("the blocks were not"),
            write_around(&[&data], 1, full, written).expect_err("the first bytes were not"),
            write_around(&[&data[1..]], 0, full, written).expect_err("the last bytes were not"),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_opened_again_is_the_same_and_goes_around_the_page_cache() {
        use std::{
            fs::OpenOptions,
            os::unix::fs::{MetadataExt, OpenOptionsExt},
        };

        use rustix::fs::{OFlags, fcntl_getfl};

        let file = NamedTempFile::new().expect("a temporary file");
        // Its name means another file by now.
        let moved = file.path().with_extension("moved");
        std::fs::rename(file.path(), &moved).expect("renamed");
        std::fs::write(file.path(), b"another").expect("written");
        let inode = |file: &File| file.metadata().expect("it is open").ino();
        let flags = i32::try_from(OFlags::DIRECT.bits()).expect("a flag of open");
        let by_name = OpenOptions::new().write(true).custom_flags(flags).open(&moved);
        let reopened = reopen(file.as_file());
        assert_eq!(reopened.is_some(), by_name.is_ok(), "{by_name:?}");
        if let Some(direct) = reopened {
            assert_eq!(inode(&direct), inode(file.as_file()));
            assert!(fcntl_getfl(&direct).expect("it is open").contains(OFlags::DIRECT));
        }
        std::fs::remove_file(moved).expect("removed");
    }
}

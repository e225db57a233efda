//! References to store paths, taken out of contents before they are cut into chunks.
//!
//! When everything is rebuilt, most files change in the hashes of the store paths that they
//! name and in nothing else. So the 32 characters of a hash between `/nix/store/` and `-`
//! are replaced by a constant: what is left is the same before and after, and so are its
//! chunks. Which hash stood where is kept beside (see [`Patches`](crate::format::Patches)),
//! so that every byte comes back, whatever the contents were: text that only looks like a
//! reference is treated like one, and costs nothing but a patch.

use memchr::memmem;

/// Which rules take references out: stands in the store's header.
pub(crate) const NORMALISER_ID: u32 = 1;

const PREFIX: &[u8] = b"/nix/store/";

/// Length of the hash part of a store path in text.
pub(crate) const HASH_CHARS: usize = 32;

/// Length of what makes a reference: the prefix, the hash, and the dash behind it.
const REFERENCE_BYTES: usize = PREFIX.len() + HASH_CHARS + 1;

/// How many bytes at the end of contents that go on are not certain: a reference may begin
/// in them.
pub(crate) const UNCERTAIN_BYTES: usize = REFERENCE_BYTES - 1;

/// What takes the place of a hash. It is none itself, for the alphabet of hashes has no `e`:
/// normalised contents have no references, and so normalising them changes nothing.
const PLACEHOLDER: [u8; HASH_CHARS] = [b'e'; HASH_CHARS];

/// A hash that stood in contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundHash {
    /// Where its first character stands.
    pub(crate) offset: usize,
    pub(crate) chars: [u8; HASH_CHARS],
}

/// The hashes of all references in `data`, in order. Whether something is a reference, its
/// own bytes alone decide, and no two overlap, for neither `/` nor `-` can stand in a hash.
pub(crate) fn find_hashes(data: &[u8]) -> impl Iterator<Item = FoundHash> + '_ {
    let prefix = memmem::Finder::new(PREFIX);
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let at = from + prefix.find(&data[from..])?;
            let offset = at + PREFIX.len();
            let (chars, behind) = data[offset..].split_first_chunk()?;
            if behind.first() == Some(&b'-') && chars.iter().copied().all(is_hash_char) {
                from = offset + HASH_CHARS;
                return Some(FoundHash { offset, chars: *chars });
            }
            // The last slash of a prefix may be the first of the next.
            from = offset - 1;
        }
    })
}

/// Replaces a hash that was found in `data`.
pub(crate) fn take_out(data: &mut [u8], found: &FoundHash) {
    data[found.offset..found.offset + HASH_CHARS].copy_from_slice(&PLACEHOLDER);
}

/// Whether `byte` may stand in nixbase32.
fn is_hash_char(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z') && !matches!(byte, b'e' | b'o' | b't' | b'u')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdfghijklmnpqrsvwxyz";

    fn offsets(text: &str) -> Vec<usize> {
        find_hashes(text.as_bytes()).map(|found| found.offset).collect()
    }

    #[test]
    fn finds_references_and_nothing_else() {
        assert_eq!(offsets(&format!("/nix/store/{HASH}-x")), [11]);
        assert_eq!(offsets(&format!("/nix/store/{HASH}-")), [11]);
        assert_eq!(offsets(&format!("/nix/store//nix/store/{HASH}-")), [22]);
        assert_eq!(offsets(&format!("/nix/store/nix/store/{HASH}-")), [21]);
        let two = format!("a/nix/store/{HASH}-/nix/store/{HASH}-b");
        assert_eq!(offsets(&two), [12, 12 + 33 + 11]);
        for not in [
            String::new(),
            "/nix/store/".to_owned(),
            format!("/nix/store/{HASH}"),
            format!("/nix/store/{HASH}/"),
            format!("/nix/store/{}-", &HASH[1..]),
            format!("/nix/store/{HASH}0-"),
            format!("/nix/store/{}-", "e".repeat(32)),
            format!("/nix/store/{}-", HASH.to_uppercase()),
            format!("/gnu/store/{HASH}-x"),
        ] {
            assert_eq!(offsets(&not), [0; 0], "{not}");
        }
    }

    #[test]
    fn normalised_contents_have_no_references() {
        let mut data = format!("{{/nix/store/{HASH}-x:/nix/store/{HASH}-y}}").into_bytes();
        let found: Vec<_> = find_hashes(&data).collect();
        assert_eq!(found.len(), 2);
        for found in &found {
            assert_eq!(found.chars, *HASH.as_bytes());
            take_out(&mut data, found);
        }
        assert_eq!(find_hashes(&data).count(), 0);
    }

    #[test]
    fn what_is_certain_does_not_change_with_what_follows() {
        let whole = format!("....../nix/store/{HASH}-name/nix/store/{HASH}-").into_bytes();
        let all: Vec<_> = find_hashes(&whole).collect();
        assert_eq!(all.len(), 2);
        for len in 0..=whole.len() {
            let certain = len.saturating_sub(UNCERTAIN_BYTES);
            let begin_there = |found: &&FoundHash| found.offset - PREFIX.len() < certain;
            let expected: Vec<_> = all.iter().filter(begin_there).copied().collect();
            assert_eq!(find_hashes(&whole[..len]).collect::<Vec<_>>(), expected, "{len}");
        }
    }
}

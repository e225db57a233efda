//! The fixed strings of the format, encoded at compile time and joined where they always
//! come together, so that each is written or compared in one piece.

/// How many bytes fill a string of `len` bytes up to a multiple of eight.
pub(super) const fn padding_len(len: u64) -> usize {
    // At most 7, so nothing is cut.
    (len.wrapping_neg() % 8) as usize
}

/// Joins the encodings of strings of at most 255 bytes into `N` bytes.
const fn strings<const N: usize>(texts: &[&str]) -> [u8; N] {
    let mut bytes = [0; N];
    let mut position = 0;
    let mut index = 0;
    while index < texts.len() {
        let text = texts[index].as_bytes();
        assert!(text.len() < 256);
        bytes[position] = text.len().to_le_bytes()[0];
        position += 8;
        let mut from = 0;
        while from < text.len() {
            bytes[position + from] = text[from];
            from += 1;
        }
        position += text.len() + padding_len(text.len() as u64);
        index += 1;
    }
    assert!(position == N);
    bytes
}

/// The length of a short string with its length in front: that of most tokens.
pub(super) const SHORT: usize = 16;

pub(super) const MAGIC: [u8; 24] = strings(&["nix-archive-1"]);
pub(super) const NODE_OPEN: [u8; 32] = strings(&["(", "type"]);
pub(super) const CLOSE: [u8; SHORT] = strings(&[")"]);
pub(super) const DIRECTORY: [u8; 24] = strings(&["directory"]);
pub(super) const ENTRY: [u8; SHORT] = strings(&["entry"]);
pub(super) const ENTRY_NAME: [u8; 48] = strings(&["entry", "(", "name"]);
pub(super) const ENTRY_NODE: [u8; SHORT] = strings(&["node"]);
pub(super) const SYMLINK: [u8; SHORT] = strings(&["symlink"]);
pub(super) const SYMLINK_TARGET: [u8; 32] = strings(&["symlink", "target"]);
pub(super) const REGULAR: [u8; SHORT] = strings(&["regular"]);
pub(super) const EXECUTABLE: [u8; 24] = strings(&["executable"]);
pub(super) const CONTENTS: [u8; SHORT] = strings(&["contents"]);

/// An empty string: the payload of `executable`.
pub(super) const EMPTY: [u8; 8] = [0; 8];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_fills_up_to_eight() {
        for len in 0..40 {
            assert_eq!((len + padding_len(len) as u64) % 8, 0);
            assert!(padding_len(len) < 8);
        }
        assert_eq!(padding_len(u64::MAX), 1);
    }

    #[test]
    fn strings_are_encoded() {
        assert_eq!(&MAGIC, b"\x0d\0\0\0\0\0\0\0nix-archive-1\0\0\0");
        assert_eq!(&CONTENTS, b"\x08\0\0\0\0\0\0\0contents");
        assert_eq!(&NODE_OPEN[16..], b"\x04\0\0\0\0\0\0\0type\0\0\0\0");
    }
}

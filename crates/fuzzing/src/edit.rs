//! Scripts: bytes that say how other bytes are to be changed, so that small inputs lead deep
//! into what a whole file would have to be guessed for.

/// Nothing that is edited grows beyond this.
const MAX_EDITED_BYTES: usize = 1 << 20;

/// What is left of an input. Where it ends, zeros follow.
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// Up to `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// A position in something of that length, its end included.
    fn position(&mut self, len: usize) -> usize {
        usize::from(self.u16()) % (len + 1)
    }

    /// Changes `bytes` as the rest of the script says. It is good for what is up to 64 KiB
    /// long; behind that, edits do not reach.
    pub(crate) fn edit(&mut self, bytes: &mut Vec<u8>) {
        while !self.is_empty() {
            self.edit_once(bytes);
        }
    }

    pub(crate) fn edit_once(&mut self, bytes: &mut Vec<u8>) {
        let (operation, at) = (self.u8() % 6, self.position(bytes.len()));
        match operation {
            // Some bits of one byte.
            0 => {
                let bits = self.u8();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            // Other bytes in the place of these.
            1 => {
                let len = usize::from(self.u8());
                let new = self.bytes(len);
                let end = bytes.len().min(at + new.len());
                bytes[at..end].copy_from_slice(&new[..end - at]);
            }
            // Further bytes.
            2 => {
                let len = usize::from(self.u8());
                bytes.splice(at..at, self.bytes(len).iter().copied());
            }
            // Fewer bytes.
            3 => {
                let end = bytes.len().min(at + usize::from(self.u16()));
                bytes.drain(at..end);
            }
            // Nothing behind.
            4 => bytes.truncate(at),
            // The same bytes at another place, too.
            _ => {
                let end = bytes.len().min(at + usize::from(self.u16()));
                let copy = bytes[at..end].to_vec();
                let to = self.position(bytes.len());
                if bytes.len() + copy.len() <= MAX_EDITED_BYTES {
                    bytes.splice(to..to, copy);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits() {
        let cases: [(&[u8], &[u8]); 7] = [
            (b"", b"abcdef"),
            (&[0, 1, 0, 3], b"aacdef"),
            (b"\x01\x04\0\x05XYZZZ", b"abcdXY"),
            (b"\x02\x06\0\x02YZ", b"abcdefYZ"),
            (&[3, 1, 0, 2, 0], b"adef"),
            (&[4, 2, 0], b"ab"),
            (&[5, 0, 0, 2, 0, 6, 0], b"abcdefab"),
        ];
        for (script, expected) in cases {
            let mut bytes = b"abcdef".to_vec();
            Script::new(script).edit(&mut bytes);
            assert_eq!(bytes, expected, "{script:?}");
        }
    }
}

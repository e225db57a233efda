//! The fields of an encoded message, counted without decoding any.

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It has more fields than it may have.
    TooMany,
    /// It does not consist of fields.
    Malformed,
}

/// Checks that a message has at most `limit` fields, those inside of its fields `nested`
/// included. Groups, which proto3 does not have, are no fields.
pub(crate) fn check(message: &[u8], nested: &[u32], limit: usize) -> Result<(), Problem> {
    let mut left = limit;
    let mut fields = Fields(message);
    while let Some((number, contents)) = fields.next()? {
        left = left.checked_sub(1).ok_or(Problem::TooMany)?;
        if nested.contains(&number) {
            let mut inside = Fields(contents);
            while inside.next()?.is_some() {
                left = left.checked_sub(1).ok_or(Problem::TooMany)?;
            }
        }
    }
    Ok(())
}

/// What is left of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Number and contents of the next field; the contents are empty if it is a number.
    fn next(&mut self) -> Result<Option<(u32, &'a [u8])>, Problem> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| Problem::Malformed)?;
        let contents = match key & 7 {
            0 => {
                self.varint()?;
                &[]
            }
            1 => self.take(8)?,
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| Problem::Malformed)?;
                self.take(len)?
            }
            5 => self.take(4)?,
            _ => return Err(Problem::Malformed),
        };
        Ok(Some((key >> 3, contents)))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Problem> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Problem::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Problem> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // The tenth byte has one bit left.
                let fits = shift < 63 || byte <= 1;
                return if fits { Ok(value) } else { Err(Problem::Malformed) };
            }
        }
        Err(Problem::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_all_kinds_of_fields() {
        let message = [
            &[0x08, 0x80, 0x01][..],            // a number
            &[0x09, 1, 2, 3, 4, 5, 6, 7, 8],    // eight bytes
            &[0x0d, 1, 2, 3, 4],                // four bytes
            &[0x12, 4, 0x08, 0x01, 0x08, 0x02], // two numbers
        ]
        .concat();
        assert_eq!(check(&message, &[], 4), Ok(()));
        assert_eq!(check(&message, &[], 3), Err(Problem::TooMany));
        assert_eq!(check(&message, &[2], 6), Ok(()));
        assert_eq!(check(&message, &[2], 5), Err(Problem::TooMany));
        assert_eq!(check(&[], &[], 0), Ok(()));
    }

    #[test]
    fn what_is_no_field_is_malformed() {
        let long = [&[0x08][..], &[0xff; 9], &[0x02]].concat();
        let endless = [&[0x08][..], &[0xff; 11]].concat();
        let huge_key = [0xff, 0xff, 0xff, 0xff, 0x7f, 0];
        let cases: [&[u8]; 9] = [
            &[0x08],
            &[0x0a, 1],
            &[0x0d, 1],
            &[0x09, 1],
            &[0x0b, 0x0c],
            &[0x0e],
            &long,
            &endless,
            &huge_key,
        ];
        for message in cases {
            assert_eq!(check(message, &[], 100), Err(Problem::Malformed), "{message:x?}");
        }
        assert_eq!(check(&[&[0x08][..], &[0xff; 9], &[0x01]].concat(), &[], 1), Ok(()));
        assert_eq!(check(&[0x0a, 1, 0x80], &[1], 9), Err(Problem::Malformed));
    }
}

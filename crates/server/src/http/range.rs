//! The `Range` header of HTTP, as far as it is of use: one range of bytes.

use std::ops;

use axum::http::{HeaderMap, HeaderValue, header};

/// What a request wants of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// These bytes, which are there, and not none.
    Part(ops::Range<u64>),
    /// Bytes that are not there.
    Unsatisfiable,
}

/// What `headers` ask for of a body of `len` bytes with `etag`. Several ranges, a unit that
/// is not bytes, and what cannot be read are answered with the whole, as the standard
/// (RFC 9110, section 14.2) lets a server do.
pub(super) fn wanted(headers: &HeaderMap, len: u64, etag: &HeaderValue) -> Wanted {
    let mut ranges = headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Wanted::Whole };
    // A date never matches: there is no Last-Modified. Our tags are strong.
    if headers.get(header::IF_RANGE).is_some_and(|condition| condition != etag) {
        return Wanted::Whole;
    }
    range.to_str().ok().and_then(|range| parse(range, len)).unwrap_or(Wanted::Whole)
}

fn parse(range: &str, len: u64) -> Option<Wanted> {
    let (unit, range) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let (start, end) = if first.is_empty() {
        // The last bytes, all of them if there are not that many.
        (len.saturating_sub(number(last)?), len)
    } else {
        let start = number(first)?;
        let end = if last.is_empty() {
            len
        } else {
            let end = number(last)?.saturating_add(1);
            if is_less(last, first) {
                return None;
            }
            len.min(end)
        };
        (start, end)
    };
    Some(if start < end { Wanted::Part(start..end) } else { Wanted::Unsatisfiable })
}

/// Digits only; a number that passes a u64 lies behind every body.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// Whether one number is less than the other, also if they pass a u64.
fn is_less(number: &str, other: &str) -> bool {
    let [number, other] = [number, other].map(|digits| digits.trim_start_matches('0'));
    (number.len(), number) < (other.len(), other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted_of(pairs: &[(header::HeaderName, &str)]) -> Wanted {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).expect("ASCII"));
        }
        wanted(&headers, 100, &HeaderValue::from_static("\"tag\""))
    }

    #[test]
    fn ranges() {
        for (range, expected) in [
            ("bytes=0-9", Wanted::Part(0..10)),
            ("bytes=90-", Wanted::Part(90..100)),
            ("bytes=-10", Wanted::Part(90..100)),
            ("bytes=-1000", Wanted::Part(0..100)),
            ("bytes=50-1000", Wanted::Part(50..100)),
            ("bytes=99-99", Wanted::Part(99..100)),
            ("BYTES = 0-0", Wanted::Part(0..1)),
            ("bytes=0-99999999999999999999999", Wanted::Part(0..100)),
            ("bytes=100-", Wanted::Unsatisfiable),
            ("bytes=100-200", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("bytes=5-4", Wanted::Whole),
            ("bytes=5-004", Wanted::Whole),
            ("bytes=005-6", Wanted::Part(5..7)),
            ("bytes=18446744073709551616-18446744073709551615", Wanted::Whole),
            ("bytes=99999999999999999999-99999999999999999999", Wanted::Unsatisfiable),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("nonsense", Wanted::Whole),
        ] {
            assert_eq!(wanted_of(&[(header::RANGE, range)]), expected, "{range}");
        }
        assert_eq!(wanted_of(&[]), Wanted::Whole);
    }

    #[test]
    fn if_range_must_be_the_very_tag() {
        for (condition, expected) in [
            ("\"tag\"", Wanted::Part(0..10)),
            ("\"other\"", Wanted::Whole),
            ("W/\"tag\"", Wanted::Whole),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Wanted::Whole),
        ] {
            let headers = [(header::RANGE, "bytes=0-9"), (header::IF_RANGE, condition)];
            assert_eq!(wanted_of(&headers), expected, "{condition}");
        }
    }

    #[test]
    fn an_empty_body_has_no_ranges() {
        assert_eq!(parse("bytes=0-", 0), Some(Wanted::Unsatisfiable));
        assert_eq!(parse("bytes=-5", 0), Some(Wanted::Unsatisfiable));
    }
}

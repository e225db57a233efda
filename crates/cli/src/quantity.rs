//! Times and sizes as people write them.

use std::time::Duration;

const UNITS_S: [(&str, u64); 5] =
    [("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60), ("w", 7 * 24 * 60 * 60)];

const UNITS_BYTES: [(&str, u32); 5] = [("", 0), ("K", 10), ("M", 20), ("G", 30), ("T", 40)];

/// Reads a time: a number and `s`, `m`, `h`, `d` or `w`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: write a number and s, m, h, d or w, as in 90d");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let unit = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().map_err(|_| wrong())?;
    let (_, unit_s) = UNITS_S.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(*unit_s).map(Duration::from_secs).ok_or_else(wrong)
}

/// Reads a size in bytes: a number, and `K`, `M`, `G` or `T` for powers of 1024, possibly with
/// `iB` or `B` behind.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is no size: write bytes, or a number and K, M, G or T, as in 500G");
    let unit = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().map_err(|_| wrong())?;
    let unit = unit.strip_suffix("iB").or_else(|| unit.strip_suffix('B')).unwrap_or(unit);
    let (_, shift) =
        UNITS_BYTES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// Reads a size that something is limited to.
pub(crate) fn size_limit(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        0 => Err("0 would leave nothing but what is pinned: for no limit, leave it out".to_owned()),
        size => Ok(size),
    }
}

/// Reads a part of the whole in percent, and returns it in thousandths.
pub(crate) fn permille(text: &str) -> Result<u32, String> {
    let wrong =
        || format!("{text:?} is no part of the whole: write percent from 0 to 100, as in 8");
    let percent: f64 = text.strip_suffix('%').unwrap_or(text).parse().map_err(|_| wrong())?;
    if !(0.0..=100.0).contains(&percent) {
        return Err(wrong());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it lies between 0 and 1000"
    )]
    Ok((percent * 10.0).round() as u32)
}

/// For people: how long ago a time was, or how long it is until then.
pub(crate) fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (number, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    if number == 1 { format!("{number} {unit}") } else { format!("{number} {unit}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("0", 0),
            ("0s", 0),
            ("90d", 7_776_000),
            ("2w", 1_209_600),
            ("3h", 10_800),
            ("5m", 300),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "5", "d", "-1d", "1.5h", "1y", "99999999999999999w"] {
            assert!(duration(text).expect_err(text).contains("as in 90d"));
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("0", 0),
            ("123", 123),
            ("1K", 1024),
            ("2m", 2 << 20),
            ("3GiB", 3 << 30),
            ("4TB", 4 << 40),
            ("5B", 5),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        assert_eq!(size_limit("1K"), Ok(1024));
        assert!(size_limit("0").expect_err("no limit").contains("leave it out"));
        for text in ["", "K", "1X", "-1", "1.5G", "99999999999999T"] {
            assert!(bytes(text).expect_err(text).contains("as in 500G"));
        }
    }

    #[test]
    fn parts() {
        for (text, part) in [("0", 0), ("8", 80), ("8%", 80), ("12.5", 125), ("100", 1000)] {
            assert_eq!(permille(text), Ok(part), "{text}");
        }
        for text in ["", "x", "-1", "101", "NaN"] {
            assert!(permille(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rough_times() {
        for (seconds, text) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "119 seconds"),
            (300, "5 minutes"),
            (90_000, "25 hours"),
            (200_000, "2 days"),
        ] {
            assert_eq!(rough(Duration::from_secs(seconds)), text);
        }
    }
}

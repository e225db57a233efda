//! `Accept-Encoding`: whether a body is sent as zstd.

use axum::http::{HeaderMap, header};

/// Thousandths: what a coding without a `q` is worth.
const FULL_QUALITY: u16 = 1000;

/// Whether a client with `headers` wants zstd at least as much as the bytes as they are.
/// Nobody gets it unasked: Nix before 2.14 sends no `Accept-Encoding` and decodes nothing.
pub(super) fn wants_zstd(headers: &HeaderMap) -> bool {
    let (mut zstd, mut any, mut identity) = (None, None, None);
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        let Ok(value) = value.to_str() else { continue };
        for item in value.split(',') {
            let (coding, parameters) = item.split_once(';').unwrap_or((item, ""));
            let quality = Some(quality(parameters));
            match coding.trim() {
                "*" => any = quality,
                coding if coding.eq_ignore_ascii_case("zstd") => zstd = quality,
                coding if coding.eq_ignore_ascii_case("identity") => identity = quality,
                _ => {}
            }
        }
    }
    let zstd = zstd.or(any).unwrap_or(0);
    zstd > 0 && zstd >= identity.unwrap_or(0)
}

/// The quality among the parameters of a coding, in thousandths; 0 if it cannot be read.
fn quality(parameters: &str) -> u16 {
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return FULL_QUALITY;
    }
    let Some((name, value)) = parameters.split_once('=') else { return 0 };
    if !name.trim().eq_ignore_ascii_case("q") {
        return 0;
    }
    match value.trim().split_once('.').unwrap_or((value.trim(), "")) {
        ("1", zeros) if zeros.bytes().all(|byte| byte == b'0') => FULL_QUALITY,
        ("0", digits) if digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{digits:0<3}").parse().unwrap_or(0)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn zstd_is_for_those_who_want_it() {
        for (accept, expected) in [
            ("zstd", true),
            ("ZSTD", true),
            ("zstd, br, gzip, deflate, bzip2, xz", true),
            ("gzip;q=1.0, zstd;q=0.5", true),
            ("*", true),
            ("zstd;q=0.5, identity;q=0.5", true),
            ("zstd ; q=0.001", true),
            ("", false),
            ("gzip, br", false),
            ("identity", false),
            ("zstd;q=0", false),
            ("zstd;q=0.000", false),
            ("zstd;q=0, *", false),
            ("*;q=0", false),
            ("zstd;q=0.4, identity;q=0.5", false),
            ("zstd;q=nonsense", false),
            ("zstd;q=2", false),
            ("zstd;level=3", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accept));
            assert_eq!(wants_zstd(&headers), expected, "{accept:?}");
        }
        assert!(!wants_zstd(&HeaderMap::new()));
    }
}

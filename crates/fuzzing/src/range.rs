//! The `Range` header: what comes back is what a simple reading of the standard says.
//!
//! The first byte says what is asked for and how, the rest is the value of the header.

use std::sync::OnceLock;

use axum::{
    body::Body,
    http::{HeaderValue, Method, Request, StatusCode, header},
};
use bytes::Bytes;
use granary_nix_formats::{NarInfo, nar::Writer};
use granary_store::{PathInfo, PathInfoService as _};

use crate::http_cache::{HttpCache, store_path};

/// Lengths of the files in the NARs that are asked for: the whole answer is short, of one
/// piece, of several.
const FILE_LENS: [usize; 3] = [0, 3_000, 1_300_000];

/// Asks for a part of a NAR.
///
/// # Panics
///
/// If the answer is another than the model's.
pub fn check(data: &[u8]) {
    let Some((flags, value)) = data.split_first() else { return };
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    let served = served();
    let file = &served.files[usize::from(flags & 3) % served.files.len()];
    let (is_head, with_zstd) = (flags & 4 != 0, flags & 8 != 0);
    let condition = match flags >> 4 & 3 {
        0 | 1 => None,
        2 => Some(file.etag.clone()),
        _ => Some(HeaderValue::from_static("\"other\"")),
    };
    let method = if is_head { Method::HEAD } else { Method::GET };
    let mut request = Request::builder().method(method).uri(&file.path);
    request = request.header(header::RANGE, &value);
    if with_zstd {
        request = request.header(header::ACCEPT_ENCODING, "zstd");
    }
    if let Some(condition) = &condition {
        request = request.header(header::IF_RANGE, condition);
    }
    let answer = served.cache.exchange(request.body(Body::empty()).expect("a valid request"));

    let nar = &file.nar;
    let len = nar.len() as u64;
    if is_head {
        // Ranges are for GET alone.
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
        return;
    }
    let applies = condition.is_none_or(|condition| condition == file.etag);
    let range = value.to_str().ok().filter(|_| applies).and_then(model);
    let content_range = answer.headers.get(header::CONTENT_RANGE);
    let content_range = content_range.map(|value| value.to_str().expect("ASCII").to_owned());
    assert!(!answer.headers.contains_key(header::CONTENT_ENCODING), "parts are never encoded");
    let Some((first, end)) = range.map(|range| range.within(len)) else {
        assert_eq!((answer.status, content_range), (StatusCode::OK, None), "{value:?}");
        assert!(answer.body == *nar, "{value:?} is answered with the whole");
        return;
    };
    if first >= end {
        let expected = Some(format!("bytes */{len}"));
        assert_eq!(
            (answer.status, content_range),
            (StatusCode::RANGE_NOT_SATISFIABLE, expected),
            "{value:?}"
        );
        return;
    }
    let expected = Some(format!("bytes {first}-{}/{len}", end - 1));
    assert_eq!((answer.status, content_range), (StatusCode::PARTIAL_CONTENT, expected));
    let index = |offset: u64| usize::try_from(offset).expect("within the NAR");
    assert!(answer.body == nar.slice(index(first)..index(end)), "{value:?}");
}

/// One range of bytes as RFC 9110, section 14, spells it.
enum Range {
    /// From a byte to the end.
    From(u128),
    /// From a byte to another.
    FromTo(u128, u128),
    /// So many at the end.
    Last(u128),
}

impl Range {
    /// First byte and end in something of that length.
    fn within(&self, len: u64) -> (u64, u64) {
        let narrow = |offset: u128| u64::try_from(offset).unwrap_or(u64::MAX);
        match *self {
            Self::From(first) => (narrow(first), len),
            Self::FromTo(first, last) => (narrow(first), narrow(last.saturating_add(1)).min(len)),
            Self::Last(count) => (len - narrow(count).min(len), len),
        }
    }
}

/// Reads a header that asks for one range; `None` if it asks for the whole.
fn model(value: &str) -> Option<Range> {
    let mut compact = value.split('=');
    let (unit, range) = (compact.next()?, compact.next()?);
    if compact.next().is_some() || unit.trim().to_lowercase() != "bytes" {
        return None;
    }
    let number = |text: &str| -> Option<u128> {
        let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        // Longer ones lie behind everything too.
        digits.then(|| text.parse().unwrap_or(u128::MAX))
    };
    let ends: Vec<&str> = range.trim().split('-').collect();
    let [first, last] = ends[..] else { return None };
    match (first.is_empty(), last.is_empty()) {
        (true, _) => Some(Range::Last(number(last)?)),
        (false, true) => Some(Range::From(number(first)?)),
        (false, false) => {
            let range = Range::FromTo(number(first)?, number(last)?);
            // As many digits each, so that it is their order that counts.
            let width = first.len().max(last.len());
            (format!("{first:0>width$}") <= format!("{last:0>width$}")).then_some(range)
        }
    }
}

struct Served {
    cache: HttpCache,
    files: Vec<ServedNar>,
}

struct ServedNar {
    path: String,
    etag: HeaderValue,
    nar: Bytes,
}

fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| {
        let cache = HttpCache::new();
        let files = FILE_LENS.map(|len| serve(&cache, len)).into();
        Served { cache, files }
    })
}

/// Puts a file of that length into the cache, and finds out under which URL its NAR is served.
fn serve(cache: &HttpCache, len: usize) -> ServedNar {
    let contents: Vec<u8> = (0..251).cycle().take(len).collect();
    let mut writer = Writer::new(Vec::new()).expect("memory");
    let mut write = || {
        writer.file_header(false, len as u64)?;
        writer.file_data(&contents)?;
        writer.end_file()
    };
    write().expect("a valid file");
    let nar = writer.finish().expect("a whole file");
    let ingested = cache.ingest(&nar);
    let path_info = PathInfo {
        store_path: store_path("file"),
        node: ingested.node,
        references: Vec::new(),
        nar: None,
    };
    let path_info = cache.store.put_path_info(path_info).expect("memory takes writes");
    let narinfo = cache.get(&format!("{}.narinfo", path_info.store_path.hash()));
    let narinfo = std::str::from_utf8(&narinfo.body).expect("text");
    let narinfo = NarInfo::parse(narinfo).expect("a narinfo");
    let whole = cache.get(&narinfo.url);
    assert!(whole.status == StatusCode::OK && whole.body == nar, "it is served");
    let etag = whole.headers.get(header::ETAG).expect("a NAR has a tag").clone();
    ServedNar { path: format!("/{}", narinfo.url), etag, nar: nar.into() }
}

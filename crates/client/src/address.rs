//! URLs of stores.

use granary_castore::{Error, Result};
use tonic::transport::Endpoint;

use crate::limits::{
    CONNECT_TIMEOUT, CONNECTION_WINDOW_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT,
    STREAM_WINDOW_BYTES,
};

const FORMS: &str = "write http://HOST:PORT, grpc://HOST:PORT or unix:/PATH";

/// The end of the channel that `url` names, with all time limits set.
pub(crate) fn endpoint(url: &str) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(target(url)?).map_err(|error| {
        Error::invalid(format!("{url:?} is no URL of a store: {FORMS}")).because(error)
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEP_ALIVE_INTERVAL))
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// The URL as the channel wants it.
fn target(url: &str) -> Result<String> {
    let invalid = |what: &str| Err(Error::invalid(format!("{url:?} is no URL of a store: {what}")));
    if let Some(path) = url.strip_prefix("grpc+unix:").or_else(|| url.strip_prefix("unix:")) {
        // "unix:///path" has an empty host before the path.
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') {
            return invalid("the path of a Unix socket must be absolute, as in unix:/PATH");
        }
        return Ok(format!("unix:{path}"));
    }
    let scheme = url.split_once("://").map(|(scheme, rest)| (scheme, rest.trim_end_matches('/')));
    match scheme {
        Some(("http" | "grpc" | "grpc+http", host)) if !host.is_empty() && !host.contains('/') => {
            Ok(format!("http://{host}"))
        }
        Some(("https" | "grpcs" | "grpc+https", _)) => invalid(
            "TLS is not supported; put a proxy or a tunnel between, and name its http:// address",
        ),
        _ => invalid(FORMS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls() {
        for (url, expected) in [
            ("http://localhost:8000", "http://localhost:8000"),
            ("grpc://[::1]:8000/", "http://[::1]:8000"),
            ("grpc+http://cache:80", "http://cache:80"),
            ("unix:/run/socket", "unix:/run/socket"),
            ("unix:///run/socket", "unix:/run/socket"),
            ("grpc+unix:/run/socket", "unix:/run/socket"),
            ("grpc+unix:///run/socket", "unix:/run/socket"),
        ] {
            assert_eq!(target(url).expect(url), expected, "{url}");
            endpoint(url).expect(url);
        }
    }

    #[test]
    fn refuses_others() {
        for url in [
            "",
            "localhost:8000",
            "http://",
            "http://host/path",
            "https://host:8000",
            "unix:socket",
            "unix:",
            "ftp://host",
            "http://not a host",
        ] {
            let error = endpoint(url).expect_err(url);
            assert!(matches!(error, Error::Invalid(_)), "{url}: {error:?}");
            assert!(error.to_string().contains(&format!("{url:?}")), "{url}: {error}");
        }
    }
}

//! Files of a binary cache.

use std::{
    fs::File,
    io::{self, Read},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use granary_castore::{Error, Result};
use ureq::{Agent, http::StatusCode};

use crate::limits::CONNECT_TIMEOUT;

/// Time in which the head of an answer must have come.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the files are.
#[derive(Debug)]
pub(super) enum Place {
    /// Below this URL, which ends without a slash.
    Http { agent: Agent, base: String },
    /// In this directory.
    Directory(PathBuf),
}

const FORMS: &str = "write http://HOST:PORT or file:///PATH";

impl Place {
    pub(super) fn of_url(url: &str) -> Result<Self> {
        let invalid =
            |what: &str| Err(Error::invalid(format!("{url:?} is no URL of a cache: {what}")));
        // Nix takes options in its URLs, which do not matter here.
        let base = url.split_once('?').map_or(url, |(base, _)| base).trim_end_matches('/');
        match base.split_once("://") {
            Some(("http", host)) if !host.is_empty() && !host.starts_with('/') => {
                let config = Agent::config_builder()
                    .timeout_connect(Some(CONNECT_TIMEOUT))
                    .timeout_recv_response(Some(RESPONSE_TIMEOUT))
                    .http_status_as_error(false)
                    .user_agent(concat!("granary/", env!("CARGO_PKG_VERSION")));
                Ok(Self::Http { agent: config.build().into(), base: base.to_owned() })
            }
            Some(("file", path)) if path.starts_with('/') => Ok(Self::Directory(path.into())),
            Some(("https", _)) => invalid(
                "TLS is not supported; put a proxy or a tunnel between, and name its http:// \
                 address",
            ),
            _ => invalid(FORMS),
        }
    }

    /// The file with that name; `None` if there is none.
    pub(super) fn get(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>> {
        match self {
            Self::Http { agent, base } => {
                // The URL of a NAR may be a whole one.
                let url = if name.starts_with("http://") {
                    name.to_owned()
                } else {
                    format!("{base}/{name}")
                };
                let failed = || format!("cannot get {url}");
                let answer = agent.get(&url).call();
                let answer = answer.map_err(|error| Error::unavailable(failed()).because(error))?;
                match answer.status() {
                    StatusCode::OK => {
                        let body = answer.into_body().into_with_config().limit(u64::MAX).reader();
                        Ok(Some(Box::new(body)))
                    }
                    StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE => Ok(None),
                    status => Err(Error::unavailable(format!("{}: {status}", failed()))),
                }
            }
            Self::Directory(directory) => {
                let path = directory.join(below(name)?);
                match File::open(&path) {
                    Ok(file) => Ok(Some(Box::new(file))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => {
                        let what = format!("cannot open {}", path.display());
                        Err(Error::unavailable(what).because(error))
                    }
                }
            }
        }
    }
}

/// The name, if it leads to nowhere but below the directory: a narinfo says what it wants.
fn below(name: &str) -> Result<&Path> {
    let path = Path::new(name);
    if path.components().all(|part| matches!(part, Component::Normal(_))) {
        Ok(path)
    } else {
        Err(Error::corrupt(format!("{name:?} is no file of the cache")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls() {
        for url in ["http://cache:80/x/", "file:///srv/cache", "file:///srv/cache?compression=xz"] {
            Place::of_url(url).expect(url);
        }
        for url in ["", "http://", "https://cache.nixos.org", "file://x", "s3://bucket", "/srv"] {
            let error = Place::of_url(url).expect_err(url);
            assert!(matches!(error, Error::Invalid(_)), "{url}: {error:?}");
        }
        let error = Place::of_url("https://cache.nixos.org").expect_err("no TLS");
        assert!(error.to_string().contains("http://"), "{error}");
    }

    #[test]
    fn stays_in_its_directory() {
        below("nar/x.nar").expect("below");
        for name in ["../x", "/etc/passwd", "nar/../../x"] {
            below(name).expect_err(name);
        }
        let place = Place::of_url("file:///nonexistent").expect("a URL");
        assert!(place.get("nix-cache-info").expect("it answers").is_none());
    }
}

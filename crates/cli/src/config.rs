//! The daemon's configuration file: the flags of `granary daemon`, in TOML.

use std::{
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use granary_server::daemon::ListenAddress;
use serde::{Deserialize, Deserializer, de};

use crate::quantity;

/// The levels of zstd that can be chosen.
pub(crate) const COMPRESSION_LEVELS: RangeInclusive<i64> = 1..=19;

/// What can stand in the file. The keys are the flags.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) data_dir: Option<PathBuf>,
    #[serde(default)]
    #[serde(deserialize_with = "addresses")]
    pub(crate) listen: Vec<ListenAddress>,
    pub(crate) signing_key: Option<PathBuf>,
    pub(crate) allow_anonymous_writes: Option<bool>,
    pub(crate) priority: Option<u32>,
    #[serde(default)]
    pub(crate) multi_frame_client: Vec<String>,
    #[serde(default, deserialize_with = "compression_level")]
    pub(crate) compression_level: Option<i32>,
    pub(crate) scrub_rate: Option<u64>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) gc_interval: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) keep_for: Option<Duration>,
    #[serde(default, deserialize_with = "bytes")]
    pub(crate) max_size: Option<u64>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) lease: Option<Duration>,
    pub(crate) log: Option<String>,
    pub(crate) log_format: Option<crate::log::Format>,
}

/// Addresses as the flag takes them.
fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ListenAddress>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(de::Error::custom)).collect()
}

/// A level that zstd has.
fn compression_level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    let level = Option::<i32>::deserialize(deserializer)?;
    match level {
        Some(level) if !COMPRESSION_LEVELS.contains(&i64::from(level)) => {
            let (first, last) = (COMPRESSION_LEVELS.start(), COMPRESSION_LEVELS.end());
            Err(de::Error::custom(format!("{level} is not in {first}..={last}")))
        }
        level => Ok(level),
    }
}

/// A time as the flags take it.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    quantity::duration(&text).map(Some).map_err(de::Error::custom)
}

/// A size as the flags take it.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    quantity::size_limit(&text).map(Some).map_err(de::Error::custom)
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Something in it is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Content { path: PathBuf, line: usize, problem: String },
}

impl Config {
    /// Reads the file at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or(text);
            ConfigError::Content {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                problem: error.message().trim_end().to_owned(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("granary.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn all_keys() {
        let config = parse(
            "data-dir = '/srv/granary'\nlisten = ['127.0.0.1:0', 'unix:/run/granary']\n\
             signing-key = '/etc/key'\nallow-anonymous-writes = true\npriority = 50\n\
             multi-frame-client = ['other/']\n\
             compression-level = 9\nscrub-rate = 0\ngc-interval = '1d'\nkeep-for = '30d'\n\
             max-size = '2G'\nlease = '12h'\nlog = 'debug'\nlog-format = 'json'\n",
        )
        .expect("all of them are known");
        assert_eq!(config.scrub_rate, Some(0));
        assert_eq!(config.data_dir, Some("/srv/granary".into()));
        assert_eq!(config.listen.len(), 2);
        assert_eq!(config.signing_key, Some("/etc/key".into()));
        assert_eq!(config.allow_anonymous_writes, Some(true));
        assert_eq!(config.priority, Some(50));
        assert_eq!(config.multi_frame_client, ["other/"]);
        assert_eq!(config.compression_level, Some(9));
        let hours = |hours: u64| Some(Duration::from_secs(hours * 60 * 60));
        assert_eq!(config.gc_interval, hours(24));
        assert_eq!(config.keep_for, hours(30 * 24));
        assert_eq!(config.max_size, Some(2 << 30));
        assert_eq!(config.lease, hours(12));
        assert_eq!(config.log.as_deref(), Some("debug"));
        assert_eq!(config.log_format, Some(crate::log::Format::Json));
    }

    #[test]
    fn names_the_line() {
        let error = parse("priority = 1\n\nlissten = []\n").expect_err("the key is not known");
        assert!(error.starts_with("granary.toml:3: unknown field `lissten`"), "{error}");
        let error = parse("listen = []\npriority = 'x'\n").expect_err("the type is wrong");
        assert!(error.starts_with("granary.toml:2: invalid type"), "{error}");
        let error = parse("keep-for = 'long'\n").expect_err("that is no time");
        assert!(error.contains("as in 90d"), "{error}");
        let error = parse("listen = [\n").expect_err("the syntax is wrong");
        assert!(error.starts_with("granary.toml:"), "{error}");
    }
}

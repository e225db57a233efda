//! Where the store lies unless somebody says otherwise.

use std::{env, ffi::OsString, path::PathBuf};

use crate::error::{CliError, Result};

/// The variable that names the data directory.
pub(crate) const VARIABLE: &str = "GRANARY_DATA_DIR";

/// The data directory of root, who has a machine rather than a home.
const ROOT_DATA_DIR: &str = "/var/lib/granary";

/// The part of a process's surroundings that the default depends on.
struct Surroundings {
    is_root: bool,
    granary_data_dir: Option<OsString>,
    configured: Option<PathBuf>,
    xdg_data_home: Option<OsString>,
    home: Option<OsString>,
}

/// The default data directory of this process: `GRANARY_DATA_DIR`, else `/var/lib/granary`
/// for root, else `$XDG_DATA_HOME/granary`, else `~/.local/share/granary`.
///
/// # Errors
///
/// If there is no home.
pub(crate) fn default() -> Result<PathBuf> {
    default_or(None)
}

/// As [`default`], but what the configuration says comes behind the environment and before
/// the rest.
///
/// # Errors
///
/// As [`default`].
pub(crate) fn default_or(configured: Option<PathBuf>) -> Result<PathBuf> {
    choose(Surroundings {
        is_root: rustix::process::geteuid().is_root(),
        granary_data_dir: env::var_os(VARIABLE),
        configured,
        xdg_data_home: env::var_os("XDG_DATA_HOME"),
        home: env::var_os("HOME"),
    })
}

fn choose(surroundings: Surroundings) -> Result<PathBuf> {
    let Surroundings { is_root, granary_data_dir, configured, xdg_data_home, home } = surroundings;
    let environment = granary_data_dir.filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(data_dir) = environment.or(configured) {
        return Ok(data_dir);
    }
    if is_root {
        return Ok(ROOT_DATA_DIR.into());
    }
    // The XDG base directory specification has relative paths ignored.
    let absolute =
        |value: Option<OsString>| value.map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(data_home) = absolute(xdg_data_home) {
        return Ok(data_home.join("granary"));
    }
    match absolute(home) {
        Some(home) => Ok(home.join(".local/share/granary")),
        None => Err(CliError::Usage(format!(
            "there is no default data directory, for HOME is not set: give --data-dir or {VARIABLE}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn chosen(
        is_root: bool,
        granary: Option<&str>,
        xdg: Option<&str>,
        home: Option<&str>,
    ) -> Option<PathBuf> {
        let surroundings = Surroundings {
            is_root,
            granary_data_dir: granary.map(Into::into),
            configured: None,
            xdg_data_home: xdg.map(Into::into),
            home: home.map(Into::into),
        };
        choose(surroundings).ok()
    }

    #[test]
    fn the_most_explicit_wins() {
        let path = |text: &str| Some(Path::new(text).to_owned());
        let (granary, xdg, home) = (Some("/g"), Some("/x"), Some("/h"));
        assert_eq!(chosen(false, granary, xdg, home), path("/g"));
        assert_eq!(chosen(true, granary, xdg, home), path("/g"));
        assert_eq!(chosen(true, None, xdg, home), path(ROOT_DATA_DIR));
        assert_eq!(chosen(false, None, xdg, home), path("/x/granary"));
        assert_eq!(chosen(false, None, None, home), path("/h/.local/share/granary"));
        assert_eq!(chosen(false, None, None, None), None);
    }

    #[test]
    fn what_is_empty_or_relative_does_not_count() {
        let home = Some("/h");
        let below_home = Some(PathBuf::from("/h/.local/share/granary"));
        assert_eq!(chosen(false, Some(""), Some(""), home), below_home);
        assert_eq!(chosen(false, None, Some("x"), home), below_home);
        assert_eq!(chosen(false, None, None, Some("")), None);
    }
}

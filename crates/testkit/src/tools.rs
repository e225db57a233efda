//! Programs of others that tests run.

use std::{
    env,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// The environment variable that names the directory `make test-tools` installs into.
pub const TOOLS_VARIABLE: &str = "GRANARY_TEST_TOOLS";

/// Where system administration programs lie, which are not on everybody's `PATH`.
const MORE_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The program `name`, from the directory in [`TOOLS_VARIABLE`] (or its `bin`), else from
/// `PATH`.
///
/// # Panics
///
/// If it is nowhere: a test that cannot run is a test that fails.
pub fn find(name: &str) -> PathBuf {
    let tools = env::var_os(TOOLS_VARIABLE).map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let found = candidates(tools.as_deref(), env::split_paths(&path), name)
        .find(|candidate| is_executable(candidate));
    found.unwrap_or_else(|| {
        panic!(
            "this test needs `{name}`, which is neither in ${TOOLS_VARIABLE} nor on PATH: \
             run `make test-tools` to install it"
        )
    })
}

fn candidates(
    tools: Option<&Path>,
    path: impl Iterator<Item = PathBuf>,
    name: &str,
) -> impl Iterator<Item = PathBuf> {
    let tools = tools.into_iter().flat_map(|tools| [tools.to_owned(), tools.join("bin")]);
    let more = MORE_DIRECTORIES.map(PathBuf::from);
    tools.chain(path).chain(more).map(move |directory| directory.join(name))
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_there() {
        assert!(find("sh").ends_with("sh"));
    }

    #[test]
    #[should_panic(expected = "needs `no-such-program-anywhere`")]
    fn names_what_is_missing() {
        find("no-such-program-anywhere");
    }

    #[test]
    fn the_installed_ones_come_first() {
        let path = [PathBuf::from("/usr/bin")].into_iter();
        let all: Vec<_> = candidates(Some(Path::new("/tools")), path, "nix").collect();
        assert_eq!(all[..3], ["/tools/nix", "/tools/bin/nix", "/usr/bin/nix"].map(PathBuf::from));
    }
}

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

/// Where it installs without the variable, from the root of the repository.
const DEFAULT_DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-tools");

/// Where programs lie in that directory: `venv` is Python's.
const SUBDIRECTORIES: [&str; 3] = ["venv/bin", "bin", ""];

/// The program `name`, from where `make test-tools` installs, else from `PATH`.
///
/// # Panics
///
/// If it is nowhere: a test that cannot run is a test that fails.
pub fn find(name: &str) -> PathBuf {
    let tools = env::var_os(TOOLS_VARIABLE).map_or_else(|| DEFAULT_DIRECTORY.into(), PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let found = candidates(&tools, env::split_paths(&path), name)
        .find(|candidate| is_executable(candidate));
    found.unwrap_or_else(|| {
        panic!(
            "this test needs `{name}`, which is neither in {} nor on PATH: run `make test-tools` \
             to install it",
            tools.display()
        )
    })
}

fn candidates(
    tools: &Path,
    path: impl Iterator<Item = PathBuf>,
    name: &str,
) -> impl Iterator<Item = PathBuf> {
    let tools = SUBDIRECTORIES.map(|subdirectory| tools.join(subdirectory)).into_iter();
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
        let all: Vec<_> = candidates(Path::new("/tools"), path, "nix").collect();
        let first = ["/tools/venv/bin/nix", "/tools/bin/nix", "/tools/nix", "/usr/bin/nix"];
        assert_eq!(all[..4], first.map(PathBuf::from));
    }
}

//! Stock Nix, kept away from everything else on the machine.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::tools;

/// No substituters, no sandbox, no other users, no signatures asked for: what is copied is
/// what the test says.
const CONFIGURATION: &str = "\
experimental-features = nix-command
substituters =
trusted-substituters =
sandbox = false
build-users-group =
require-sigs = false
connect-timeout = 10
download-attempts = 1
";

/// A Nix with a store, a home, a cache and a configuration of its own, all in a temporary
/// directory.
#[derive(Debug)]
pub struct Nix {
    directory: TempDir,
}

impl Nix {
    /// One with an empty store.
    ///
    /// # Panics
    ///
    /// If Nix is missing, or the disk refuses it.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let nix = Self { directory };
        for name in ["home", "cache", "conf", "root", "run", "tmp"] {
            fs::create_dir(nix.path(name)).expect("the temporary directory can be written to");
        }
        nix.configure("");
        nix
    }

    /// Adds lines to the configuration, such as trusted public keys, in the place of those
    /// that were added before.
    ///
    /// # Panics
    ///
    /// If the disk refuses it.
    pub fn configure(&self, lines: &str) {
        fs::write(self.path("conf").join("nix.conf"), format!("{CONFIGURATION}{lines}\n"))
            .expect("the temporary directory can be written to");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The URL of its store.
    pub fn store_url(&self) -> String {
        format!("local?root={}", self.path("root").display())
    }

    /// Where the store path lies on the disk.
    pub fn physical(&self, store_path: &str) -> PathBuf {
        self.path("root").join(store_path.trim_start_matches('/'))
    }

    /// A command of Nix (`nix`, `nix-store`, ...) in the environment of this one.
    ///
    /// # Panics
    ///
    /// If it is missing.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(tools::find(program));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_CONFIG_HOME", self.path("home").join(".config"))
            .env("XDG_DATA_HOME", self.path("home").join(".local"))
            .env("TMPDIR", self.path("tmp"))
            .env("NIX_CONF_DIR", self.path("conf"))
            .env("NIX_USER_CONF_FILES", "")
            .env("NIX_REMOTE", self.store_url())
            .current_dir(self.path("home"));
        command
    }

    /// Runs a command and returns its standard output.
    ///
    /// # Panics
    ///
    /// If it fails, with what it wrote.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Vec<u8> {
        let mut command = self.command(program);
        command.args(args);
        let output = output(&mut command);
        assert!(
            output.status.success(),
            "{command:?} ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// Runs a command that must fail and returns its standard error.
    ///
    /// # Panics
    ///
    /// If it succeeds.
    pub fn run_to_fail<A: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> String {
        let mut command = self.command(program);
        command.args(args);
        let output = output(&mut command);
        assert!(!output.status.success(), "{command:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// `nix copy --to url`: the paths and all they refer to.
    pub fn copy_to(&self, url: &str, paths: &[String]) {
        self.copy("--to", url, paths);
    }

    /// `nix copy --from url`: the paths and all they refer to.
    pub fn copy_from(&self, url: &str, paths: &[String]) {
        self.copy("--from", url, paths);
    }

    fn copy(&self, direction: &str, url: &str, paths: &[String]) {
        let mut args = vec!["copy", "--no-check-sigs", direction, url];
        args.extend(paths.iter().map(String::as_str));
        self.run("nix", args);
    }

    /// `nix-store --add`: the store path that it gives.
    pub fn add(&self, path: &Path) -> String {
        let added = self.lines("nix-store", [OsStr::new("--add"), path.as_os_str()]);
        added.join("\n")
    }

    /// `nix-store --dump`: the NAR of a tree on the disk.
    pub fn dump(&self, path: &Path) -> Vec<u8> {
        self.run("nix-store", [OsStr::new("--dump"), path.as_os_str()])
    }

    /// The NAR of a store path.
    pub fn dump_store_path(&self, store_path: &str) -> Vec<u8> {
        self.dump(&self.physical(store_path))
    }

    /// All valid store paths, sorted.
    pub fn list(&self) -> Vec<String> {
        self.lines("nix", ["path-info", "--all"])
    }

    /// The store paths that a path refers to, sorted.
    pub fn references(&self, store_path: &str) -> Vec<String> {
        self.lines("nix-store", ["--query", "--references", store_path])
    }

    /// The lines that a command writes, sorted.
    fn lines<A: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Vec<String> {
        let written = self.run(program, args);
        let mut lines: Vec<_> =
            String::from_utf8_lossy(&written).lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    }

    /// Forgets what Nix remembers of binary caches, as if it had never seen one.
    ///
    /// # Panics
    ///
    /// If the disk refuses it.
    pub fn forget_caches(&self) {
        fs::remove_dir_all(self.path("cache")).expect("the cache can be removed");
        fs::create_dir(self.path("cache")).expect("the cache can be made");
    }
}

impl Default for Nix {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Nix {
    fn drop(&mut self) {
        // Nix takes the write permission from what it stores, without which nobody but root
        // can remove it.
        make_writable(&self.path("root"));
    }
}

fn make_writable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    // Whatever cannot be changed stays behind; a test does not fail for that.
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    if !metadata.is_dir() {
        return;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).ok();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        make_writable(&entry.path());
    }
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

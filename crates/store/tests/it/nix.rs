//! The real Nix, with a store of its own below a temporary directory.

use std::{ffi::OsStr, path::Path, process::Command};

use tempfile::TempDir;

/// A Nix that keeps to itself. Its store directory is `/nix/store` all the same, so that
/// its store paths are the usual ones.
pub(crate) struct Nix {
    root: TempDir,
}

impl Nix {
    pub(crate) fn new() -> Self {
        Self { root: TempDir::new().expect("a temporary directory") }
    }

    /// Runs a program of Nix on the store and gives what it prints.
    pub(crate) fn run(&self, program: &str, args: &[&dyn AsRef<OsStr>]) -> Vec<u8> {
        let mut uri = std::ffi::OsString::from("local?root=");
        uri.push(self.root.path().join("root"));
        self.run_without_store(program, &[args, &[&"--store", &uri]].concat())
    }

    /// Runs a command of Nix that needs no store.
    pub(crate) fn run_without_store(&self, program: &str, args: &[&dyn AsRef<OsStr>]) -> Vec<u8> {
        let mut command = Command::new(program);
        command.args(args.iter().map(AsRef::as_ref)).env_clear();
        for name in ["PATH", "LD_LIBRARY_PATH"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.env("HOME", self.root.path()).env("NIX_CONF_DIR", self.root.path());
        command.env("NIX_CONFIG", "experimental-features = nix-command");
        let output = command.output().unwrap_or_else(|error| {
            panic!("{program} cannot be run ({error}): install Debian's nix-bin")
        });
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} failed: {stderr}");
        output.stdout
    }

    /// The path that `nix-store --add` gives to a tree.
    pub(crate) fn add(&self, path: &Path) -> String {
        let printed = self.run("nix-store", &[&"--add", &path]);
        String::from_utf8(printed).expect("a store path").trim_end().to_owned()
    }

    /// The NAR that `nix-store --dump` makes of a tree.
    pub(crate) fn dump(&self, path: &Path) -> Vec<u8> {
        self.run("nix-store", &[&"--dump", &path])
    }
}

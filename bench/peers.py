"""What a user would otherwise keep trees with: restic, borg, Nix; and tar, which only reads.

Each has a directory of its own and no settings from elsewhere. `prepare` makes what is to be there before, and says how that went
if the program has a command of its own for it.
"""

import subprocess
import time
from pathlib import Path

from . import disk
from .process import Finished, Started, run

# How each says its version, for the report.
VERSIONS = {
    "restic": ["restic", "version"],
    "borg": ["borg", "--version"],
    "nix": ["nix", "--version"],
    "nginx": ["nginx", "-v"],
    "curl": ["curl", "--version"],
    "zstd": ["zstd", "--version"],
    "tar": ["tar", "--version"],
    "patchelf": ["patchelf", "--version"],
}

NIX_CONFIGURATION = """\
experimental-features = nix-command
substituters =
trusted-substituters =
build-users-group =
sandbox = false
require-sigs = false
connect-timeout = 10
download-attempts = 1
"""


class Restic:
    """A repository of restic, as it comes: encrypted, zstd at its automatic level."""

    name = "restic"

    def __init__(self, directory: Path) -> None:
        self.base = directory
        # What du is asked for.
        self.directory = directory / "repository"
        self.env = {
            "RESTIC_REPOSITORY": self.directory,
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": directory / "cache",
        }

    def prepare(self) -> Finished:
        """Makes the repository."""
        disk.remove(self.base)
        self.base.mkdir(parents=True)
        # The format that compresses is the second, which older versions do not choose.
        return run(["restic", "-q", "init", "--repository-version", "2"], env=self.env)

    def add(self, tree: Path) -> Finished:
        """Backs up the tree."""
        return self._backup(tree)

    def add_again(self, tree: Path) -> Finished:
        """Backs it up again, reading every byte."""
        return self._backup(tree, "--force")

    def _backup(self, tree: Path, *options: str) -> Finished:
        backup = ["restic", "-q", "backup", "--host", "benchmark", *options, tree.name]
        return run(backup, env=self.env, cwd=tree.parent)


class Borg:
    """A repository of borg, unencrypted, zstd at level 3."""

    name = "borg"

    def __init__(self, directory: Path) -> None:
        self.base = directory
        self.directory = directory / "repository"
        self.archives = 0
        self.env = {
            "BORG_REPO": self.directory,
            "BORG_BASE_DIR": directory / "base",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }

    def prepare(self) -> Finished:
        """Makes the repository."""
        disk.remove(self.base)
        self.base.mkdir(parents=True)
        return run(["borg", "init", "-e", "none"], env=self.env)

    def add(self, tree: Path) -> Finished:
        """Makes an archive of the tree."""
        return self._create(tree)

    def add_again(self, tree: Path) -> Finished:
        """Makes another one, reading every byte."""
        return self._create(tree, "--files-cache", "disabled")

    def _create(self, tree: Path, *options: str) -> Finished:
        self.archives += 1
        create = ["borg", "create", "-C", "zstd,3", *options, f"::{self.archives}", tree.name]
        return run(create, env=self.env, cwd=tree.parent)


class Nix:
    """Stock Nix, kept away from everything else on the machine."""

    name = "nix-store --add"

    def __init__(self, directory: Path) -> None:
        self.base = directory
        self.directory = directory / "store"
        self.env = {
            "NIX_STORE_DIR": self.directory,
            "NIX_STATE_DIR": directory / "state",
            "NIX_LOG_DIR": directory / "log",
            "NIX_CONF_DIR": directory / "conf",
            "XDG_CACHE_HOME": directory / "cache",
            "HOME": directory,
        }

    def prepare(self) -> None:
        disk.remove(self.base)
        (self.base / "conf").mkdir(parents=True)
        (self.base / "conf/nix.conf").write_text(NIX_CONFIGURATION)

    def add(self, tree: Path) -> Finished:
        """Adds the tree to a local store."""
        return run(["nix-store", "--add", tree.name], env=self.env, cwd=tree.parent)

    def copy(self, source: str, target: str, store_paths: list[str]) -> Finished:
        """Copies store paths from one store to another; neither is its own."""
        # The caches are for a store below /nix/store, and what Nix remembers of a server in
        # its cache would spare it questions, were it asked twice.
        env = {key: self.env[key] for key in ("NIX_CONF_DIR", "XDG_CACHE_HOME", "HOME")}
        disk.remove(self.base / "cache")
        copy = ["nix", "copy", "--no-check-sigs", "--from", source, "--to", target]
        return run([*copy, *store_paths], env=env)


class Tar:
    """Reading all files and doing nothing with them: nobody can be much faster."""

    name = "tar"

    def add(self, tree: Path) -> Finished:
        """Sends an archive through a pipe into nothing.

        GNU tar that itself writes to /dev/null sees that, and reads no contents.
        """
        pack = Started(["tar", "-cf", "-", tree.name], cwd=tree.parent, stdout=subprocess.PIPE)
        with pack.popen.stdout as archive:
            sink = Started(["cat"], stdin=archive, stdout=subprocess.DEVNULL)
        packed = pack.finish()
        sink.finish()
        return Finished(
            seconds=time.monotonic() - pack.began,
            cpu_seconds=packed.cpu_seconds,
            peak_bytes=packed.peak_bytes,
            stdout="",
        )

"""The programs that the benchmark runs, from Debian's packages."""

import os
import shutil
from pathlib import Path

from .failure import Failure
from .process import environment, run

# What must be found: the package that brings it.
PROGRAMS = {
    "nginx": "nginx-light",
    "restic": "restic",
    "borg": "borgbackup",
    "nix": "nix-bin",
    "nix-store": "nix-bin",
    "patchelf": "patchelf",
    "zstd": "zstd",
    "curl": "curl",
    "dpkg-deb": "dpkg",
    "tar": "tar",
    "xz": "xz-utils",
    "du": "coreutils",
}


def missing() -> list[str]:
    """Packages whose programs are not there."""
    path = environment()["PATH"]
    absent = (name for name in PROGRAMS if not shutil.which(name, path=path))
    return sorted({PROGRAMS[name] for name in absent})


def install() -> None:
    """Installs what is missing, as root on Debian; elsewhere fails and names it."""
    packages = missing()
    if not packages:
        return
    named = " ".join(packages)
    if os.geteuid() != 0:
        raise Failure(f"missing: {named}; as root on Debian this installs them")
    if not shutil.which("apt-get"):
        raise Failure(f"missing: {named}; there is no apt-get to install them with")
    apt_update_unless_listed()
    # Installing must not start nginx or nix-daemon: the benchmark runs its own.
    run(
        ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages],
        env={"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
    )
    if packages := missing():
        raise Failure(f"still missing after the installation: {' '.join(packages)}")


def apt_update_unless_listed() -> None:
    """Fetches the archive's lists where there are none, as in a fresh container."""
    if any(Path("/var/lib/apt/lists").glob("*_Packages*")):
        return
    if os.geteuid() != 0:
        raise Failure("apt has no lists of packages: run `apt-get update` as root first")
    run(["apt-get", "-qq", "update"], env={"DEBIAN_FRONTEND": "noninteractive"})

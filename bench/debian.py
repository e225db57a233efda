"""Debian packages: from the archive, or where it has them no more, as they are installed."""

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .failure import Failure
from .process import Started, run
from .requirements import apt_update_unless_listed

# Symlinks of the root directory where /usr is merged: what packages install below them lies
# below /usr.
MERGED = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

FIELDS = ("Package", "Version", "Depends", "Pre-Depends")


@dataclass(frozen=True)
class Package:
    """A package, and where its files come from."""

    name: str
    version: str
    depends: frozenset[str]
    # None: the files that are installed on this machine.
    deb: Path | None

    def unpack(self, into: Path) -> None:
        """Writes its files below `into`, laid out as in the root directory."""
        if self.deb is not None:
            run(["dpkg-deb", "-x", self.deb, into])
        else:
            _copy_installed(self.name, into)


def download(names: Iterable[str], into: Path) -> list[Package]:
    """The packages of these names, those that the archive has downloaded to `into`.

    A package that only the machine has is taken as it is installed, so that a list of one's
    own can name packages from elsewhere.
    """
    apt_update_unless_listed()
    names = sorted(names)
    into.mkdir(parents=True, exist_ok=True)
    archived = archived_versions(run(["apt-cache", "madison", *names]).stdout)
    # By version: apt would otherwise look for the one that is installed, which the archive may
    # have replaced.
    wanted = [f"{name}={version}" for name, version in sorted(archived.items())]
    if wanted:
        # As root apt would download as a user who may not write here.
        run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *wanted], cwd=into)
    debs = {deb.name.partition("_")[0]: deb for deb in into.glob("*.deb")}
    return [
        _from_archive(debs[name]) if name in archived else _from_machine(name) for name in names
    ]


def archived_versions(listed: str) -> dict[str, str]:
    """The newest version of each package in what `apt-cache madison` prints."""
    versions: dict[str, str] = {}
    for line in listed.splitlines():
        # Newest first; sources are listed too.
        name, version, source = (field.strip() for field in line.split("|"))
        if source.endswith("Packages"):
            versions.setdefault(name, version)
    return versions


def _from_archive(deb: Path) -> Package:
    return _package(_fields(run(["dpkg-deb", "-f", deb, *FIELDS]).stdout), deb)


def _from_machine(name: str) -> Package:
    form = "".join(f"{field}: ${{{field}}}\n" for field in FIELDS)
    try:
        shown = run(["dpkg-query", "-W", "-f", form, name]).stdout
    except Failure as error:
        raise Failure(
            f"neither the archive nor this machine has the package {name}: "
            "`apt-get update` may help"
        ) from error
    return _package(_fields(shown), None)


def _fields(text: str) -> dict[str, str]:
    lines = text.replace("\n ", " ").splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key: value.strip() for key, _, value in pairs}


def _package(fields: dict[str, str], deb: Path | None) -> Package:
    depends = dependencies(fields.get("Depends", ""), fields.get("Pre-Depends", ""))
    return Package(fields["Package"], fields["Version"], depends, deb)


def dependencies(*fields: str) -> frozenset[str]:
    """The names in fields like `libc6 (>= 2.36), awk | mawk`, of alternatives the first."""
    relations = (relation.strip() for field in fields for relation in field.split(","))
    return frozenset(re.split(r"[ (:|]", relation)[0] for relation in relations if relation)


def _copy_installed(name: str, into: Path) -> None:
    listed = run(["dpkg", "-L", name]).stdout.splitlines()
    files = [
        path
        for path in listed
        if path.startswith("/") and path != "/." and path not in MERGED and os.path.lexists(path)
    ]
    into.mkdir(parents=True, exist_ok=True)
    names = "".join(f"{path}\0" for path in files).encode()
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as archive, os.fdopen(writer, "wb") as output:
        pack = Started(
            ["tar", "-C", "/", "-cPf", "-", "--no-recursion", "--null", "-T", "-"],
            stdin=subprocess.PIPE,
            stdout=output,
        )
        output.close()
        unpack = Started(["tar", "-C", into, "-xf", "-"], stdin=archive)
        archive.close()
    pack.popen.stdin.write(names)
    pack.popen.stdin.close()
    pack.finish()
    unpack.finish()

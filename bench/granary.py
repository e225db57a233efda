"""Granary: imports, statistics, and its daemon."""

import json
import urllib.request
from pathlib import Path

from . import disk, narinfo
from .narinfo import NarInfo
from .process import Finished, Server, run


class Granary:
    """A store of its own in a directory, used by one process at a time."""

    name = "granary"

    def __init__(self, binary: Path, directory: Path) -> None:
        self.binary = binary
        self.directory = directory

    def prepare(self) -> None:
        disk.remove(self.directory)

    def add(self, tree: Path) -> Finished:
        """Imports the tree."""
        store = ["--data-dir", self.directory]
        return run([self.binary, "import", "--quiet", *store, tree.name], cwd=tree.parent)

    # It never goes by times: every byte is read again.
    add_again = add

    def sizes(self) -> dict[str, float]:
        """What the directory takes on the disk, and what of that packs and index take."""
        return {
            "bytes": disk.usage_bytes(self.directory),
            "packs_bytes": disk.usage_bytes(self.directory / "packs"),
            "index_bytes": disk.usage_bytes(self.directory / "index"),
        }

    def stats(self) -> dict[str, float]:
        """What `granary stats` says."""
        stats = [self.binary, "stats", "--json", "--data-dir", self.directory]
        return json.loads(run(stats).stdout)

    def daemon(self) -> "Daemon":
        """Starts a daemon on it."""
        return Daemon(self)


class Daemon(Server):
    """A daemon that takes connections on a port of the loopback address."""

    name = "granary"

    def __init__(self, granary: Granary) -> None:
        listen = ["--listen", "127.0.0.1:0", "--json", "--quiet", "--log", "warn"]
        super().__init__([granary.binary, "daemon", "--data-dir", granary.directory, *listen])
        try:
            self.url = json.loads(self.wait_until(self._first_line))["listen"][0]
        except BaseException:
            self.stop()
            raise

    def _first_line(self) -> str | None:
        line, newline, _ = self.started.printed().partition("\n")
        return line if newline else None

    def narinfo(self, store_path: str) -> NarInfo:
        """What it says of a store path."""
        name = store_path.rpartition("/")[2][:32]
        with urllib.request.urlopen(f"{self.url}/{name}.narinfo", timeout=60) as answer:
            return narinfo.parse(answer.read().decode())
